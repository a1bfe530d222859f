"""A card states every ε with whom it holds against, whatever way of noise was taken."""

import math
from collections.abc import Mapping
from dataclasses import replace

from cloister.privacy.central import central_plan
from cloister.privacy.plan import Plan
from cloister.release.card import Card, render
from tests.support.ledgers import shared_plan, small_plan

CENTRAL = central_plan(8.0, 1e-5, sites=100, rounds=3, max_update_norm=1.0)


def card(plan: Plan, epsilon: float, **more: object) -> str:
    plans: Mapping[str, Plan] = {"east": plan, "west": plan}
    usual = Card(
        name="study", base="base", base_sha256="ab", kind="sequence-classification", labels=("a",),
        pooling=None, parameters=7, rounds=3, mode="one gradient a round", metric="accuracy",
        test={"accuracy": 0.5}, plain_test=None, majority=None, plans=plans,
        epsilon=dict.fromkeys(plans, epsilon), recipe_digest="cd", ledgers={},
    )  # fmt: skip
    text = render(replace(usual, **more))  # type: ignore[arg-type]
    return text[text.index("## Privacy") : text.index("## Loading")]


def row(text: str, about: str) -> str:
    [found] = [line for line in text.splitlines() if line.startswith(f"| {about}")]
    return found


def test_a_site_s_own_noise_holds_against_everybody() -> None:
    text = card(small_plan(), 2.5)
    assert "against the coordinator, the other sites and the public" in text
    assert "2.500" in row(text, "east")


def test_shared_noise_states_what_all_other_sites_together_are_left_with() -> None:
    plan = shared_plan()
    text = card(plan, 2.5)
    assert "as above" in row(text, "the public")
    assert "as above" in row(text, "at most 1 of the other sites together")
    alone = plan.alone()
    assert alone is not None
    assert f"{alone.epsilon_after(plan.num_rounds):.3f}" in row(text, "all other sites together")
    assert alone.epsilon_after(plan.num_rounds) > 2 * plan.epsilon_after(plan.num_rounds)
    assert "∞" in row(card(shared_plan(0.3), 30.0), "all other sites together")


def test_noise_at_the_coordinator_comes_on_top() -> None:
    text = card(small_plan(), 2.5, central=CENTRAL)
    assert "2.500" in row(text, "east")
    assert f"ε = {CENTRAL.epsilon_after(3):.3f}" in text
    assert "whole **site**" in text


def test_noise_at_the_coordinator_alone_protects_against_others_than_the_coordinator() -> None:
    text = card(small_plan(), math.inf, central=CENTRAL)
    assert "Against the coordinator: none, ε = ∞" in text
    assert f"ε = {CENTRAL.epsilon_after(3):.3f}" in text
    assert "other sites and the public" in text


def test_no_noise_is_no_privacy() -> None:
    text = card(small_plan(), math.inf)
    assert "None: ε = ∞" in text
    assert "whole **site**" not in text


def test_a_twin_that_was_not_tuned_is_called_untuned() -> None:
    """Else the difference is taken for the price of privacy, which it is a lower bound of."""
    plans = {"east": small_plan()}
    with_twin = Card(
        name="study", base="base", base_sha256="ab", kind="sequence-classification", labels=("a",),
        pooling=None, parameters=7, rounds=3, mode="one gradient a round", metric="accuracy",
        test={"accuracy": 0.5}, plain_test={"accuracy": 0.75}, majority=None, plans=plans,
        epsilon={"east": 2.5}, recipe_digest="cd", ledgers={},
    )  # fmt: skip
    text = render(with_twin)
    assert "| | this adapter | same run without privacy, untuned |" in text
    assert "| accuracy | 0.5000 | 0.7500 |" in text
    assert "privacy cost at least the difference" in text
    assert "untuned" not in render(replace(with_twin, plain_test=None))
