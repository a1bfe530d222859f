"""A card states every ε with its adversary, for every kind of noise."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from cloister.evidence.site_facts import SiteFacts
from cloister.export.card import NO_CERTIFICATE, Card, render
from cloister.export.snippets import Loading
from cloister.ledger import stated
from cloister.ledger.budget import Budget
from cloister.ledger.stated import COUPLED, of_budget, of_events, of_plan, of_plan_alone
from cloister.models.pooling import Pooling
from cloister.privacy.central import CentralPlan, central_plan
from cloister.privacy.estimated_scores import EvaluatedRound, SelectedRound
from cloister.privacy.noised_ratio import Estimate
from cloister.privacy.plan import Plan
from cloister.privacy.units import Unit
from tests.support.ledgers import shared_plan, small_plan

LOADING = Loading(
    base="base",
    network="AutoModel",
    kind="sequence-classification",
    pooling=Pooling("mean", False, "as model.pooling says"),
    max_length=16,
    pad_id=0,
)


@pytest.fixture(scope="module")
def central() -> CentralPlan:
    return central_plan(8.0, 1e-5, sites=100, rounds=3, max_update_norm=1.0)


def facts(plan: Plan, **changes: object) -> SiteFacts:
    """What a ledger that ran two rounds of a plan states."""
    usual = SiteFacts(
        promise=of_plan(plan),
        promise_alone=of_plan_alone(plan),
        spent=of_events([plan.event(2 * plan.local_steps)], plan.delta, [plan], plan.unit),
        plans=(plan,),
        rounds=2,
        ended="entry 4",
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def whole_card(sites: Plan | Mapping[str, SiteFacts | str]) -> Card:
    """A card's facts; of a plan, at two sites."""
    known = {"east": facts(sites), "west": facts(sites)} if isinstance(sites, Plan) else sites
    return Card(
        name="study",
        base="base",
        base_sha256="ab",
        kind="sequence-classification",
        labels=("a",),
        loading=LOADING,
        parameters=7,
        rounds=2,
        mode="one gradient a round",
        metric="accuracy",
        test={"accuracy": 0.5},
        plain_test=None,
        majority=None,
        sites=known,
        recipe_digest="cd",
    )


def card(sites: Plan | Mapping[str, SiteFacts | str], **more: object) -> str:
    text = render(replace(whole_card(sites), **more))  # type: ignore[arg-type]
    return text[text.index("## Privacy") : text.index("## Limits")]


def open_plan() -> Plan:
    return replace(small_plan(), noise_multiplier=0.0, max_grad_norm=None, max_update_norm=None)


def row(text: str, about: str) -> str:
    [found] = [line for line in text.splitlines() if line.startswith(f"| {about}")]
    return found


def test_a_site_s_own_noise_holds_against_everybody() -> None:
    text = card(small_plan())
    assert "against the coordinator, the other sites and the public" in text
    assert (
        f"{stated.shown(small_plan().epsilon_after(4), 3)} | 1e-05 | record | the whole plan"
        in text
    )


def test_what_ran_is_an_indication_beside_the_promise_of_the_whole_plan() -> None:
    plan = small_plan()
    whole, ran = (
        stated.shown(plan.epsilon_after(4), 3),
        stated.shown(plan.epsilon_after(2), 3),
    )
    cells = [cell.strip() for cell in row(card(plan), "east").strip("|").split("|")]
    assert cells[1] == whole
    assert cells[-1] == f"{ran} at δ = 1e-05"
    head = row(card(plan), "site ")
    assert "ε promised" in head
    assert "an indication" in head
    assert "not a promise" in card(plan)


def test_each_site_has_its_own_unit_delta_and_clip_on_the_card() -> None:
    strict = replace(
        small_plan(2.0), unit=Unit.PERSON, max_records=4, delta=1e-6, max_grad_norm=0.5
    )
    text = card({"east": facts(small_plan()), "west": facts(strict)})
    assert "person, with at most 4 of its records" in row(text, "west")
    assert "| 1e-06 |" in row(text, "west")
    assert "| 0.5 |" in row(text, "west")
    assert "| record |" in row(text, "east")


def test_copies_and_coupled_units_are_said_of_the_sites_that_have_them() -> None:
    copied = facts(replace(small_plan(), max_records=5))
    text = card({"east": facts(small_plan()), "west": replace(copied, couples_units=True)})
    assert "record, with at most 5 rows made of it, copies among them" in row(text, "west")
    assert f"west: {COUPLED}." in text
    assert COUPLED not in card({"east": facts(small_plan()), "west": copied})


def test_a_data_set_of_several_plans_is_promised_its_budget() -> None:
    promise = of_budget(Budget(epsilon=8.0, delta=1e-5), Unit.RECORD, [small_plan()])
    text = card({"east": facts(small_plan(), promise=promise)})
    assert "| 8.000 | 1e-05 | record | all that the data set ever releases |" in row(text, "east")


def test_nothing_is_said_of_a_site_without_a_certificate() -> None:
    text = card({"east": facts(small_plan()), "west": NO_CERTIFICATE})
    assert "**west: no certificate, so what it was promised is not known.**" in text
    assert "| west" not in text
    nobody = card({"east": NO_CERTIFICATE, "west": NO_CERTIFICATE})
    assert "ε promised" not in nobody
    assert "ε = ∞" not in nobody  # nothing is known, which is not the same
    assert "east: no certificate" in nobody


