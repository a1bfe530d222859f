"""Sites on the nodes of a Ray: the bits of one process, one writer a ledger, and every sudden end.

Ray's own processes are left out here (`support.ray_here`); `e2e/test_engines.py` has them.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray.exceptions import RayActorError

from cloister.adapter.tensors import Adapter
from cloister.cli import simulate as simulate_command
from cloister.cli.main import run as cloister
from cloister.client import round as site_round
from cloister.errors import CloisterError, LedgerError, UsageError
from cloister.ledger.ledger import Ledger
from cloister.ledger.storage import LedgerFile
from cloister.recipe import Recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation import ray_nodes, ray_plan, ray_start
from cloister.simulation.far_files import FarCall, FarFiles, KeptHere
from cloister.simulation.open_ledgers import OpenLedgers
from cloister.simulation.ray_nodes import RayNode, check_installed, check_reached, places_of
from cloister.simulation.ray_plan import plan_ray
from cloister.simulation.ray_start import cores, ray_places
from cloister.simulation.run import Events, simulate
from cloister.simulation.sent_workspace import SentWorkspace
from cloister.simulation.study import prepare, workspace_of
from cloister.strategies.strategy import ServerState
from tests.support.entropy import repeat_rounds
from tests.support.ray_here import Handle, RayHere, sent
from tests.support.studies import small_assignments, small_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(autouse=True)
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    repeat_rounds(monkeypatch)
    monkeypatch.setattr(ray_plan, "PAYS", 1.0)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[RayHere]:
    """The run's node, which forks two workers, and another node with one."""
    threads = torch.get_num_threads()
    found = RayHere(monkeypatch, 2, 1)
    yield found
    found.close()
    torch.set_num_threads(threads)


def of(folder: Path, *assignments: str) -> Recipe:
    return small_recipe(folder, "data.sites=3", "data.partition=iid", *assignments)


def final(recipe: Recipe, out: Path) -> Adapter:
    study = prepare(recipe)
    state = RunDirectory(out).load(ServerState(workspace_of(study).whole), study.recipe.digest())
    assert state.round == recipe.federation.num_rounds
    return state.adapter


def run(recipe: Recipe, out: Path, on: RayHere | None, **events: Callable[..., None]) -> Adapter:
    place = RunDirectory.reopen(out) if out.exists() else RunDirectory.create(out, recipe)
    found = Events(**events)
    if on is None:
        simulate(recipe, place, "local", found, 1)
    else:
        simulate(recipe, place, "ray", found, ray=on.places)
    return final(recipe, out)


def same(one: Adapter, other: Adapter) -> bool:
    return one.keys() == other.keys() and all(
        one[name].tobytes() == other[name].tobytes() for name in one
    )


def test_nodes_give_the_bits_of_one_process_and_each_ledger_has_one_writer(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: RayHere
) -> None:
    """The optimizer's memory of the site on the other node is kept by the run's process too."""
    recipe = of(folder, "training.optimizer=adamw")
    alone = run(recipe, tmp_path / "alone", None)
    writers = tmp_path / "writers"
    real = LedgerFile.writing

    def writing(file: LedgerFile):  # type: ignore[no-untyped-def]
        with writers.open("a") as log:
            log.write(f"{file.path.name} {os.getpid()}\n")
        return real(file)

    monkeypatch.setattr(LedgerFile, "writing", writing)
    told: list[str] = []
    assert same(alone, run(recipe, tmp_path / "ray", here, on_base=told.append))
    assert "workers: 3 processes on 2 nodes of Ray, 1 thread each" in told
    pairs = {tuple(line.split()) for line in writers.read_text().splitlines()}
    assert len({name for name, _ in pairs}) == len(pairs) == 3
    here_too = str(os.getpid())
    assert sum(pid == here_too for _, pid in pairs) == 1  # for the site of the other node
    assert len({pid for _, pid in pairs}) == 3
    assert here.killed == []


@pytest.mark.nightly  # its proof takes seconds; the local engine's test of the same is quicker
def test_shared_noise_keeps_its_keys_where_the_site_is(
    folder: Path, tmp_path: Path, here: RayHere
) -> None:
    recipe = of(
        folder,
        "privacy.noise=shared",
        "training.mode=gradient-rounds",
        "training.local_steps=1",
        "federation.num_rounds=1",
    )
    assert same(run(recipe, tmp_path / "one", None), run(recipe, tmp_path / "ray", here))


