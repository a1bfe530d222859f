"""One study on all three engines gives one adapter."""

import gc
import importlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flwr.simulation
import pytest
from flwr.app import Context, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from cloister.adapter.tensors import Adapter
from cloister.cli.main import run as cloister
from cloister.errors import CloisterError, UsageError
from cloister.recipe import parse_recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.engines import Engine, run_ray
from cloister.simulation.local_grid import SERVER_NODE, LocalGrid
from cloister.simulation.run import Events, simulate
from cloister.simulation.study import prepare, workspace_of
from cloister.strategies.strategy import ServerState
from tests.support.ports import free_port
from tests.support.processes import family
from tests.support.studies import small_assignments

ROOT = Path(__file__).parents[2]


def final(assignments: list[str], out: Path) -> Adapter:
    recipe = parse_recipe("", assignments)
    study = prepare(recipe)
    start = ServerState(workspace_of(study).start)
    state = RunDirectory(out).load(start, study.recipe.digest())
    assert state.round == 2
    return state.adapter


def difference(one: Adapter, other: Adapter) -> float:
    return max(float(abs(array).max()) for array in (one - other).values())


@pytest.fixture(scope="module")
def assignments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("study")
    return [*small_assignments(folder), "privacy.enabled=false", "training.learning_rate=0.5"]


def run(assignments: list[str], engine: Engine, out: Path) -> Adapter:
    recipe = parse_recipe("", assignments)
    simulate(recipe, RunDirectory.create(out, recipe), engine)
    return final(assignments, out)


