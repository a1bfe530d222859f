"""One study on all three engines gives one adapter."""

import gc
import importlib
import json
import os
import subprocess
import sys
import time
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from flwr.app import Context, RecordDict, UserConfig

from cloister.adapter.tensors import Adapter
from cloister.cli.main import run as cloister
from cloister.errors import CloisterError
from cloister.ledger.ledger import Ledger
from cloister.recipe import parse_recipe
from cloister.server.report import RoundReport
from cloister.server.run_directory import RunDirectory
from cloister.simulation import ray_plan
from cloister.simulation.engines import Engine
from cloister.simulation.far_files import FarAnswer, FarCall, KeptHere
from cloister.simulation.local_grid import SERVER_NODE, LocalGrid
from cloister.simulation.ray_start import ray_places
from cloister.simulation.run import Events, simulate
from cloister.simulation.study import prepare, workspace_of
from cloister.strategies.strategy import ServerState
from tests.support.ports import free_port
from tests.support.processes import family
from tests.support.studies import small_assignments, write_notes

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


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray of two nodes on this machine, each with one CPU, and work for both.

    The run's process is on the first. It writes the ledgers of the second's sites, as it would if
    that were another machine.
    """
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setattr(ray_plan, "PAYS", 1.0)
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    found.add_node(num_cpus=1)
    found.wait_for_nodes()
    yield found
    ray.shutdown()
    found.shutdown()
    with warnings.catch_warnings():  # Ray leaves /dev/null open; the next test would be blamed
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def fail(cluster: Any, node: Any) -> None:
    """Ends a node as a power cut does: with all of its processes at once."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in (*raylet.children(recursive=True), raylet):
        process.kill()
    cluster.remove_node(node, allow_graceful=False)


@pytest.mark.nightly  # two nodes of Ray, and a process on each that loads torch
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray's open files
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_two_nodes_give_the_local_engine_s_adapter_and_one_may_be_killed(
    assignments: list[str],
    local: Adapter,
    tmp_path: Path,
    cluster: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second node is killed after its site's charge of round 2 is on disk."""
    recipe = parse_recipe("", assignments)
    real, charged = KeptHere.answer, []

    def answer(kept: KeptHere, call: FarCall) -> FarAnswer:
        found = real(kept, call)
        charged.extend([call.site] if call.method == "reserve" else [])
        if len(charged) == 2 and len(cluster.list_all_nodes()) == 2:
            fail(cluster, cluster.list_all_nodes()[1])
        return found

    place, told = RunDirectory.create(tmp_path / "run", recipe), []
    with pytest.MonkeyPatch.context() as patch, ray_places(cluster.address) as nodes:
        patch.setattr(KeptHere, "answer", answer)
        with pytest.raises(CloisterError, match=r"the process on .* .Ray. ended before its sites"):
            simulate(recipe, place, "ray", Events(on_base=told.append), ray=nodes)
    assert "workers: 2 processes on 2 nodes of Ray, 1 thread each" in told
    assert len(place.metrics()) == 1
    (site,) = set(charged)
    ledger, digest = Ledger(place.ledger(site)), prepare(recipe).recipe.digest()
    assert ledger.has_charged(digest, 2)
    assert ledger.release_of(digest, 2) is None

    cluster.wait_for_nodes(timeout=120)  # until Ray has noticed that one is gone
    with ray_places(cluster.address) as nodes:  # on the node that is left
        simulate(recipe, place, "ray", ray=nodes)
    assert len(place.metrics()) == 2
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    assert difference(local, run(assignments, "ray", tmp_path / "again")) == 0.0


@pytest.mark.nightly  # Ray's own processes take half a minute
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_thousand_sites_on_two_nodes(tmp_path: Path, cluster: Any) -> None:
    folder = tmp_path / "many"
    given = small_assignments(folder)
    write_notes(folder / "many.jsonl", 2000)
    recipe = parse_recipe(
        "",
        [
            *given,
            "privacy.enabled=false",
            "data.sites=1000",
            "data.partition=iid",
            f"data.train='{folder / 'many.jsonl'}'",
            "training.local_steps=1",
            "training.expected_batch_size=2",
            "federation.num_rounds=1",
        ],
    )
    reports: list[RoundReport] = []
    with ray_places(cluster.address) as nodes:
        place = RunDirectory.create(tmp_path / "run", recipe)
        simulate(recipe, place, "ray", Events(on_round=reports.append), ray=nodes)
    assert len(reports[0].received) == 1000
    assert reports[0].missing == ()


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("cores", ["1", "2"])
def test_ray_gives_the_local_engine_s_adapter(
    cores: str,
    assignments: list[str],
    local: Adapter,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With one core the sites run in a thread of the node's process, with two in its forks."""
    monkeypatch.setattr(ray_plan, "PAYS", 1.0)
    monkeypatch.setenv("OMP_NUM_THREADS", cores)
    sets = [argument for a in assignments for argument in ("--set", a)]
    words = ["simulate", *sets, "--engine", "ray", "--no-twin", "--json"]
    assert cloister([*words, "--out", str(tmp_path / "run")]) == 0
    assert json.loads(capsys.readouterr().out)["rounds"] == 2
    assert difference(local, final(assignments, tmp_path / "run")) == 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


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