def test_a_node_that_fails_in_mid_round_ends_the_run_its_charge_stands_and_it_can_be_resumed(
    folder: Path, tmp_path: Path, here: RayHere
) -> None:
    """The other node's process dies after the charge of round 2 was written, and before it drew."""
    recipe, other = of(folder), here.handles[1]
    real, charges = KeptHere.answer, []

    class Failing(Handle):
        def turn(self, told: list[Any]) -> list[Any]:
            if len(charges) == 2:
                raise RayActorError
            found: list[Any] = self.actor.turn(told)  # type: ignore[attr-defined]
            return found

    def answer(kept: KeptHere, call: FarCall) -> Any:
        found = real(kept, call)
        charges.extend([call.site] if call.method == "reserve" else [])
        return found

    failing = Failing(other.actor)
    place = Handle(failing)
    failing.open, failing.close = other.actor.open, other.actor.close  # type: ignore[attr-defined]
    here.places = ray_nodes.RayPlaces("cpu", here.places.places, (here.handles[0], place))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeptHere, "answer", answer)
        with pytest.raises(CloisterError, match=r"the process on host1 .Ray. ended before") as told:
            run(recipe, tmp_path / "run", here)
    assert "--resume --engine ray" in str(told.value)
    kept = RunDirectory.reopen(tmp_path / "run")
    assert len(kept.metrics()) == 1
    (site,) = set(charges)
    digest, plan = prepare(recipe).recipe.digest(), prepare(recipe).plans[site]
    ledger = Ledger(kept.ledger(site))
    assert ledger.has_charged(digest, 2)
    assert ledger.release_of(digest, 2) is None
    run(recipe, tmp_path / "run", None)  # what was charged is skipped
    ledger.refresh()
    assert ledger.steps == 2 * plan.local_steps


def test_a_site_s_own_error_ends_the_run_on_each_node(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: RayHere
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug of the user's task")

    def full(*_: object) -> None:
        raise LedgerError("east.ledger: cannot be written (No space left on device)")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site_round, "local_update", broken)
        with pytest.raises(ZeroDivisionError, match="a bug of the user's task"):
            run(of(folder), tmp_path / "one", here)
    monkeypatch.setattr(Ledger, "reserve", full)
    with pytest.raises(LedgerError, match="No space left on device"):
        run(of(folder), tmp_path / "two", here)


def test_correlated_noise_is_refused_on_other_nodes_before_anything_is_charged(
    folder: Path, tmp_path: Path, here: RayHere
) -> None:
    recipe = of(
        folder,
        "privacy.noise_bands=3",
        "training.local_steps=1",
        "federation.num_rounds=6",
    )
    with pytest.raises(UsageError, match=r"privacy.noise_bands: 3 given.* other nodes .host1."):
        run(recipe, tmp_path / "run", here)
    assert not (tmp_path / "run" / "ledgers").exists()


def test_a_workspace_is_sent_with_its_base_once_and_nothing_of_a_record(folder: Path) -> None:
    study = prepare(of(folder, "lora.top_layers=1", "machine.frozen_cache_gib=1"))
    whole = workspace_of(study)
    assert whole.network.prefix is not None
    record = ((1, 2), (0, 0))
    whole.network.prefix.kept.add(record, torch.ones(2, 3), 1e9)
    packed = SentWorkspace.of(whole)
    before = dict(whole.network.named_parameters())
    frozen = [tensor for tensor in packed.tensors if tensor.is_frozen]
    one, two = (SentWorkspace(sent(packed.objects), packed.tensors).opened("cpu") for _ in "12")
    assert one.network.prefix is not None
    assert one.network.prefix.kept.get(record) is None
    assert whole.network.prefix.kept.get(record) is not None
    for name, parameter in one.network.named_parameters():
        other = dict(two.network.named_parameters())[name]
        assert torch.equal(parameter, before[name])
        assert parameter.requires_grad == before[name].requires_grad
        assert (parameter.data_ptr() == other.data_ptr()) == any(
            parameter.data_ptr() == tensor.content.ctypes.data for tensor in frozen
        )
        assert name not in one.start or parameter.data_ptr() != other.data_ptr()


def test_the_base_s_arrays_may_be_read_only() -> None:
    """Ray's object store gives them so."""
    content = np.arange(2**16, dtype=np.uint8)
    content.setflags(write=False)
    from cloister.simulation.sent_workspace import SentTensor

    made = SentTensor(content, torch.float32, (2**14,), True, False, True).made(torch.device("cpu"))
    assert made.data_ptr() == content.ctypes.data
    own = SentTensor(content, torch.float32, (2**14,), True, True, False).made(torch.device("cpu"))
    assert own.data_ptr() != content.ctypes.data
    assert own.requires_grad


