"""Broken sites whose answers reveal more than their release: in fields, bytes or ledger entries."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cloister.adapter.tensors import Adapter
from cloister.client import round as site_round
from cloister.client.admission import Admitted
from cloister.client.site import Site
from cloister.ledger.ledger import Ledger
from cloister.privacy.entropy import Entropy
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.protocol.exchange import RoundReply
from tests.support.entropy import FromNormals
from tests.support.mutants.own import (
    answering_another_free,
    charged_for_more_noise,
    redrawn_after_a_cut,
    redrawn_later,
    same_coins,
    seeded_coins,
    uncharged_after,
)
from tests.support.mutants.registry import mutant
from tests.support.mutants.secure import looking_first

SOUND_REPLY, SOUND_UPDATE = site_round._released, site_round.local_update


def reply_is(patch: pytest.MonkeyPatch, change: Callable[[Site, RoundReply], RoundReply]) -> None:
    """The reply is changed, and signed again."""

    def broken(at: Site, request: Any, released: Any) -> RoundReply:
        reply = change(at, SOUND_REPLY(at, request, released))
        return replace(reply, signature=at.ledger.sign(reply.statement(at.study)))

    patch.setattr(site_round, "_released", broken)


def update_is(patch: pytest.MonkeyPatch, change: Callable[[Any, Adapter], Adapter]) -> None:
    def broken(network: Any, task: Any, units: Any, *rest: Any, **named: Any) -> Adapter:
        return change(units, SOUND_UPDATE(network, task, units, *rest, **named))

    patch.setattr(site_round, "local_update", broken)


@mutant("answers", "answer fields")
def epsilon_carries_the_number_of_records(patch: pytest.MonkeyPatch) -> None:
    reply_is(patch, lambda at, reply: replace(reply, epsilon=float(len(at.units))))


@mutant("answers", "answer fields")
def epsilon_s_last_digits_carry_the_number_of_records(patch: pytest.MonkeyPatch) -> None:
    reply_is(
        patch, lambda at, reply: replace(reply, epsilon=reply.epsilon * (1 + 1e-14 * len(at.units)))
    )


@mutant("answers", "answer fields")
def head_carries_a_record(patch: pytest.MonkeyPatch) -> None:
    def change(at: Site, reply: RoundReply) -> RoundReply:
        first = at.units[0][0].input_ids if at.units else ()
        return replace(reply, head=bytes(i % 256 for i in first).hex().ljust(64, "0")[:64])

    reply_is(patch, change)


@mutant("answers", "answer bytes")
def lowest_bits_of_an_update_carry_records(patch: pytest.MonkeyPatch) -> None:
    def change(units: Any, delta: Adapter) -> Adapter:
        changed = {}
        for name, value in delta.items():
            bits = value.copy().view(np.uint32)
            bits &= np.uint32(0xFFFFFFFE)
            bits.reshape(-1)[: len(units)] |= np.uint32(1)
            changed[name] = bits.view(np.float32)
        return Adapter(changed)

    update_is(patch, change)


@mutant("answers", "answer bytes")
def payload_padded_by_the_number_of_records(patch: pytest.MonkeyPatch) -> None:
    def broken(at: Site, request: Any, released: Any) -> RoundReply:
        longer = replace(released, payload=released.payload + bytes(len(at.units)))
        return SOUND_REPLY(at, request, longer)

    patch.setattr(site_round, "_released", broken)


@mutant("answers", "answers asked again")
def answers_rounded_anew_when_asked_again(patch: pytest.MonkeyPatch) -> None:
    told: set[str] = set()

    def broken(at: Site, request: Any, released: Any) -> RoundReply:
        payload = released.payload
        if released.head in told:
            payload = payload[:-1] + bytes([payload[-1] ^ 1])
        told.add(released.head)
        return SOUND_REPLY(at, request, replace(released, payload=payload))

    patch.setattr(site_round, "_released", broken)


@mutant("answers", "ledger entries")
def ledger_tells_the_number_of_records(patch: pytest.MonkeyPatch) -> None:
    """What a site's certificate hands to everybody."""
    append, count = Ledger._append, [0]

    def noted(self: Ledger, *given: Any, **fields: Any) -> Any:
        return append(self, *given, **fields, records=count[0])

    def counted(admitted: Admitted, *given: Any) -> RoundReply:
        count[0] = len(admitted.site.units)
        return SOUND_ROUND(admitted, *given)

    patch.setattr(Ledger, "_append", noted)
    patch.setattr("cloister.audit.site_answers.run_round", counted)


SOUND_ROUND = site_round.run_round


@mutant("answers", "noise of answers")
def two_sites_with_the_same_noise(patch: pytest.MonkeyPatch) -> None:
    def entropy(at: Site, plan: Plan, number: int) -> Entropy:
        return FromNormals(np.random.default_rng(number).standard_normal)

    patch.setattr(Site, "entropy", entropy)


@mutant("answers", "noise of answers")
def sites_without_records_without_noise(patch: pytest.MonkeyPatch) -> None:
    sound = Site.entropy

    def entropy(at: Site, plan: Plan, number: int) -> Entropy:
        return sound(at, plan, number) if at.units else FromNormals(np.zeros)

    patch.setattr(Site, "entropy", entropy)


@mutant("answers", "charge before updates")
def updates_in_clear_charged_after_a_look_at_records(patch: pytest.MonkeyPatch) -> None:
    looking_first(patch, "_charged_and_trained", "units")


@mutant("answers", "charges of updates")
def updates_in_clear_charged_in_the_first_round_only(patch: pytest.MonkeyPatch) -> None:
    uncharged_after(patch, ReleaseKind.TRAINING, 1)


@mutant("answers", "charges of updates")
def updates_in_clear_charged_for_twice_their_noise(patch: pytest.MonkeyPatch) -> None:
    charged_for_more_noise(patch)


@mutant("answers", "answers asked again")
def an_update_of_another_adapter_in_a_released_round_in_clear(patch: pytest.MonkeyPatch) -> None:
    answering_another_free(patch)


@mutant("answers", "answers asked again")
def noise_of_an_update_that_was_cut_off_redrawn(patch: pytest.MonkeyPatch) -> None:
    redrawn_after_a_cut(patch)


@mutant("answers", "answers asked again")
def noise_of_an_update_redrawn_after_a_later_round(patch: pytest.MonkeyPatch) -> None:
    redrawn_later(patch)


@mutant("answers", "batches of answers")
def coins_of_updates_in_clear_from_the_study_s_seed(patch: pytest.MonkeyPatch) -> None:
    seeded_coins(patch)


@mutant("answers", "batches of answers")
def a_site_s_coins_the_same_in_every_round(patch: pytest.MonkeyPatch) -> None:
    same_coins(patch)


@mutant("answers", "batches of answers")
def rounds_in_clear_at_twice_the_charged_rate(patch: pytest.MonkeyPatch) -> None:
    real = site_round._trained

    def oftener(admitted: Admitted, *given: Any) -> Any:
        plan = replace(admitted.plan, public_records=admitted.plan.public_records // 2)
        return real(replace(admitted, plan=plan), *given)

    patch.setattr(site_round, "_trained", oftener)
