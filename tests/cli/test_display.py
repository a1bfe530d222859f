"""The display estimates the time that is left."""

import dataclasses
from types import SimpleNamespace

import pytest

from cloister.cli.display import TWIN, Display, round_details, time_left
from cloister.cli.run_display import RunDisplay
from cloister.privacy.estimated_scores import SelectedRound, to_json
from cloister.privacy.noised_ratio import Estimate
from cloister.recipe import Recipe
from cloister.server.report import RoundReport
from cloister.simulation.twin import STAGE

REPORT = RoundReport(
    round=1,
    metrics={"test": {"accuracy": 0.5}},
    epsilon={"a": 8.0},
    received={},
    bytes_up=1000,
    bytes_down=2000,
    seconds=10.0,
    seconds_scoring=1.0,
    missing=(),
    retired=(),
    refused={},
    update_norm=0.5,
    aggregation_error=None,
)


def reports(*seconds: float) -> list[RoundReport]:
    return [
        dataclasses.replace(REPORT, round=number, seconds=one)
        for number, one in enumerate(seconds, 1)
    ]


@pytest.mark.parametrize(
    ("closed", "of", "left"),
    [
        ([], 30, ""),
        ([10.0], 3, "about 20 s left"),
        ([100.0, 10.0], 5, "about 30 s left"),  # the first round filled the caches
        ([1.0, 60.0, 60.0], 30, "about 27 min left"),
        ([1.0, 1.0, *[600.0] * 5], 27, "about 3.3 h left"),  # of the last five alone
        ([10.0, 10.0], 2, ""),
    ],
)
def test_the_time_left_follows_from_the_last_rounds(
    closed: list[float], of: int, left: str
) -> None:
    assert time_left(reports(*closed), of) == left


def test_a_row_says_how_long_the_rest_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(Recipe(), is_verbose=True) as display:
        display.on_stage("training")
        display.on_round(REPORT)
    told = capsys.readouterr().err
    assert "about 5 min left" in told  # 29 rounds of 10 s
    assert "update norm 0.5" in told
    assert "aggregation error –" in round_details(REPORT)


def test_the_run_without_privacy_gets_rows_and_times_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert TWIN == STAGE
    display = Display(Recipe())
    for report in reports(*[9.0] * 30):
        display.on_round(report)
    capsys.readouterr()
    display.on_stage(STAGE)
    display.on_round(dataclasses.replace(REPORT, seconds=1.0))
    assert "about 29 s left" in capsys.readouterr().err


def test_the_summary_shows_the_estimate_of_the_adapter_that_is_delivered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        {
            "round": number,
            "sites": ["east"],
            "scores": {"accuracy": to_json(Estimate(value, (0.1, 0.9), (0.0, 1.0)))},
            "classes": {},
        }
        for number, value in ((1, 0.75), (2, 0.25))
    ]
    result = SimpleNamespace(
        test={},
        metric="accuracy",
        task="sequence-classification",
        personal_test=None,
        plain_test=None,
        majority=None,
        untrained={},
        old_test=None,
        began=None,
        lexical={},
        private_evaluations=rows,
        selected=SelectedRound(round=1, metric="accuracy", compared=2),
        sites=[SimpleNamespace(promise=SimpleNamespace(epsilon=8.0))],
        bytes_per_update=1,
        seconds=1.0,
        run_dir="run",
    )
    for selected, shown in ((result.selected, "0.7500"), (None, "0.2500")):
        result.selected = selected
        Display(Recipe()).summary(result)  # type: ignore[arg-type]
        assert f"accuracy {shown}" in capsys.readouterr().err


def test_a_deployed_run_s_lines_begin_with_round_0(capsys: pytest.CaptureFixture[str]) -> None:
    scores = {"test": {"accuracy": 0.5}}
    with RunDisplay("triage", ["a"]) as display:
        display.add({"what": "untrained", "round": 0, "scores": scores})
        display.add({"what": "closed", "round": 1, "scores": scores, "seconds": 2.0, "bytes": 9})
        display.add({"what": "evaluated", "round": 1, "estimate": "accuracy 0.5 (…)"})
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "round   0  untrained  accuracy 0.5000",
        "round   1     2.0 s  9 bytes  accuracy 0.5000",
        "round   1  private evaluation: accuracy 0.5 (…)",
    ]