def test_only_a_study_s_sites_are_asked_and_only_for_what_a_site_needs(tmp_path: Path) -> None:
    kept = KeptHere(tmp_path, "d" * 64, ("east",), OpenLedgers())
    for call, message in (
        (FarCall("../key", "ledger", "sign", (b"",)), "is not a site of this study"),
        (FarCall("east", "ledger", "_append"), "nothing named '_append'"),
        (FarCall("east", "personal", "_file", (1,)), "nothing named '_file'"),
        (FarCall("east", "ledger", "budget"), "east.ledger"),
    ):
        error = kept.answer(call).error
        assert error is not None
        assert message in str(error)
    with pytest.raises(AttributeError, match="ledger on another machine has no 'create'"):
        _ = FarFiles(lambda call: None)(tmp_path / "east.ledger").create


def node(number: int, cpus: int, gpus: int = 0, alive: bool = True) -> dict[str, Any]:
    return {
        "NodeID": f"n{number}",
        "NodeManagerHostname": f"host{number}",
        "Alive": alive,
        "Resources": {"CPU": float(cpus), "GPU": float(gpus)},
    }


def test_a_node_with_cpus_is_a_place_and_so_is_each_gpu() -> None:
    nodes = [node(0, 0), node(1, 8, 2), node(2, 4), node(3, 9, alive=False)]
    on_cpus = places_of(nodes, "n2", "cpu")
    assert [(one.host, one.cpus, one.is_here) for one in on_cpus] == [
        ("host2", 4, True),
        ("host1", 8, False),
    ]
    on_gpus = places_of(nodes, "n2", "cuda")
    assert [(one.host, one.cpus, one.sharing) for one in on_gpus] == [("host1", 4, 2)] * 2


@pytest.mark.parametrize(
    ("cpus", "sites", "workers", "threads"),
    [
        ([2], 10, [0, 0], 1),
        ([4, 4], 2, [0, 1], 4),
        ([3, 3], 3, [0, 0, 1], 1),  # with two threads each, the third would fit nowhere
        ([2, 8], 5, [0, 1, 1, 1, 1], 2),
        ([1], 1, [0], 1),
    ],
)
def test_workers_fit_onto_the_nodes_with_all_threads_that_are_left(
    cpus: list[int], sites: int, workers: list[int], threads: int
) -> None:
    places = [RayNode(f"n{k}", "host", own, k == 0) for k, own in enumerate(cpus)]
    plan = plan_ray(places, "cpu", [1.0] * sites, pays=True)
    assert list(plan.workers) == workers
    assert plan.threads == threads
    assert {plan.worker_of(site) for site in range(sites)} == set(range(len(workers)))


