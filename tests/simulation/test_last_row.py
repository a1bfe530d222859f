"""A crash between a round's saved state and its line in `metrics.jsonl` loses neither."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import Events, simulate
from tests.support.studies import small_recipe, write_notes

TIMES = ("seconds", "seconds_scoring")


def rows(run: RunDirectory) -> list[dict[str, Any]]:
    """A run's lines, without times and without the hashes of ledgers, whose keys differ."""
    return [
        {key: row[key] for key in row if key not in TIMES}
        | {"received": {site: sent for site, (sent, _) in row["received"].items()}}
        for row in run.metrics()
    ]


def test_a_round_whose_line_a_crash_cut_off_gets_it_when_the_run_goes_on(
    tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without privacy, so that both runs send the same; with a score that may stop the study."""
    write_notes(tmp_path / "validation.jsonl", 20, seed=2)
    recipe = small_recipe(
        tmp_path / "study",
        "privacy.enabled=false",
        f"data.validation='{tmp_path / 'validation.jsonl'}'",
        "federation.num_rounds=3",
        "federation.patience=3",
        base=bert,
    )
    whole = RunDirectory.create(tmp_path / "whole", recipe)
    simulate(recipe, whole)
    cut = RunDirectory.create(tmp_path / "cut", recipe)
    add = RunDirectory.append_metrics

    def crash(run: RunDirectory, row: Mapping[str, Any]) -> None:
        if row["round"] == 2:
            raise KeyboardInterrupt
        add(run, row)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "append_metrics", crash)
        with pytest.raises(KeyboardInterrupt):
            simulate(recipe, cut)
    assert [row["round"] for row in rows(cut)] == [1]
    assert cut.last().round == 2
    told: list[str] = []
    simulate(recipe, cut, events=Events(on_stage=told.append))
    assert rows(cut) == rows(whole)
    assert "validation" in rows(cut)[1]
    assert "round 2 was closed before a crash; its line is written now" in told
    again: list[str] = []
    simulate(recipe, cut, events=Events(on_stage=again.append))
    assert rows(cut) == rows(whole)
    assert not any("before a crash" in text for text in again)
