"""A run's folder: whole files, and checkpoints that are sound or refused."""

from pathlib import Path

import numpy as np
import pytest

from cloister.adapter.tensors import Adapter
from cloister.errors import BadFileError, UsageError
from cloister.ledger.chain import Head
from cloister.recipe import Recipe
from cloister.server.early_stopping import is_best, should_stop
from cloister.server.run_directory import RunDirectory
from cloister.strategies.strategy import ServerState

START = ServerState(Adapter({"w": np.zeros(2)}))
LATER = ServerState(Adapter({"w": np.ones(2)}), 3)


def test_the_last_state_saved_is_the_one_loaded(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", Recipe())
    assert run.load(START, "d") is START
    run.save(ServerState(LATER.adapter.scale(5.0), 2), "d")
    run.save(LATER, "d", {"a": Head(3, "ab")})
    loaded = run.load(START, "d")
    assert loaded.round == 3
    assert (loaded.adapter - LATER.adapter).norm() == 0.0
    assert run.heads() == {"a": Head(3, "ab")}
    assert len(list((run.path / "checkpoint").iterdir())) == 2


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", Recipe())
    run.save(LATER, "d")
    with pytest.raises(UsageError, match="another recipe"):
        run.load(START, "e")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", Recipe())
    run.save(LATER, "d")
    (run.path / "checkpoint" / "latest.json").write_text("{")
    with pytest.raises(BadFileError, match="cannot be read"):
        run.load(START, "d")


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"\xff",
        b"{}",
        b'{"ledgers": []}',
        b'{"ledgers": {"a": 3}}',
        b'{"ledgers": {"a": {"seq": 3}}}',
        b'{"ledgers": {"a": {"seq": "3", "hash": "ab"}}}',
        b'{"ledgers": {"a": {"seq": true, "hash": "ab"}}}',
        b'{"ledgers": {"a": {"seq": 3, "hash": null}}}',
        b"[" * 100_000,
    ],
)
def test_damaged_heads_of_ledgers_are_refused(tmp_path: Path, content: bytes) -> None:
    run = RunDirectory.create(tmp_path / "run", Recipe())
    run.save(LATER, "d", {"a": Head(3, "ab")})
    (run.path / "checkpoint" / "latest.json").write_bytes(content)
    with pytest.raises(BadFileError, match="cannot be read"):
        run.heads()


def test_a_line_that_was_cut_off_does_not_hide_the_others(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", Recipe())
    run.append_metrics({"round": 1})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 2')
    assert run.metrics() == [{"round": 1}]
    run.append_metrics({"round": 2})
    assert run.metrics() == [{"round": 1}, {"round": 2}]


@pytest.mark.parametrize(
    ("scores", "metric", "best", "stop"),
    [
        ([0.5], "accuracy", True, False),
        ([0.5, 0.6], "accuracy", True, False),
        ([0.6, 0.5, 0.6], "accuracy", False, True),
        ([0.6, 0.5, 0.7], "accuracy", True, False),
        ([3.0, 2.0], "perplexity", True, False),
        ([2.0, 3.0, 2.5], "perplexity", False, True),
    ],
)
def test_early_stopping_waits_two_scores(
    scores: list[float], metric: str, best: bool, stop: bool
) -> None:
    assert is_best(scores, metric) is best
    assert should_stop(scores, metric, 2) is stop