def test_sites_are_divided_by_their_tokens() -> None:
    places = [RayNode("n0", "host", 2, True)]
    plan = plan_ray(places, "cpu", [100.0, 1.0, 1.0, 1.0], pays=True)
    assert plan.sites == (0, 1, 1, 1)
    assert plan_ray(places, "cpu", [100.0, 1.0], pays=False).sites == (0, 0)
    gpus = [RayNode("n0", "host", 4, True, 2)] * 2
    plan = plan_ray(gpus, "cuda", [3.0, 2.0, 2.0], pays=True)
    assert plan.sites == (0, 1, 1)
    assert str(plan) == "workers: 2 processes on 1 node of Ray, a GPU each"


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The addresses that `ray.init` gets; the Ray there has one node without a CPU."""
    asked: list[Any] = []

    class Runtime:
        def get_node_id(self) -> str:
            return "n0"

    monkeypatch.setattr(ray_start, "check_reached", lambda source, address: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda address, **_: asked.append(address))
    monkeypatch.setattr(ray, "nodes", lambda: [node(0, 0)])
    monkeypatch.setattr(ray, "get_runtime_context", Runtime)
    monkeypatch.setattr(ray, "shutdown", lambda: asked.append("left"))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    return asked


def test_the_option_s_address_wins_and_a_ray_without_a_place_is_left(
    joined: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in ("10.0.0.2:6379", None):
        with (
            pytest.raises(UsageError, match="no node of this Ray has a CPU"),
            ray_places(address),
        ):
            pass
    monkeypatch.delenv("RAY_ADDRESS")
    with pytest.raises(UsageError, match="no node of this Ray"), ray_places():
        pass
    assert joined == ["10.0.0.2:6379", "left", "10.0.0.1:6379", "left", "local", "left"]


def test_a_ray_that_does_not_answer_is_said_with_where_its_address_is_from(
    joined: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: object, **__: object) -> None:
        raise ConnectionError("timed out")

    monkeypatch.setattr(ray, "init", silent)
    for address, message in (
        ("10.0.0.2:6379", r"--ray-address: '10.0.0.2:6379' given, and no Ray can be used there"),
        (None, r"RAY_ADDRESS, in the environment: '10.0.0.1:6379' given, and no Ray"),
    ):
        with pytest.raises(UsageError, match=message), ray_places(address):
            pass
    monkeypatch.delenv("RAY_ADDRESS")
    with pytest.raises(CloisterError, match=r"Ray cannot be started .* .timed out."), ray_places():
        pass
    monkeypatch.setenv("RAY_ADDRESS", "ray://10.0.0.1:10001")
    with pytest.raises(UsageError, match="HOST:PORT of a Ray is needed"), ray_places():
        pass


def test_a_ray_starts_while_the_context_runs_and_its_thread_ends_it(
    joined: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system ends Ray's processes with the thread that started them, so that one must stay."""
    goes_on, threads = threading.Event(), []

    def init(address: str, **_: object) -> None:
        assert goes_on.wait(60)
        threads.append(threading.current_thread())

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "nodes", lambda: [node(0, 2)])
    monkeypatch.setattr(ray, "shutdown", lambda: threads.append(threading.current_thread()))
    monkeypatch.setattr(ray_start, "_crew", lambda place, kind: place.host)
    with ray_places() as starting:
        assert not threads
        goes_on.set()
        assert starting.ready().crews == ("host0",)
        assert threads[0].is_alive()
        starting.leave()  # while results are written
    begun, ended = threads
    assert begun is ended is not threading.current_thread()


def test_a_port_at_which_nobody_listens_is_refused_before_ray_tries_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "init", lambda address, **_: asked.append(address))
    with socket.socket() as closed:  # bound, so that nobody else gets it, and not listening
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(UsageError, match=r"--ray-address: .* and nothing answers there"):
            ray_places(address).__enter__()
        assert asked == []
        closed.listen()
        check_reached("--ray-address", address)


def test_a_dry_run_says_what_of_a_ray_it_checked_and_joins_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a dry run starts and joins no Ray")

    monkeypatch.setattr(ray, "init", never)
    monkeypatch.setattr(simulate_command, "_dry_run", lambda *_: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    dry = ["simulate", "--dry-run", "--engine", "ray"]
    dry += [word for one in small_assignments(tmp_path / "study") for word in ("--set", one)]

    def told(*words: str, code: int = 0) -> str:
        assert cloister([*dry, *words]) == code
        return " ".join(capsys.readouterr().err.split())

    assert "Ray: a run would start one on this machine; this was not tried" in told()
    assert "would look for one on this machine" in told("--ray-address", "auto")
    with socket.socket() as port:  # bound, so that nobody else gets it, and not yet listening
        port.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{port.getsockname()[1]}"
        assert "--ray-address: " in (silent := told("--ray-address", address, code=2))
        assert "nothing answers there" in silent
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert "RAY_ADDRESS, in the environment: " in told(code=2)
        port.listen()
        assert f"Ray: {address} answers; whether it is a Ray of this version" in told()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ray-address", "10.0.0.1:6379"], "with the engine local, which uses no Ray"),
        (["--engine", "ray", "--ray-address", "ray://x:1"], "HOST:PORT of a Ray is needed"),
        (["--engine", "ray", "--ray-address", "10.0.0.1"], "HOST:PORT of a Ray is needed"),
        (["--engine", "ray", "--ray-address", "10.0.0.1:abc"], "HOST:PORT of a Ray is needed"),
        (["--engine", "ray", "--ray-address", "10.0.0.1:70000"], "HOST:PORT of a Ray is needed"),
        (["--engine", "ray", "--ray-address", ""], "HOST:PORT of a Ray is needed"),
    ],
)
@pytest.mark.parametrize("command", ["simulate", "tune"])
def test_an_address_that_cannot_be_is_refused_at_once(
    command: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cloister([command, *words]) == 2
    assert message in capsys.readouterr().err


def test_without_ray_the_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_nodes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="install cloister with the extra `ray`"):
        check_installed()


def test_a_ray_of_ours_has_the_cores_that_the_user_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cores() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert cores() == len(os.sched_getaffinity(0))
