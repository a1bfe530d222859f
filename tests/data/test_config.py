"""The `[data]` section accepts valid values and refuses others by name."""

import math
from typing import Any

import pytest

from cloister.data.config import SYNTHETIC, DataConfig
from cloister.errors import UsageError


def test_the_default_is_the_built_in_generator() -> None:
    assert DataConfig().train == SYNTHETIC


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train": ""}, "train: '' given; a string of 1 to"),
        ({"sites": 0}, "sites: 0 given; a whole number from 1"),
        ({"sites": -3}, "sites: -3 given"),
        ({"alpha": 0.0}, "alpha: 0.0 given; a number from 1e-06"),
        ({"alpha": -1.0}, "alpha: -1.0 given"),
        ({"alpha": math.inf}, "alpha: inf given"),
        ({"alpha": math.nan}, "alpha: nan given"),
        ({"public_records": 0}, "public_records: 0 given"),
        ({"public_records": (100, 0)}, "public_records: 0 given as value 2"),
        ({"public_records": ()}, "public_records: an empty list given"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        DataConfig(**fields)


@pytest.mark.parametrize("train", [SYNTHETIC, "owner/name", "owner/name:config"])
def test_a_source_with_splits_brings_its_own_test_set(train: str) -> None:
    assert DataConfig(train=train).test is None


@pytest.mark.parametrize("declared", [1, (1, 2, 3)])
def test_numbers_of_records_are_declared_for_all_sites_or_each(
    declared: int | tuple[int, ...],
) -> None:
    assert DataConfig(public_records=declared).public_records == declared
