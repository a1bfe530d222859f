"""Sends a run's public figures to MLflow or Weights & Biases, which the user installs.

A separate process reads the run's files, so no study waits for a tracker or fails with it. Both
libraries collect facts about the machine (user, host, program, git, hardware). This is turned off,
so that they receive `public_figures` only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from cloister.canonical import canonical
from cloister.errors import BadFileError, NetworkError, UsageError
from cloister.files import bad_file, write_whole
from cloister.json_text import read_json
from cloister.recipe import Recipe
from cloister.server.public_figures import public_figures, public_parameters
from cloister.server.run_directory import RunDirectory

# The file in a run's folder that lists the rounds that each tracker received.
TOLD = "trackers.json"
MOST_TOLD = 2**20
EXPERIMENT = "cloister"


class Tracker(Protocol):
    """The connection to an experiment tracker for one run."""

    def begin(self, run: str | None, name: str, parameters: Mapping[str, str]) -> str:
        """Creates a run, or continues one; returns its id."""
        ...

    def log(self, round_number: int, figures: Mapping[str, float]) -> None:
        """Sends the figures of a round."""
        ...

    def end(self) -> None:
        """Ends the connection, after the last figures."""
        ...


@dataclass(frozen=True)
class Told:
    """The state of a run at a tracker.

    Attributes:
        run: The run's id at the tracker.
        rounds: Number of rounds that were sent now.
        last: The last round that was sent so far.
    """

    run: str
    rounds: int
    last: int


def track_run(run: RunDirectory, recipe: Recipe, place: str, tracker: Tracker) -> Told:
    """Sends the rounds of a run that a tracker does not have yet.

    Args:
        run: The run's folder; it need not be finished.
        recipe: Its recipe.
        place: Tracker and address, under which the sent rounds are noted.
        tracker: The tracker.

    Raises:
        BadFileError: The run's folder cannot be read or written.
        NetworkError: The tracker failed; the rounds that it has are not sent again.
    """
    told = _read_told(run.path / TOLD)
    known = told.get(place, {})
    last, rows = int(known.get("round", -1)), run.scored()
    new = [row for row in rows if int(row["round"]) > last]
    name: str | None = known.get("run")
    try:
        name = tracker.begin(name, recipe.study.name, public_parameters(recipe))
        for row in new:
            tracker.log(int(row["round"]), public_figures(row))
            last = int(row["round"])
        tracker.end()
    except Exception as error:  # a foreign library may raise any exception
        raise NetworkError(
            f"{place}: the tracker failed ({type(error).__name__}: {_first_line(error)}); the run "
            "is not affected: check the tracker, and run the same command again"
        ) from error
    finally:
        if name is not None:
            _write_told(run.path / TOLD, {**told, place: {"run": name, "round": last}})
    return Told(name, len(new), last)


def _write_told(path: Path, told: Mapping[str, Any]) -> None:
    try:
        write_whole(path, canonical(told))
    except OSError as error:
        raise bad_file(error, "written") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]


def _read_told(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = read_json(path.read_bytes(), most_bytes=MOST_TOLD)
        return {str(place): dict(value) for place, value in found.items()}
    except OSError as error:
        raise bad_file(error, "read") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise BadFileError(
            f"{path}: damaged ({error}); remove it, and all rounds are sent again"
        ) from error


def mlflow_tracker(address: str) -> Tracker:
    """Returns MLflow's tracker, for a folder on this machine or a server.

    Args:
        address: A folder, or an http or https address.

    Raises:
        UsageError: MLflow is not installed, or the address is neither.
    """
    is_server = address.startswith(("http://", "https://"))
    if "://" in address and not is_server:
        raise UsageError(f"--mlflow {address}: a folder, or an http or https address is needed")
    if not is_server:
        # MLflow 3 writes folders only with this setting; other stores need more than mlflow-skinny.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # MLflow tries eight times to reach a server that does not answer, which takes minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    mlflow = _imported("mlflow", "mlflow-skinny")
    where = address if is_server else Path(address).absolute().as_uri()
    return _MlflowTracker(mlflow.MlflowClient(tracking_uri=where))


class _MlflowTracker:
    """Uses MLflow's client and not `mlflow.start_run`, which adds user, program and git as tags."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._run = ""

    def begin(self, run: str | None, name: str, parameters: Mapping[str, str]) -> str:
        if run is not None:
            self._run = run
            return run
        found = self._client.get_experiment_by_name(EXPERIMENT)
        experiment = (
            self._client.create_experiment(EXPERIMENT) if found is None else found.experiment_id
        )
        self._run = self._client.create_run(experiment, tags={}, run_name=name).info.run_id
        for key, value in parameters.items():
            self._client.log_param(self._run, key, value)
        return self._run

    def log(self, round_number: int, figures: Mapping[str, float]) -> None:
        for key, value in figures.items():
            self._client.log_metric(self._run, key, value, step=round_number)

    def end(self) -> None:
        self._client.set_terminated(self._run)


def wandb_tracker(project: str, folder: Path, *, is_online: bool) -> Tracker:
    """Returns the tracker of Weights & Biases, with offline files in a folder or with its service.

    Args:
        project: The project's name.
        folder: The folder of wandb's files.
        is_online: Whether they are sent at once; otherwise `wandb sync` sends them.

    Raises:
        UsageError: wandb is not installed.
    """
    return _WandbTracker(_imported("wandb", "wandb"), project, folder, is_online)


class _WandbTracker:
    """Turns off what wandb collects by itself: git, code, console, hardware, host and user."""

    def __init__(self, wandb: Any, project: str, folder: Path, is_online: bool) -> None:
        self._wandb, self._project, self._folder = wandb, project, folder
        self._mode = "online" if is_online else "offline"
        self._run: Any = None

    def begin(self, run: str | None, name: str, parameters: Mapping[str, str]) -> str:
        settings = self._wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            host="",
            save_code=False,
            silent=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        self._run = self._wandb.init(
            project=self._project,
            dir=str(self._folder),
            id=run,
            resume=None if run is None else "allow",
            name=name,
            config=dict(parameters),
            mode=self._mode,
            settings=settings,
        )
        return str(self._run.id)

    def log(self, round_number: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=round_number)

    def end(self) -> None:
        self._run.finish()


def _imported(module: str, package: str, load: Callable[[str], Any] = import_module) -> Any:
    """Imports a tracker's library.

    Raises:
        UsageError: It is not installed.
    """
    try:
        return load(module)
    except ImportError as error:
        raise UsageError(
            f"--{module}: {package} is not installed ({error}); pip install {package}, or compare "
            "runs without it: cloister compare"
        ) from error
