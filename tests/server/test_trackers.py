"""Trackers get the public figures of a run and nothing else, and no study depends on one."""

import json
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cloister.cli.main import run
from cloister.errors import BadFileError, NetworkError, UsageError
from cloister.server.public_figures import (
    EPSILON,
    FIGURES,
    PARAMETERS,
    SETS,
    public_figures,
    public_parameters,
)
from cloister.server.run_directory import RunDirectory
from cloister.server.trackers import track_run
from tests.support.studies import small_recipe

# A line as `metrics_row` writes it, with a secret in every field that is not told.
ROW: dict[str, Any] = {
    "round": 1,
    "test": {"accuracy": 0.5, "macro_f1": None},
    "validation": {"accuracy": 0.25},
    "site secret-1": {"accuracy": 0.125},
    "epsilon": {"secret-site": 2.0, "other-site": 3.0},
    "received": {"secret-site": ["secret", "hash"]},
    "bytes_up": 10,
    "bytes_down": 20,
    "seconds": 1234.5,
    "seconds_scoring": 1234.5,
    "missing": ["secret-site"],
    "retired": ["secret-site"],
    "refused": {"secret-site": "secret reason"},
    "update_norm": 1.5,
    "aggregation_error": 1234.5,
}


class Recorded:
    """A tracker that remembers everything that it is given."""

    def __init__(self, fails_at: int = -1) -> None:
        self.calls: list[Any] = []
        self.fails_at = fails_at

    def begin(self, name: str | None, study: str, parameters: Mapping[str, str]) -> str:
        self.calls.append((name, study, dict(parameters)))
        return name or "run-1"

    def log(self, round_number: int, figures: Mapping[str, float]) -> None:
        if round_number == self.fails_at:
            raise ConnectionError("gone\nwith a second line")
        self.calls.append((round_number, dict(figures)))

    def end(self) -> None:
        self.calls.append("end")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set for MLflow is taken back after each test."""
    for name in ("ALLOW_FILE_STORE", "DISABLE_TELEMETRY", "HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(f"MLFLOW_{name}", "1")


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """A run's folder with three rounds, whose recipe names a secret path and a secret label."""
    recipe = small_recipe(tmp_path / "secret-study", "tracking.tensorboard=false")
    made = RunDirectory.create(tmp_path / "run", recipe)
    for number in (1, 2, 3):
        made.append_metrics({**ROW, "round": number})
    return made


def test_the_list_of_public_figures_is_in_full() -> None:
    """Who adds to the list changes this test too, and says why it is public."""
    assert SETS == ("test", "validation", "old_test")
    assert FIGURES == ("bytes_up", "bytes_down", "update_norm")
    assert len(PARAMETERS) == 16
    assert public_figures(ROW) == {
        "test/accuracy": 0.5,
        "validation/accuracy": 0.25,
        "bytes_up": 10.0,
        "bytes_down": 20.0,
        "update_norm": 1.5,
        EPSILON: 3.0,
    }


def test_an_infinite_promise_and_what_is_no_number_are_left_out() -> None:
    row = {"round": 1, "epsilon": {"a": 1.0, "b": None}, "test": {"x": "0.5", "y": True}}
    assert public_figures(row) == {}
    assert public_figures({"round": 1, "epsilon": {}, "test": [1]}) == {}


def test_nothing_but_public_figures_reaches_a_tracker(directory: RunDirectory) -> None:
    tracker = Recorded()
    recipe = directory.recipe()
    told = track_run(directory, recipe, "x", tracker)
    assert (told.rounds, told.last) == (3, 3)
    assert tracker.calls[0] == (None, recipe.study.name, public_parameters(recipe))
    assert set(tracker.calls[0][2]) <= {*PARAMETERS, "recipe_sha256"}
    assert [call[0] for call in tracker.calls[1:-1]] == [1, 2, 3]
    everything = repr(tracker.calls)
    assert "secret" not in everything
    assert "1234.5" not in everything
    assert str(directory.path.parent) not in everything


def test_a_round_is_told_once_and_a_failed_tracker_is_gone_on_with(directory: RunDirectory) -> None:
    recipe = directory.recipe()
    with pytest.raises(NetworkError, match="the run is not affected") as caught:
        track_run(directory, recipe, "x", Recorded(fails_at=2))
    assert "second line" not in str(caught.value)
    tracker = Recorded()
    assert track_run(directory, recipe, "x", tracker).rounds == 2
    assert tracker.calls[0][0] == "run-1"
    assert [call[0] for call in tracker.calls[1:-1]] == [2, 3]
    assert track_run(directory, recipe, "x", Recorded()).rounds == 0
    assert track_run(directory, recipe, "another", Recorded()).rounds == 3


