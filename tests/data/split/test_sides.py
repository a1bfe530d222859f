"""A unit's side depends on the unit alone (hash, time, site) or has equal shares (label)."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.data.split.sides import (
    SIDES,
    Shares,
    by_site,
    by_time,
    furthest,
    hashed,
    moment,
    stratified,
    stratified_several,
    usual_label,
)
from cloister.errors import UsageError

SHARES = Shares(validation=0.1, test=0.2, salt="a")


@settings(deadline=None)
@given(st.text(), st.text())
def test_a_unit_s_side_is_always_the_same_under_a_salt(unit: str, salt: str) -> None:
    assert hashed(unit, Shares(salt=salt)) == hashed(unit, Shares(salt=salt))


def test_hashed_sides_have_their_shares_and_another_salt_deals_anew() -> None:
    units = [f"patient {n}" for n in range(4000)]
    counts = Counter(hashed(unit, SHARES) for unit in units)
    # Binomial: a standard deviation is below √(4000 · 0.25) = 32; five of them.
    assert abs(counts["test"] - 800) < 160
    assert abs(counts["validation"] - 400) < 160
    other = Shares(validation=0.1, test=0.2, salt="b")
    moved = sum(hashed(unit, other) != hashed(unit, SHARES) for unit in units)
    assert moved > 1000  # of independent deals 1 − 0.7² − 0.2² − 0.1² = 46%: 1840


def test_a_salt_and_a_unit_are_told_apart() -> None:
    draws = {hashed(f"{n}x", Shares(test=0.5, salt="s")) for n in range(20)}
    assert draws == {"train", "test"}
    pairs = [(f"{n}", "9") for n in range(64)]
    one = [hashed(unit, Shares(test=0.5, salt=salt)) for unit, salt in pairs]
    other = [hashed(salt + unit, Shares(test=0.5, salt="")) for unit, salt in pairs]
    assert one != other


@settings(deadline=None)
@given(
    st.dictionaries(st.text(max_size=3), st.sampled_from("ab"), max_size=60),
    st.floats(0, 0.45),
    st.floats(0, 0.45),
)
def test_stratified_sides_are_within_a_unit_of_each_label_s_share(
    labels: dict[str, str], test: float, validation: float
) -> None:
    sides = stratified(labels, Shares(test=test, validation=validation))
    assert sides.keys() == labels.keys()
    assert sides == stratified(
        dict(reversed(labels.items())), Shares(test=test, validation=validation)
    )
    for label in "ab":
        units = [unit for unit in labels if labels[unit] == label]
        tests = sum(sides[unit] == "test" for unit in units)
        held_out = tests + sum(sides[unit] == "validation" for unit in units)
        assert abs(tests - test * len(units)) <= 0.5 + 1e-9
        assert abs(held_out - (test + validation) * len(units)) <= 0.5 + 1e-9


def test_each_of_several_labels_has_its_share_the_rare_ones_too() -> None:
    """Frequent, rare and none; a label of four units with 0.25 has one on the test side."""
    draw = random.Random(0)
    rates = {"a": 0.6, "b": 0.3, "c": 0.05}
    labels = {f"u{n}": {x for x, p in rates.items() if draw.random() < p} for n in range(400)}
    for unit in ("u0", "u100", "u200", "u300"):
        labels[unit] = labels[unit] | {"rare"}
    shares = Shares(test=0.25, validation=0.25)
    sides = stratified_several(labels, shares)
    assert sides.keys() == labels.keys()
    assert sides == stratified_several(dict(reversed(labels.items())), shares)
    assert abs(sum(side == "test" for side in sides.values()) - 100) <= 2
    for label in ("a", "b", "c", "rare"):
        units = [unit for unit in labels if label in labels[unit]]
        found = Counter(sides[unit] for unit in units)
        # By a hash alone the 24 or so units of "c" would miss their share by 2 and more.
        assert abs(found["test"] - len(units) / 4) <= 1.5
        assert abs(found["validation"] - len(units) / 4) <= 1.5
    assert Counter(sides[u] for u in labels if "rare" in labels[u])["test"] == 1
    assert set(stratified_several(labels, Shares(test=0.5)).values()) == {"test", "train"}


def test_stratified_sides_couple_units_and_hashed_ones_do_not() -> None:
    labels = dict.fromkeys([f"u{n}" for n in range(40)], "a")
    without = [{u: x for u, x in labels.items() if u != gone} for gone in labels]
    assert any(
        stratified(rest, SHARES)[u] != stratified(labels, SHARES)[u]
        for rest in without
        for u in rest
    )


def test_a_unit_with_any_held_out_record_is_held_out() -> None:
    assert furthest(["train", "test", "validation"]) == "test"
    assert furthest(["train", "validation"]) == "validation"
    assert [furthest([side]) for side in SIDES] == list(SIDES)
    assert usual_label(["b", "a", "b"]) == "b"
    assert usual_label(["b", "a"]) == "a"


def test_times_and_sites() -> None:
    side = by_time("2024-03-01", "2024-01-01")
    assert [side(t) for t in ("2023-12-31T23:59", "20240101", "2024-03-01T00:00+00:00")] == [
        "train",
        "validation",
        "test",
    ]
    assert by_time("2020", None)("2019") == "train"
    with pytest.raises(UsageError, match="a number, but --test-from is a date"):
        side("2024")
    with pytest.raises(UsageError, match="neither an integer nor a date"):
        side("last week")
    with pytest.raises(UsageError, match="--validation-from"):
        by_time("2024-01-01", "2024-03-01")
    with pytest.raises(UsageError, match=r"^--test-from: '08.01.2024' given: neither an integer"):
        by_time("08.01.2024", None)
    with pytest.raises(UsageError, match=r"^--validation-from: 'May' given: neither"):
        by_time("2024-01-01", "May")
    assert moment("1" * 19)[0] == "number"
    with pytest.raises(UsageError, match="neither"):
        moment("1" * 400)
    assert [by_site(["a"], ["b"])(s) for s in "abc"] == ["test", "validation", "train"]
    with pytest.raises(UsageError, match="--test-site: missing"):
        by_site([], [])
    with pytest.raises(UsageError, match="is a --test-site too"):
        by_site(["a"], ["a"])


@pytest.mark.parametrize("given", [{"test": 1.0}, {"test": -0.1}, {"test": 0.5, "validation": 0.5}])
def test_shares_leave_something_to_train_on(given: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="--test"):
        Shares(**given)  # type: ignore[arg-type]
