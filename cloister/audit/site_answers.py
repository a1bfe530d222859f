"""Checks a site's answers from the request to the signed bytes: they may depend on public constants
and noised sums only, for any number of records.

All sites here have the same name, key and clock, and differ only in their records. So every
difference between their answers or ledgers is caused by records. Only the payload may differ; it
must follow byte for byte from the gradients that the optimizer got.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from cloister.adapter.formats import BFLOAT16_ROUNDING
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.audit.answer_fields import entries_apart, unexplained_fields
from cloister.audit.asked import Asked
from cloister.audit.asked_site import NAME, STUDY, expected_charges, wrong_charges
from cloister.audit.audited_site import AuditedSite
from cloister.audit.noise_tests import Releases, noise_check
from cloister.audit.observed import replayed, watched_optimizers
from cloister.audit.recorded_noise import CoinSite, RecordedEntropy, drawn_by, repeated_coins
from cloister.audit.second_answers import second_answers
from cloister.audit.statistics import Check, Floats, exact_check
from cloister.audit.watched_units import WatchedUnits
from cloister.client.admission import Admitted, admit
from cloister.client.personal import PersonalAdapter
from cloister.client.round import run_round
from cloister.client.site import Site
from cloister.ledger.ledger import Ledger
from cloister.ledger.storage import LedgerFile
from cloister.models.network import trained_parameters
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.protocol.exchange import RoundReply
from cloister.recipe import Recipe
from cloister.simulation.policies import simulated_budget, simulated_policy
from cloister.training.memory import OptimizerMemory, kept_moments
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace

TIME = "2000-01-01T00:00:00+00:00"
# Fields that may differ between two sites' answers: the payload, and those computed from it.
FROM_PAYLOAD = frozenset({"delta", "head", "signature"})


@dataclass(frozen=True)
class Answered:
    """One answer of a simulated site, and the answer that was expected.

    Attributes:
        reply: The answer.
        expected: The payload computed from the optimizer's gradients.
        means: The optimizer's gradients, one vector per step.
        parts: Number of values of each tensor in it.
        differing: Fields that differ from plan and ledger.
    """

    reply: RoundReply
    expected: bytes
    means: Sequence[Floats]
    parts: tuple[int, ...]
    differing: tuple[str, ...]


def answer_checks(recipe: Recipe, audited: AuditedSite) -> list[Check]:
    """Checks answers of sites without records, with one unit, with few and with many.

    Args:
        recipe: The study; its noise is not shared.
        audited: Its site, with synthetic records.
    """
    units, plan, workspace = audited.units, audited.plan, audited.workspace
    sites: list[Sequence[UnitExamples]] = [(), (), units[:1], units, (units * 5)[::-1][:-3]]
    numbers = [n for n in (1, 2) if n <= plan.num_rounds]
    charged = expected_charges(
        numbers, ReleaseKind.TRAINING, plan.noise_multiplier, plan.sample_rate, plan.local_steps
    )
    given: list[list[Answered]] = []
    ledgers: list[list[dict[str, Any]]] = []
    coins: list[RecordedEntropy] = []
    again = early = wrong = drawn = 0
    with tempfile.TemporaryDirectory() as folder:
        for count, records in enumerate(sites):
            path, watched = Path(folder) / f"{count}.ledger", WatchedUnits(records)
            site = _site(recipe, audited, watched, path, CoinSite)
            assert isinstance(site, CoinSite)
            watched.ledger = site.ledger
            memory = OptimizerMemory.empty(site.training, workspace.start.shapes)
            given.append([_answered(site, workspace, n, memory) for n in numbers])
            early += watched.early
            coins.append(site.recorded)
            drawn += watched.taken != drawn_by(site.recorded, plan.sample_rate)
            last = _asked(admit(site, workspace), numbers[-1])
            again += int(last != given[-1][-1].reply)
            wrong += wrong_charges(path, charged)
            ledgers.append([entry.fields for entry in LedgerFile(path, None).entries()])
        again += _second(recipe, audited, Path(folder), given[0][0].reply)
    every = [one for site_s in given for one in site_s]
    differing = {name for one in every for name in one.differing} | _differing(given)
    return [
        exact_check(
            "answer fields",
            "fields of an answer that differ between sites, or from "
            f"plan and ledger: {', '.join(sorted(differing)) or 'none'}",
            len(differing),
        ),
        exact_check(
            "answer bytes",
            "payloads that differ from the one computed from the noised sums, or in length",
            sum(one.reply.delta != one.expected for one in every)
            + len({(one.reply.round, len(one.reply.delta)) for one in every})
            - len(numbers),
        ),
        exact_check(
            "answers asked again",
            "answers that change when they are asked again, and answers about another adapter in "
            "their round, to a round that was cut off, or to one that the plan does not list",
            again,
        ),
        exact_check(
            "charges of updates",
            "rounds without a charge of the plan's steps, rate and noise, and other charges",
            wrong,
        ),
        exact_check(
            "charge before updates",
            "looks at units before the round's charge is in the ledger",
            early,
        ),
        exact_check(
            "batches of answers",
            "sites whose units are not those that their coins draw at the plan's rate, and coins "
            "that were drawn before",
            drawn + repeated_coins(coins),
        ),
        exact_check(
            "ledger entries",
            "entries of a ledger that differ between sites, except for the hashes of releases",
            entries_apart(ledgers),
        ),
        _noise(plan, [one for site_s in given[:2] for one in site_s]),
    ]


def _second(recipe: Recipe, audited: AuditedSite, folder: Path, first: RoundReply) -> int:
    """Counts answers that the first site, and one that is cut off, must not give.

    Args:
        recipe: The study.
        audited: Its site.
        folder: Of the sites' ledgers.
        first: The first site's answer in round 1.
    """
    workspace = audited.workspace

    def opened(name: str, kind: type[Site] = Site) -> Admitted:
        return admit(_site(recipe, audited, (), folder / f"{name}.ledger", kind), workspace)

    return second_answers(
        Asked.about(ReleaseKind.TRAINING, workspace.whole, workspace.start.size),
        lambda: opened("0"),
        first,
        lambda kind: opened("cut off", kind),
        audited.plan.num_rounds,
    )


def _site(
    recipe: Recipe,
    audited: AuditedSite,
    units: Sequence[UnitExamples],
    path: Path,
    kind: type[Site] = Site,
) -> Site:
    """Opens a site, as another process does if it has a ledger."""
    plan, key = audited.plan, path.with_name("key")
    budget = simulated_budget(plan)
    ledger = (
        Ledger(path, key=key, clock=lambda: TIME)
        if path.exists()
        else Ledger.create(path, budget, plan.unit, key=key, clock=lambda: TIME)
    )
    return kind(
        name=NAME,
        study=STUDY,
        plan=plan,
        # Questions hold the start, whole and exact, whatever the study's adapter is rounded to.
        training=replace(recipe.training, adapter_dtype=None),
        units=units,
        unit=plan.unit,
        policy=simulated_policy(recipe, plan, budget, audited.workspace),
        ledger=ledger,
        seed=recipe.study.seed,
        optimizer=PersonalAdapter.of_optimizer(path, STUDY)
        if kept_moments(recipe.training)
        else None,
    )


def _asked(admitted: Admitted, number: int) -> RoundReply:
    whole = admitted.workspace.whole
    request = Asked.about(ReleaseKind.TRAINING, whole, whole.size).request(number)
    return run_round(admitted, request, lambda: None)


def _answered(site: Site, workspace: Workspace, number: int, memory: OptimizerMemory) -> Answered:
    admitted = admit(site, workspace)  # outside of the watch, since its proof also takes steps
    with watched_optimizers() as means:
        reply = _asked(admitted, number)
    differing = tuple(unexplained_fields(reply, site, number))
    parts = tuple(p.numel() for _, p in trained_parameters(workspace.network))
    expected = _payload(site, workspace, means, number, memory)
    return Answered(reply, expected, means, parts, differing)


def _payload(
    site: Site,
    workspace: Workspace,
    means: Sequence[Floats],
    number: int,
    memory: OptimizerMemory,
) -> bytes:
    """The payload computed from this round's sums and the optimizer's memory of earlier rounds."""
    start = Adapter({**workspace.whole, **workspace.start.select(workspace.kept)})
    delta = replayed(
        workspace,
        means,
        site.plan,
        site.training,
        round_number=number,
        start=start,
        memory=memory,
    )
    sent = delta.select(delta.keys() - workspace.kept)
    if site.training.update_dtype == "bfloat16":
        return encode(sent.scale(1 - BFLOAT16_ROUNDING), "bfloat16")
    return encode(sent, site.training.update_dtype, site.plan.max_update_norm)


def _differing(given: Sequence[Sequence[Answered]]) -> set[str]:
    """Fields that differ between sites in the same round."""
    names = {field.name for field in fields(RoundReply)} - FROM_PAYLOAD
    rounds = [[one.reply for one in same] for same in zip(*given, strict=True)]
    return {
        name
        for replies in rounds
        for name in names
        if len({repr(getattr(reply, name)) for reply in replies}) > 1
    }


def _noise(plan: Plan, answers: Sequence[Answered]) -> Check:
    """Checks the noise in the optimizers' gradients at two sites without records."""
    parts = answers[0].parts
    rows = [mean for one in answers if one.parts == parts for mean in one.means]
    deviation = plan.noise_multiplier * (plan.max_grad_norm or 0.0)
    values = np.array(rows) * plan.expected_batch_size
    if values.ndim != 2:
        values = np.zeros((2, sum(parts)))  # no step was taken
    return noise_check(
        "noise of answers",
        "properties of the noise of two sites without records in the same rounds",
        Releases(values, parts, deviation),
    )
