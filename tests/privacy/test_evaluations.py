"""A plan with private evaluations: its list, its ε, and what is refused."""

import json
import math
from dataclasses import replace

import pytest
import torch

from cloister.errors import RefusedError, UsageError
from cloister.privacy import adversaries
from cloister.privacy.accounting import calibrate, cross_check, epsilon
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.config import PrivacyConfig
from cloister.privacy.entropy import OsEntropy
from cloister.privacy.evaluation_release import release_evaluation_share
from cloister.privacy.evaluations import Evaluations, noise_for
from cloister.privacy.plan import Plan, make_plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.shared_noise import SHARE_LEFT
from cloister.recipe import parse_recipe
from tests.support.ledgers import SHARING, banded_plan, evaluated_plan, shared_plan, small_plan

SIZES = {
    "public_records": 100,
    "expected_batch_size": 10,
    "local_steps": 5,
    "num_rounds": 4,
    "sites": 3,
}


def test_epsilon_is_that_of_the_whole_list_and_the_target_covers_it() -> None:
    made = make_plan(PrivacyConfig(epsilon=3.0, evaluation_rounds=(2, 4)), **SIZES)
    assert made.evaluations == Evaluations(rounds=(2, 4), noise_multiplier=noise_for(2))
    training, evaluation = made.releases
    assert dict(made.listed)[ReleaseKind.EVALUATION] == evaluation
    assert (evaluation.sample_rate, evaluation.steps) == (1.0, 2)
    assert 2.98 < made.epsilon_after(4) == epsilon([training, evaluation], 1e-5) <= 3.0
    assert cross_check(made.releases, 1e-5) == made.epsilon_after(4)  # three accountants agree
    alone = make_plan(PrivacyConfig(epsilon=3.0), **SIZES)
    assert made.noise_multiplier > alone.noise_multiplier
    # Round 3 has one evaluation before it.
    before = [made.event(15), replace(evaluation, steps=1)]
    assert made.epsilon_after(3) == epsilon(before, 1e-5)


def test_all_evaluations_together_cost_as_one_of_noise_multiplier_4() -> None:
    one = Evaluations(rounds=(1,), noise_multiplier=4.0).event()
    many = Evaluations(rounds=tuple(range(1, 10)), noise_multiplier=noise_for(9)).event()
    # The pessimistic grid adds about 10⁻⁴ for each of the nine.
    assert epsilon([many], 1e-5) == pytest.approx(epsilon([one], 1e-5), abs=1e-3)
    assert epsilon([one], 1e-5) == pytest.approx(0.926, abs=0.001)


def test_without_evaluations_plan_and_noise_are_as_before() -> None:
    assert "evaluations" not in small_plan().terms()
    assert calibrate(0.1, 20, 3.0, 1e-5) == calibrate(0.1, 20, 3.0, 1e-5, ())
    written = parse_recipe("", []).to_toml()
    assert "evaluation_rounds" not in written
    assert "evaluation_rounds" not in parse_recipe("", []).document()


def test_a_plan_is_read_back_from_its_terms() -> None:
    made = evaluated_plan()
    terms = json.loads(json.dumps(made.terms()))
    assert Plan.from_terms(terms) == made
    assert made.digest() != small_plan().digest()
    good = terms["evaluations"]
    for wrong in (
        None,
        {},
        {"rounds": [2, 4]},
        good | {"more": 1},
        good | {"rounds": []},
        good | {"rounds": [4, 2]},
        good | {"rounds": [2, 2]},
        good | {"rounds": [0]},
        good | {"rounds": [2, 5]},
        good | {"rounds": [True]},
        good | {"rounds": "24"},
        good | {"noise_multiplier": 0.0},
        good | {"noise_multiplier": True},
        good | {"noise_multiplier": 1e9},
    ):
        with pytest.raises(ValueError, match="terms"):
            Plan.from_terms(terms | {"evaluations": wrong})


def test_what_cannot_be_accounted_beside_is_refused() -> None:
    evaluations = Evaluations(rounds=(1,), noise_multiplier=1.0)
    for plan in (banded_plan(), replace(small_plan(), noise_multiplier=0.0)):
        with pytest.raises(RefusedError, match="beside training whose noise is independent"):
            replace(plan, evaluations=evaluations)
    few = replace(SHARING, bits=16)
    with pytest.raises(RefusedError, match="need 32 bits"):
        replace(shared_plan(), sharing=few, evaluations=evaluations)