def test_shared_noise_states_what_all_other_sites_together_are_left_with() -> None:
    plan = shared_plan()
    text = card(plan)
    assert "as above" in row(text, "the public")
    assert "as above" in row(text, "at most 1 of the other sites together")
    alone = plan.alone()
    assert alone is not None
    assert stated.shown(alone.epsilon_after(plan.num_rounds), 3) in row(
        text, "all other sites together"
    )
    assert alone.epsilon_after(plan.num_rounds) > 2 * plan.epsilon_after(plan.num_rounds)
    assert "∞" in row(card(shared_plan(0.3)), "all other sites together")


def test_noise_at_the_coordinator_comes_on_top(central: CentralPlan) -> None:
    text = card(small_plan(), central=central)
    assert "the whole plan" in row(text, "east")
    assert f"ε = {stated.shown(central.epsilon_after(3), 3)}" in text
    assert "whole **site**" in text


def test_noise_at_the_coordinator_alone_protects_against_others_than_the_coordinator(
    central: CentralPlan,
) -> None:
    text = card(open_plan(), central=central)
    assert "Against the coordinator: none, ε = ∞" in text
    assert f"ε = {stated.shown(central.epsilon_after(3), 3)}" in text
    assert "other sites and the public" in text


def test_no_noise_is_no_privacy() -> None:
    text = card(open_plan())
    assert "None: ε = ∞" in text
    assert "whole **site**" not in text


def test_a_twin_that_was_not_tuned_is_called_untuned() -> None:
    """Else the difference is taken for the price of privacy, which it is a lower bound of."""
    with_twin = Card(
        name="study",
        base="base",
        base_sha256="ab",
        kind="sequence-classification",
        labels=("a",),
        loading=LOADING,
        parameters=7,
        rounds=3,
        mode="one gradient a round",
        metric="accuracy",
        test={"accuracy": 0.5},
        plain_test={"accuracy": 0.75},
        majority=None,
        sites={"east": facts(small_plan())},
        recipe_digest="cd",
    )
    text = render(with_twin)
    assert "| | this adapter | same run without privacy, untuned |" in text
    assert "| accuracy | 0.5000 | 0.7500 |" in text
    assert "privacy cost at least the difference" in text
    assert "untuned" not in render(replace(with_twin, plain_test=None))


@pytest.mark.parametrize(
    ("score", "majority", "is_said"),
    [(0.676, 0.676, True), (0.5, 0.676, True), (0.677, 0.676, False), (0.0, None, False)],
)
def test_an_adapter_that_guesses_is_said_to(
    score: float, majority: float | None, is_said: bool
) -> None:
    whole = Card(
        name="study",
        base="base",
        base_sha256="ab",
        kind="sequence-classification",
        labels=("a",),
        loading=LOADING,
        parameters=7,
        rounds=3,
        mode="one gradient a round",
        metric="accuracy",
        test={"accuracy": score},
        plain_test=None,
        majority=majority,
        sites={"east": facts(small_plan())},
        recipe_digest="cd",
    )
    assert ("has learnt nothing of use" in render(whole)) == is_said


def test_a_card_says_how_texts_are_pooled_and_cut() -> None:
    whole = Card(
        name="study",
        base="base",
        base_sha256="ab",
        kind="sequence-classification",
        labels=("a",),
        loading=LOADING,
        parameters=7,
        rounds=3,
        mode="one gradient a round",
        metric="accuracy",
        test={"accuracy": 0.5},
        plain_test=None,
        majority=None,
        sites={"east": facts(small_plan())},
        recipe_digest="cd",
    )
    text = render(whole)
    assert "A text is one vector by its mean (as model.pooling says)." in text
    assert "cut to 16 tokens" in text


def test_a_card_states_private_evaluations_with_their_intervals() -> None:
    silent = render(whole_card(small_plan()))
    assert "held-out records" not in silent
    assert "nothing computed on them leaves a site uncharged" in silent
    scores = [
        {"accuracy": Estimate(value, (0.6, 0.9), (0.5, 1.0)), "loss": Estimate(0.4, (0.3, 1), None)}
        for value in (None, 0.8)
    ]
    found = [EvaluatedRound(number, 2, one, {}) for number, one in enumerate(scores, 1)]
    text = render(replace(whole_card(small_plan()), evaluations=found))
    assert "After round 2 of 2 the sites scored" in text
    assert "| accuracy | 0.8000 | 0.6000 to 0.9000 | 0.5000 to 1.0000 |" in text
    assert "| loss | 0.4000 | 0.3000 to 1.0000 |  |" in text
    assert "Other estimates of accuracy: – (0.5000 to 1.0000) after round 1." in text
    assert "nothing computed on them leaves a site uncharged" not in text
    assert "The adapter here is that of round" not in text
    chosen = SelectedRound(1, "accuracy", 2, "public_validation")
    both = replace(whole_card(small_plan()), evaluations=found[1:], selected=chosen)
    assert "The adapter here is that of round 1, which the sites did not score" in render(both)
