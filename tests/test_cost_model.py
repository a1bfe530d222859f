"""The model of cost: its fit, its arithmetic, and that docs/scale.md says what it computes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cost_model import (
    ASSUMED_FLOPS,
    ASSUMED_PRICE,
    BASES,
    Base,
    Line,
    Study,
    _sites_in,
    amount,
    fitted,
    tables,
    walls,
)
from benchmarks.plots import IMAGE, drawn, panels
from benchmarks.recorded_rows import recorded, sources

ROOT = Path(__file__).parents[1]
SIZES = st.lists(st.integers(1, 10**6), min_size=2, max_size=6, unique=True)


@given(SIZES, st.floats(0.01, 1e3), st.floats(1e-3, 10))
def test_points_on_a_line_give_that_line(sizes: list[int], fixed: float, each: float) -> None:
    line = fitted([(x, fixed + each * x) for x in sizes])
    assert line.error < 1e-6
    for x in sizes:
        assert line(x) == pytest.approx(fixed + each * x, rel=1e-6)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(1e-3, 1e6)), min_size=1, max_size=6))
def test_no_part_of_a_cost_is_negative(points: list[tuple[float, float]]) -> None:
    line = fitted(points)
    assert line.fixed >= 0
    assert line.each >= 0
    assert line.error == pytest.approx(max(abs(line(x) - y) / y for x, y in points))


def test_a_falling_cost_is_fitted_as_constant_and_one_through_zero_has_no_fixed_part() -> None:
    falling = fitted([(1, 3.0), (2, 1.0)])
    assert falling.each == 0
    # Of relative errors: minimizes ((c - 3) / 3)² + (c - 1)², so c = (3 / 9 + 1) / (1 / 9 + 1).
    assert falling.fixed == pytest.approx(1.2)
    steep = fitted([(1, 1.0), (2, 4.0)])
    assert steep.fixed == 0
    # Minimizes (e - 1)² + ((2 e - 4) / 4)², so e = (1 + 2 · 4 / 16) / (1 + 4 / 16).
    assert steep.each == pytest.approx(1.2)


@pytest.mark.parametrize("points", [[], [(1.0, 0.0)], [(1.0, -1.0)]])
def test_nothing_and_costs_that_are_not_positive_are_refused(
    points: list[tuple[float, float]],
) -> None:
    with pytest.raises(ValueError, match="costs above 0"):
        fitted(points)


def test_adapters_have_the_sizes_that_peft_reports() -> None:
    seven, seventy = BASES
    # LoRA of rank 16 on all linear modules of Llama 2: 39,976,960 and 207,093,760 values.
    assert seven.adapter(16) == 39_976_960
    assert seventy.adapter(16) == 207_093_760
    # One layer of 2 units, MLP of 3, keys of 1: pairs of 4, 3, 3, 4, 5, 5, 5 values a rank.
    assert Base("tiny", 1, 1, 2, 3, 1).adapter(1) == 29


def test_amounts_are_in_units_that_people_use() -> None:
    assert amount(5.4e8, "B") == "540 MB"
    assert amount(12, "B") == "12 B"
    assert amount(90_000, "s") == "1.04 days"
    assert amount(0.25, "s") == "0.25 s"


def test_the_number_of_sites_in_a_time_leaves_room_for_what_does_not_grow() -> None:
    # 60,000 ms are 10,000 and 100 for each of 500 sites.
    assert _sites_in(60.0, Line(10_000.0, 100.0, 0.0, 1, 1)) == 500
    assert _sites_in(5.0, Line(10_000.0, 100.0, 0.0, 1, 1)) == 0


def test_a_study_twice_as_long_costs_twice_the_money_and_the_wall_is_named() -> None:
    found = recorded()
    short, long = (tables(Study(rounds=n), found, 2.0, 1e14)["7B"][1] for n in (10_000, 20_000))
    one, two = (
        float(row.cost.split(", ", 1)[1].split()[0].replace(",", "")) for row in (short, long)
    )
    assert two == pytest.approx(2 * one, rel=0.02)  # both are rounded to whole units
    refused = [row for row in walls(Study(), found) if "refused" in row.cost]
    assert [row.what.split(":")[0] for row in refused] == ["70B"]


def test_docs_scale_has_every_row_that_the_model_computes() -> None:
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    for title, rows in tables(Study(), recorded(), ASSUMED_PRICE, ASSUMED_FLOPS).items():
        assert f"## {title}\n" in text
        for row in rows:
            assert str(row) in text, f"python -m benchmarks.cost_model; {row}"


def test_every_kept_row_is_in_the_benchmarks_readme_with_its_command() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for name, command in sources():
        assert command.split(" --")[0] in text, name


def test_the_plot_of_the_docs_has_the_panels_of_the_kept_measurements() -> None:
    found = panels(recorded())
    text = drawn(found)
    assert drawn(found) == text  # the same measurements give the same file
    kept = IMAGE.read_text(encoding="utf-8")
    assert max(len(text), len(kept)) < 100_000
    for panel in found:
        for part in (panel.title, panel.x, panel.y, *filter(None, panel.curves)):
            assert f">{part}<" in text
            assert f">{part}<" in kept, "python -m benchmarks.plots"
