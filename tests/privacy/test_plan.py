"""Plans use declared constants only, and refuse values that make no sense."""

import dataclasses
import json
import math

import pytest

from cloister.errors import UsageError
from cloister.privacy.config import PrivacyConfig
from cloister.privacy.plan import Plan, make_plan
from cloister.privacy.units import Unit


def plan(records: int = 100, **privacy: object) -> Plan:
    return make_plan(
        PrivacyConfig(**privacy),  # type: ignore[arg-type]
        public_records=records,
        expected_batch_size=10,
        local_steps=5,
        num_rounds=4,
        sites=3,
    )


def test_the_noise_solved_for_meets_the_target_over_all_rounds() -> None:
    solved = plan(epsilon=2.0)
    assert solved.epsilon_after(4) <= 2.0
    assert solved.epsilon_after(4) > 1.95
    assert solved.epsilon_after(1) < solved.epsilon_after(2) < solved.epsilon_after(4)


@pytest.mark.parametrize("noise", ["site", "shared"])
def test_a_plan_is_read_back_from_its_terms(noise: str) -> None:
    solved = dataclasses.replace(plan(epsilon=2.0, noise=noise), message=(("head", (2, 3)),))
    terms = json.loads(json.dumps(solved.terms()))
    assert ("sharing" in terms) == (noise == "shared")
    assert Plan.from_terms(terms) == solved
    wrongs = (
        {"local_steps": 0},
        {"unit": "house"},
        {"more": 1},
        {"num_rounds": "4"},
        {"sharing": {"sites": 3}},
        {"sharing": 3},
    )
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"terms|house"):
            Plan.from_terms(terms | wrong)


def test_epsilon_8_is_the_default() -> None:
    assert 7.9 < plan().epsilon_after(4) <= 8.0


def test_a_stated_noise_multiplier_is_kept() -> None:
    assert plan(noise_multiplier=1.5).noise_multiplier == 1.5


def test_without_privacy_nothing_is_clipped_and_epsilon_is_infinite() -> None:
    plain = plan(enabled=False)
    assert plain.max_grad_norm is None
    assert plain.epsilon_after(1) == math.inf
    assert plan(noise_multiplier=0.0).epsilon_after(1) == math.inf


def test_rows_of_a_record_change_the_plan_and_no_epsilon() -> None:
    alone, copied = plan(epsilon=2.0), plan(epsilon=2.0, max_rows_per_record=5)
    assert (alone.max_records, copied.max_records) == (1, 5)
    assert alone.epsilon_after(4) == copied.epsilon_after(4)
    assert alone.digest() != copied.digest()
    assert plan(epsilon=2.0, max_rows_per_record=1) == alone
    with pytest.raises(UsageError, match="max_rows_per_record: 5 given, and the unit is a person"):
        PrivacyConfig(unit=Unit.PERSON, max_rows_per_record=5)


def test_the_digest_covers_every_constant() -> None:
    one = plan(noise_multiplier=1.5)
    for field in dataclasses.fields(one):
        value = getattr(one, field.name)
        if isinstance(value, int | float):
            assert dataclasses.replace(one, **{field.name: value + 1}).digest() != one.digest()


def test_a_sample_rate_above_one_is_refused() -> None:
    with pytest.raises(UsageError, match=r"sample rate 1\.11"):
        plan(records=9)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"epsilon": 1.0, "noise_multiplier": 1.0}, "both given"),
        ({"epsilon": 0.0}, "epsilon: 0.0"),
        ({"epsilon": math.inf}, "epsilon: inf"),
        ({"noise_multiplier": -1.0}, "noise_multiplier: -1.0"),
        ({"delta": 0.0}, "delta"),
        ({"delta": 1.0}, "delta"),
        ({"max_grad_norm": 0.0}, "max_grad_norm"),
        ({"max_update_norm": math.nan}, "max_update_norm"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(wrong: dict[str, float], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        PrivacyConfig(**wrong)  # type: ignore[arg-type]
