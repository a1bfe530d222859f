"""A site shares its noise only with sites that its policy names, and in the order of rounds."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.client.policy import ProposedPlan, check
from cloister.client.policy_file import AcceptPolicy, BudgetPolicy, PrivacyPolicy, SitePolicy
from cloister.client.secure import EpochKeys, SecureExchange, agreed_terms
from cloister.errors import RefusedError, RoundSpentError
from cloister.ledger.charge import Charge
from cloister.ledger.ledger import Ledger
from cloister.ledger.signing import public_hex
from cloister.privacy.evaluations import Evaluations
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.sharing import Sharing
from cloister.protocol.exchange import Step
from cloister.secagg.epoch_keys import advertise
from cloister.secagg.epoch_terms import EpochTerms
from cloister.secagg.query import Query, to_hex
from tests.support.ledgers import new_ledger, small_plan

PLAN = replace(
    small_plan(), local_steps=1, sharing=Sharing(sites=3, missing=0, colluding=1), message=()
)
BASE = "ab" * 32
OTHERS = {site: Ed25519PrivateKey.generate() for site in ("east", "west")}
KEYS = {site: public_hex(key) for site, key in OTHERS.items()}
OWN = "0f" * 32
ACCEPT = AcceptPolicy(
    tasks=("causal-lm",), base_sha256=(BASE,), noise_partners=tuple(KEYS.values())
)


def question(**members: str) -> Query:
    return Query(epoch=1, members={"own": OWN, **KEYS, **members})


def agreed(asked: Query, plan: Plan = PLAN, accept: AcceptPolicy = ACCEPT) -> EpochTerms:
    return agreed_terms("study", asked, plan, accept, "own", OWN)


def test_an_epoch_of_those_it_names_is_joined() -> None:
    assert agreed(question()).members == {"own": OWN, **KEYS}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (question(own="1f" * 32), "does not list this site under its"),
        (Query(epoch=1, members=KEYS), "does not list this site under its"),
        (question(west=KEYS["east"]), "have the same key"),
        (question(west=OWN), "have the same key"),
        (question(west="2f" * 32), "noise_partners: west"),
    ],
)
def test_a_coordinator_cannot_make_up_members(asked: Query, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        agreed(asked)


def test_more_members_than_the_plan_has_sites_are_refused() -> None:
    more = replace(ACCEPT, noise_partners=(*KEYS.values(), "3f" * 32))
    with pytest.raises(RefusedError, match="the epoch has 4 sites"):
        agreed(question(north="3f" * 32), accept=more)


def test_a_plan_with_noise_of_one_s_own_joins_no_epoch() -> None:
    with pytest.raises(RefusedError, match="the site's own"):
        agreed(question(), replace(PLAN, sharing=None))


def reasons(plan: Plan, accept: AcceptPolicy = ACCEPT, **privacy: float) -> str:
    policy = SitePolicy(
        budget=BudgetPolicy(epsilon=50.0, delta=1e-5),
        privacy=PrivacyPolicy(**{"min_noise_multiplier": 0.5, "max_grad_norm": 8.0, **privacy}),
        accept=accept,
    )
    asked = ProposedPlan(
        plan=plan,
        task="causal-lm",
        base_sha256=BASE,
        target_modules=("q_proj",),
        message_bytes=100,
        method="lora",
    )
    try:
        check(asked, policy)
    except RefusedError as error:
        return str(error)
    return ""


def test_a_policy_takes_shared_noise_from_whom_it_names_and_no_less_than_it_says() -> None:
    assert reasons(PLAN) == ""
    assert "accept.noise_partners" in reasons(PLAN, replace(ACCEPT, noise_partners=()))
    assert "accept.min_colluding" in reasons(PLAN, replace(ACCEPT, min_colluding=2))
    assert "plan.sharing" in reasons(replace(PLAN, local_steps=2))


def test_a_stricter_policy_keeps_out_of_a_sum_that_runs_one_plan() -> None:
    assert "plan.noise_multiplier" in reasons(PLAN, min_noise_multiplier=1.5)
    assert "plan.max_grad_norm" in reasons(PLAN, max_grad_norm=0.5)
    assert "plan.expected_batch_size" in reasons(PLAN, max_sample_rate=0.05)


class Member:
    """A site of an epoch, with a ledger, and the advertisements of the others."""

    def __init__(self, path: Path) -> None:
        self.ledger: Ledger = new_ledger(path)
        self.terms = EpochTerms(
            study="study",
            epoch=1,
            sharing=Sharing(sites=3, missing=0, colluding=1),
            members={"own": self.ledger.public_key, **KEYS},
        )
        self.keys = EpochKeys()
        self.adverts: dict[str, bytes] = {}
        own = self.ask(0, Step.ADVERTISE).payload
        self.adverts = {"own": own, **self.others()}

    def others(self) -> Mapping[str, bytes]:
        return {
            site: advertise(self.terms, site, EpochKeys().private, key.sign)
            for site, key in OTHERS.items()
        }

    def ask(self, number: int, step: Step = Step.MASK):  # type: ignore[no-untyped-def]
        asked = Query(epoch=1, members=self.terms.members, advertisements=to_hex(self.adverts))
        asking = SecureExchange("own", self.ledger, self.keys, self.terms, asked, number, "ab" * 32)
        charge = Charge(
            study="study", round=number, plan=PLAN, request=f"adapter {number}", is_private=True
        )
        return asking.answer(step, charge, lambda: np.zeros(20, dtype=np.int64))


def test_an_earlier_round_is_not_charged_after_a_later_one(tmp_path: Path) -> None:
    member = Member(tmp_path / "own.ledger")
    member.ask(2)
    with pytest.raises(RefusedError, match="nothing was charged"):
        member.ask(1)
    assert member.ledger.steps == 1


def test_a_round_asked_again_is_sent_again_and_charged_once(tmp_path: Path) -> None:
    member = Member(tmp_path / "own.ledger")
    assert member.ask(1) == member.ask(1)
    assert member.ledger.steps == 1


def test_an_epoch_joined_with_other_keys_is_refused(tmp_path: Path) -> None:
    member = Member(tmp_path / "own.ledger")
    member.ask(1)
    member.adverts |= member.others()
    with pytest.raises(RefusedError, match="other keys of its members"):
        member.ask(2)
    assert member.ledger.steps == 1


def test_a_restarted_site_joins_the_next_epoch(tmp_path: Path) -> None:
    member = Member(tmp_path / "own.ledger")
    member.ask(1)
    member.keys = EpochKeys()
    with pytest.raises(RefusedError, match="the next one"):
        member.ask(2)
    fresh = EpochKeys()
    member.keys = fresh
    own = member.ask(0, Step.ADVERTISE).payload
    member.adverts = {"own": own, **member.others()}
    with pytest.raises(RoundSpentError, match="keys that are lost"):
        member.ask(1)
    assert member.ledger.steps == 1


def test_a_round_and_its_evaluation_are_two_sums_with_masks_of_their_own(tmp_path: Path) -> None:
    member = Member(tmp_path / "own.ledger")
    plan = replace(PLAN, evaluations=Evaluations(rounds=(1,), noise_multiplier=1.0))

    def masked(evaluates: bool, kind: ReleaseKind | None = None) -> bytes:
        asked = Query(
            epoch=1,
            members=member.terms.members,
            advertisements=to_hex(member.adverts),
            evaluates=evaluates,
        )
        asking = SecureExchange(
            "own", member.ledger, member.keys, member.terms, asked, 1, "ab" * 32, True
        )
        kind = kind or (ReleaseKind.EVALUATION if evaluates else ReleaseKind.TRAINING)
        charge = Charge(
            study="study", round=1, plan=plan, request=f"{kind}", is_private=True, kind=kind
        )
        return asking.answer(Step.MASK, charge, lambda: np.zeros(20, dtype=np.int64)).payload

    update = masked(evaluates=False)
    # With the update's number, its masks would be drawn again: nothing leaves.
    with pytest.raises(RoundSpentError, match="masked before"):
        masked(evaluates=False, kind=ReleaseKind.EVALUATION)
    other = Member(tmp_path / "other.ledger")
    member.ledger, member.keys, member.terms, member.adverts = (
        other.ledger,
        other.keys,
        other.terms,
        other.adverts,
    )
    update, scores = masked(evaluates=False), masked(evaluates=True)
    # Zeros were masked, so the bytes are the masks: 20 words of 32 bits.
    assert not set(np.frombuffer(update[-80:], "<u4")) & set(np.frombuffer(scores[-80:], "<u4"))
    assert masked(evaluates=True) == scores  # asked again, the same bytes
    assert member.ledger.steps == 2
    with pytest.raises(RefusedError, match="asked after a later one"):
        masked(evaluates=False)
