"""Reports and dashboard draw ε over rounds from the same numbers, words and colours."""

import math
import re
from pathlib import Path

import pytest

import cloister.dashboard
from cloister.dashboard import spending
from cloister.dashboard.ledgers import read_ledger
from cloister.evidence.report_plots import spending_plot
from cloister.evidence.spending_series import (
    CAP,
    COLOURS,
    SECOND,
    SpendingSeries,
    cap_words,
    caps,
)
from cloister.ledger.budget import Budget
from tests.support.ledgers import new_ledger, run_round

STYLE = Path(cloister.dashboard.__file__).parent / "assets" / "style.css"


def one(**changed: object) -> SpendingSeries:
    usual = {"name": "ward", "charged": 2, "pld": ((1, 1.0), (2, 1.5)), "rdp": (), "ahead": ()}
    return SpendingSeries(**({**usual, "cap": 4.0} | changed))  # type: ignore[arg-type]


def test_colours_are_those_of_the_dashboard_s_light_page() -> None:
    light = dict(re.findall(r"--(\w+): (#\w+)", STYLE.read_text().split("}")[0]))
    assert tuple(light[name] for name in ("blue", "amber", "violet", "green")) == COLOURS
    assert (light["red"], light["soft"]) == (CAP, SECOND)


def test_a_cap_that_would_flatten_the_curve_is_written_and_not_drawn() -> None:
    near, far, none = one(), one(cap=90.0), one(cap=math.inf)
    assert caps([near, far, none, near], 1.5) == ([4.0], "cap 90.00, far above")
    assert caps([none], 1.5) == ([], "")
    assert cap_words(3.0001) == "cap 3.01"  # never less than what holds


def test_what_is_ahead_and_the_second_accountant_count_where_they_are_drawn() -> None:
    series = one(ahead=((2, 1.5), (5, 3.0)), rdp=((1, 7.0),))
    assert (series.last, series.highest(), series.highest(rdp=True)) == (5, 3.0, 7.0)
    assert one(pld=()).highest() == 0.0


@pytest.mark.parametrize("epsilon", [5.0, 40.0])
def test_report_and_dashboard_show_one_ledger_alike(tmp_path: Path, epsilon: float) -> None:
    ledger = new_ledger(tmp_path / "ward.ledger", Budget(epsilon=epsilon, delta=2e-5))
    for number in (1, 2, 3):
        run_round(ledger, number)
    facts = read_ledger(tmp_path / "ward.ledger", "ward")
    series = spending.series(facts)
    svg = str(spending.curve(facts))
    (axes,) = spending_plot([series]).axes
    stairs = axes.get_lines()[0]
    assert list(stairs.get_xdata()) == [0, *(number for number, _ in series.pld)]
    assert list(stairs.get_ydata()) == [0.0, *(value for _, value in series.pld)]
    assert svg.count("<circle") == len(series.pld)
    drawn, far = caps([series], series.highest())
    words = [*map(cap_words, drawn), *([far] if far else [])]
    assert words
    texts = {text.get_text() for text in axes.texts}
    for said in words:
        assert said in texts
        assert said in svg


def test_a_name_is_drawn_letter_by_letter(tmp_path: Path) -> None:
    figure = spending_plot([one(name="a$^$b"), one(name="$$")])
    figure.savefig(tmp_path / "spent.png")  # mathematics of nothing would end here


@pytest.mark.parametrize("series", [[], [one(pld=())]])
def test_a_picture_of_nothing_says_so(series: list[SpendingSeries]) -> None:
    assert "no finite ε" in {text.get_text() for text in spending_plot(series).axes[0].texts}