@pytest.fixture(scope="module")
def local(assignments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    out = tmp_path_factory.mktemp("local") / "run"
    adapter = run(assignments, "local", out)
    start = workspace_of(prepare(parse_recipe("", assignments))).start
    assert difference(adapter, start) > 0.01
    return adapter


def simulated(assignments: list[str], out: Path) -> int:
    """What `cloister simulate --engine ray` gives, run here, where torch is loaded."""
    sets = [argument for a in assignments for argument in ("--set", a)]
    words = ["simulate", *sets, "--engine", "ray", "--no-twin", "--json", "--out", str(out)]
    return cloister(words)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Flower's simulation runtime without Ray's processes; what each run asked of it.

    As there, the ServerApp has a thread and its error becomes another, and the ClientApp gets to
    each message as Ray's bytes.
    """
    from ray import cloudpickle

    asked: list[dict[str, Any]] = []

    def run_simulation(
        *,
        server_app: ServerApp,
        client_app: ClientApp,
        num_supernodes: int,
        backend_config: dict[str, Any],
    ) -> None:
        asked.append(backend_config)
        pickled = cloudpickle.dumps(client_app)
        errors: list[BaseException] = []

        def answered(message: Message, context: Context) -> Message:
            reply: Message = cloudpickle.loads(pickled)(message, context)
            return reply

        def serve() -> None:
            try:
                grid = LocalGrid(answered, num_supernodes)  # type: ignore[arg-type]
                server_app(grid=grid, context=context)
            except BaseException as error:
                errors.append(error)

        context = Context(SERVER_NODE, SERVER_NODE, {}, RecordDict(), {})
        thread = threading.Thread(target=serve)
        thread.start()
        thread.join()
        if errors:
            raise RuntimeError("Exception in ServerApp thread")

    monkeypatch.setattr(flwr.simulation, "run_simulation", run_simulation)
    return asked


def test_what_ray_s_workers_get_gives_the_local_engine_s_adapter(
    assignments: list[str],
    local: Adapter,
    tmp_path: Path,
    here: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert simulated(assignments, tmp_path / "run") == 0
    assert json.loads(capsys.readouterr().out)["rounds"] == 2
    assert difference(local, final(assignments, tmp_path / "run")) < 1e-6
    (asked,) = here
    assert asked["client_resources"]["num_cpus"] == 1
    assert asked["init_args"]["include_dashboard"] is False


def test_what_ends_a_study_on_ray_is_said_in_its_own_words(
    here: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, error = ServerApp(), CloisterError("0 of 2 sites take part")

    @app.main()
    def ends(grid: Grid, context: Context) -> None:
        raise error

    with pytest.raises(CloisterError) as raised:
        run_ray(app, ClientApp(), 2)
    assert raised.value is error

    def broken(**_: object) -> None:
        raise RuntimeError("no worker came up")

    monkeypatch.setattr(flwr.simulation, "run_simulation", broken)
    with pytest.raises(CloisterError, match=r"runtime failed: no worker came up"):
        run_ray(app, ClientApp(), 2)
    assert len(here) == 1


def test_a_ray_with_nodes_elsewhere_is_refused_before_any_work(
    here: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site there would find neither its records nor its ledger."""
    import ray

    nodes = [{"NodeManagerHostname": socket.gethostname(), "Alive": True}]
    joined: list[str] = []
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda address, **_: joined.append(address))
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "shutdown", lambda: joined.append("left"))
    app = ServerApp()
    app.main()(lambda grid, context: None)
    gone = {"NodeManagerHostname": "gone", "Alive": False}
    nodes.append(gone)
    run_ray(app, ClientApp(), 2)
    assert joined == ["10.0.0.1:6379"]
    nodes.append({"NodeManagerHostname": "other", "Alive": True})
    with pytest.raises(UsageError, match=r"nodes on other machines .other.; sites write"):
        run_ray(app, ClientApp(), 2)
    assert joined[1:] == ["10.0.0.1:6379", "left"]
    assert len(here) == 1

    def silent(*_: object, **__: object) -> None:
        raise ConnectionError("timed out")

    monkeypatch.setattr(ray, "init", silent)
    with pytest.raises(UsageError, match=r"no Ray can be used there .timed out."):
        run_ray(app, ClientApp(), 2)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray of two nodes on this machine, each with one worker."""
    import ray
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    found.add_node(num_cpus=1)
    found.wait_for_nodes()
    monkeypatch.setenv("RAY_ADDRESS", found.address)
    yield found
    ray.shutdown()
    found.shutdown()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.nightly  # two nodes of Ray, and a worker on each that loads torch
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray's open files
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_two_nodes_give_the_local_engine_s_adapter_and_one_may_be_killed(
    assignments: list[str], local: Adapter, tmp_path: Path, cluster: Any
) -> None:
    recipe = parse_recipe("", assignments)

    def killed(report: object) -> None:
        cluster.remove_node(cluster.list_all_nodes()[1], allow_graceful=False)

    place = RunDirectory.create(tmp_path / "run", recipe)
    with pytest.raises(CloisterError):
        simulate(recipe, place, "ray", Events(on_round=killed))
    assert len(place.metrics()) == 1
    simulate(recipe, place)  # the closed round was saved, and what was charged is skipped
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    assert difference(local, run(assignments, "ray", tmp_path / "again")) < 1e-6


@pytest.fixture
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """So many workers of Ray's, each of which loads torch."""
    real = flwr.simulation.run_simulation

    def simulation(backend_config: dict[str, Any], **named: Any) -> None:
        backend_config["init_args"]["num_cpus"] = request.param
        real(backend_config=backend_config, **named)

    monkeypatch.setattr(flwr.simulation, "run_simulation", simulation)
    yield
    with warnings.catch_warnings():  # Ray leaves /dev/null open; the next test would be blamed
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.nightly  # Ray's own processes take half a minute
@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("workers", [1, 2], indirect=True)
def test_ray_gives_the_local_engine_s_adapter(
    assignments: list[str], local: Adapter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulated(assignments, tmp_path / "run") == 0
    assert json.loads(capsys.readouterr().out)["rounds"] == 2
    assert difference(local, final(assignments, tmp_path / "run")) < 1e-6


@dataclass
class ConfiguredGrid(LocalGrid):
    """Sites in this process that know the run's configuration, as Flower tells it to its own."""

    config: UserConfig = field(default_factory=dict)

    def _context(self, node: int) -> Context:
        context = super()._context(node)
        context.run_config = self.config
        return context


def test_the_apps_that_flwr_run_starts_give_the_local_engine_s_adapter(
    assignments: list[str], local: Adapter, tmp_path: Path
) -> None:
    """As the project names them, without Flower's processes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = project["tool"]["flwr"]["app"]["components"]
    server, client = (
        getattr(importlib.import_module(module), name)
        for module, name in (named[app].split(":") for app in ("serverapp", "clientapp"))
    )
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(parse_recipe("", assignments).to_toml())
    config: UserConfig = {"recipe": str(recipe), "out": str(tmp_path / "runs")}
    context = Context(SERVER_NODE, SERVER_NODE, {}, RecordDict(), config)
    server(grid=ConfiguredGrid(client, 2, config=config), context=context)
    (run,) = (tmp_path / "runs").glob("flower-*")
    assert difference(local, final(assignments, run)) < 1e-6


@pytest.mark.nightly
def test_flwr_run_gives_the_local_engine_s_adapter(
    assignments: list[str], local: Adapter, tmp_path: Path
) -> None:
    ports = {
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),
        "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
    }
    environment = (
        os.environ
        | ports
        | {
            "FLWR_HOME": str(tmp_path / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
    )
    neutral = tmp_path / "neutral"  # the SuperLink's folder goes before the app's on sys.path
    neutral.mkdir()
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(parse_recipe("", assignments).to_toml())
    config = f'recipe="{recipe}" out="{tmp_path / "runs"}"'
    flwr = str(Path(sys.executable).parent / "flwr")

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [flwr, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=neutral,
            env=environment,
        )

    # Flower detaches the SuperLink that it starts, so that nobody holds its number.
    with family() as ours:
        environment |= ours
        started = call(
            "run",
            str(ROOT),
            "--stream",
            "-c",
            config,
            "--federation-config",
            "num-supernodes=2 client-resources-num-cpus=1",
        )
        runs = list((tmp_path / "runs").glob("flower-*"))
        assert len(runs) == 1, started.stdout + started.stderr
        assert difference(local, final(assignments, runs[0])) < 1e-6
        # `flwr run` exits 0 even when the run failed; its status is asked for.
        deadline = time.monotonic() + 600
        status = ""
        while "finished:completed" not in status and time.monotonic() < deadline:
            status = call("ls", "--format", "json").stdout
        assert "finished:completed" in status, status + started.stdout