def test_with_shared_noise_each_site_adds_its_part_and_all_others_together_see_no_more() -> None:
    plan = replace(shared_plan(1.5), evaluations=Evaluations(rounds=(1, 3), noise_multiplier=2.5))
    assert Plan.from_terms(json.loads(json.dumps(plan.terms()))) == plan
    terms = plan.terms() | {"sharing": plan.terms()["sharing"] | {"bits": 16}}
    with pytest.raises(ValueError, match="terms"):
        Plan.from_terms(terms)
    noise = plan.shared_evaluation_noise(42)
    assert noise.bound == 1.0
    assert math.log2(noise.grid) == int(math.log2(noise.grid))
    # √h shares are the plan's noise, and a little more for the grid.
    whole = noise.share * noise.grid * math.sqrt(SHARING.honest)
    assert 2.5 <= whole <= 2.5 * 1.001
    # Room for twice the declared units at each of five sites, beside the noise.
    assert noise.room * noise.grid >= 2 * plan.public_records
    left = math.sqrt(SHARE_LEFT / SHARING.honest)
    seen = adversaries.alone([(plan, event) for event in plan.releases]) or []
    assert [event.noise_multiplier for event in seen] == pytest.approx([1.5 * left, 2.5 * left])
    alone = plan.alone()
    assert alone is not None
    assert alone.epsilon_after(4) == pytest.approx(epsilon(seen, 1e-5))
    faint = replace(plan, evaluations=Evaluations(rounds=(1,), noise_multiplier=0.3))
    assert faint.alone() is None
    with pytest.raises(RefusedError, match="no evaluation whose noise is shared"):
        shared_plan().shared_evaluation_noise(42)
    with pytest.raises(RefusedError, match="too coarse"):
        replace(plan, public_records=10**10).shared_evaluation_noise(42)


def test_only_statistics_on_the_shared_grid_become_a_share() -> None:
    plan = replace(shared_plan(), evaluations=Evaluations(rounds=(1,), noise_multiplier=1.0))
    noise = plan.shared_evaluation_noise(3)
    for bound, grid in ((2.0, noise.grid), (1.0, None), (1.0, noise.grid / 2)):
        clipped = ClippedSum((torch.zeros(3, dtype=torch.int64),), bound, grid)
        with pytest.raises(RefusedError, match="on a grid of"):
            release_evaluation_share(clipped, noise, OsEntropy())
    far = ClippedSum((torch.full((3,), 10 * noise.room),), 1.0, noise.grid)
    cut = release_evaluation_share(far, noise, OsEntropy())
    assert all(abs(cut - noise.room) < 10 * noise.share)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"evaluation_noise_multiplier": 2.0}, "without evaluation_rounds"),
        ({"evaluation_rounds": ()}, "rounds are needed"),
        ({"evaluation_rounds": (4, 2)}, "in rising order"),
        ({"evaluation_rounds": (2, 2)}, "each once"),
        ({"evaluation_rounds": (2,), "noise": "shared", "secure_bits": 16}, "set secure_bits = 32"),
        ({"evaluation_rounds": (2,), "noise_bands": 2}, "with noise_bands"),
        ({"evaluation_rounds": (2,), "site_epsilon": 2.0}, "with site_epsilon"),
        ({"evaluation_rounds": (2,), "noise_multiplier": 0.0}, "not private"),
    ],
)
def test_contradictions_are_named(fields: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        PrivacyConfig(**fields)  # type: ignore[arg-type]


def test_more_than_the_target_is_refused_with_what_to_do() -> None:
    config = PrivacyConfig(epsilon=0.5, evaluation_rounds=(2,), evaluation_noise_multiplier=1.0)
    with pytest.raises(RefusedError, match=r"beside the evaluations.*more evaluation noise"):
        make_plan(config, **SIZES)


@pytest.mark.parametrize(
    ("assignments", "why"),
    [
        (["federation.num_rounds=3"], "4 is above federation.num_rounds = 3"),
        (["lora.ranks=[2,4,2,4]"], "adapters of their own"),
        (["lora.train=b-kept"], "adapters of their own"),
        (["task.kind=scoring", "task.score_range=[0,5]"], "no statistics with a public bound"),
    ],
)
def test_a_recipe_that_cannot_be_evaluated_is_refused(assignments: list[str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_recipe("", ["privacy.evaluation_rounds=[2,4]", *assignments])