def test_a_damaged_note_of_what_was_told_is_said(directory: RunDirectory) -> None:
    (directory.path / "trackers.json").write_text("[")
    with pytest.raises(BadFileError, match="remove it, and all rounds are sent again"):
        track_run(directory, directory.recipe(), "x", Recorded())


def fake_mlflow(calls: list[Any]) -> types.ModuleType:
    """MLflow's interface as far as it is used; every call is written down."""
    module = types.ModuleType("mlflow")

    class MlflowClient:
        def __init__(self, tracking_uri: str) -> None:
            calls.append(("client", tracking_uri))

        def get_experiment_by_name(self, name: str) -> None:
            calls.append(("experiment", name))

        def create_experiment(self, name: str) -> str:
            return "7"

        def create_run(self, experiment: str, tags: dict[str, str], run_name: str) -> Any:
            calls.append(("run", experiment, tags, run_name))
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id="r"))

        def log_param(self, name: str, key: str, value: str) -> None:
            calls.append(("param", name, key, value))

        def log_metric(self, name: str, key: str, value: float, step: int) -> None:
            calls.append(("metric", name, key, value, step))

        def set_terminated(self, name: str) -> None:
            calls.append(("end", name))

    module.MlflowClient = MlflowClient  # type: ignore[attr-defined]
    return module


def fake_wandb(calls: list[Any]) -> types.ModuleType:
    """The same of wandb."""
    module = types.ModuleType("wandb")

    def init(**settings: Any) -> Any:
        calls.append(("init", settings))
        return types.SimpleNamespace(
            id="r",
            log=lambda figures, step: calls.append(("log", figures, step)),
            finish=lambda: calls.append(("finish",)),
        )

    module.Settings = dict  # type: ignore[attr-defined]
    module.init = init  # type: ignore[attr-defined]
    return module


def test_mlflow_gets_parameters_and_rounds_by_its_client(
    directory: RunDirectory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    calls: list[Any] = []
    monkeypatch.setitem(sys.modules, "mlflow", fake_mlflow(calls))
    arguments = ["track", str(directory.path), "--mlflow", str(tmp_path / "ml")]
    assert run([*arguments, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["runs"]
    assert (told["id"], told["rounds"]) == ("r", 3)
    assert calls[0] == ("client", (tmp_path / "ml").as_uri())
    assert calls[2] == ("run", "7", {}, directory.recipe().study.name)
    metrics = [call for call in calls if call[0] == "metric"]
    assert ("metric", "r", "test/accuracy", 0.5, 2) in metrics
    assert {call[2] for call in metrics} == set(public_figures(ROW))
    rest = [call for call in calls if call[0] in ("param", "run", "experiment")]
    assert "secret" not in repr(rest)


def test_wandb_is_offline_unless_asked_and_collects_nothing_by_itself(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[Any] = []
    monkeypatch.setitem(sys.modules, "wandb", fake_wandb(calls))
    arguments = ["track", str(directory.path), "--wandb", "p", "--folder", str(tmp_path)]
    assert run(arguments) == 0
    _, given = calls[0]
    assert given["mode"] == "offline"
    assert given["config"] == public_parameters(directory.recipe())
    on = {key for key, value in given["settings"].items() if value is True}
    assert on == {
        "disable_code",
        "disable_git",
        "disable_job_creation",
        "silent",
        "x_disable_machine_info",
        "x_disable_meta",
        "x_disable_stats",
    }
    assert [call[2] for call in calls if call[0] == "log"] == [1, 2, 3]
    assert run([*arguments, "--online"]) == 0
    assert [call[1]["mode"] for call in calls if call[0] == "init"] == ["offline", "online"]


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_said_with_what_to_do(
    directory: RunDirectory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert run(["track", str(directory.path), f"--{name}", "x"]) == UsageError.exit_code
    assert "pip install" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "give either"),
        (["--mlflow", "x", "--wandb", "y"], "give either"),
        (["--mlflow", "x", "--online"], "works with --wandb only"),
        (["--mlflow", "databricks://x"], "a folder, or an http or https address"),
    ],
)
def test_options_that_cannot_be_meant(
    directory: RunDirectory, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    assert run(["track", str(directory.path), *options]) == 2
    assert told in capsys.readouterr().err
    assert run(["track", str(directory.path.parent), "--wandb", "x"]) == 2
