"""Sites in worker processes: the bits of one process, one writer a ledger, and every sudden end."""

import gc
import logging
import os
import pickle
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
import torch

from cloister.adapter.tensors import Adapter
from cloister.client import round as site_round
from cloister.errors import CloisterError, DataError, LedgerError, MisfitError, UsageError
from cloister.ledger.ledger import Ledger
from cloister.ledger.storage import LedgerFile
from cloister.models.prefix import FrozenPrefix
from cloister.recipe import Recipe
from cloister.server.report import RoundReport
from cloister.server.run_directory import RunDirectory
from cloister.simulation import worker_plan, worker_start
from cloister.simulation.early import check_workers
from cloister.simulation.run import Events, simulate
from cloister.simulation.site_worker import WorkerSetup, portable
from cloister.simulation.study import SimulatedSites, prepare, workspace_of
from cloister.simulation.twin import plain_twin
from cloister.simulation.worker_plan import WorkerPlan, operations, plan_workers, useful
from cloister.strategies.strategy import ServerState
from cloister.training.frozen_caches import _kept
from tests.support.entropy import repeat_rounds
from tests.support.studies import NOTES, small_recipe, write_notes

Make = Callable[..., Recipe]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(autouse=True)
def childless() -> Iterator[None]:
    """No test leaves a worker, not even as a zombie."""
    before = set(psutil.Process().children())
    yield
    assert set(psutil.Process().children()) <= before


@pytest.fixture
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    repeat_rounds(monkeypatch)


def plain(folder: Path, *assignments: str) -> Recipe:
    return small_recipe(
        folder, "privacy.enabled=false", "data.sites=3", "data.partition=iid", *assignments
    )


def final(recipe: Recipe, out: Path) -> Adapter:
    study = prepare(recipe)
    state = RunDirectory(out).load(ServerState(workspace_of(study).whole), study.recipe.digest())
    assert state.round == recipe.federation.num_rounds
    return state.adapter


def run(recipe: Recipe, out: Path, workers: int | None, **events: Callable[..., None]) -> Adapter:
    place = RunDirectory.reopen(out) if out.exists() else RunDirectory.create(out, recipe)
    simulate(recipe, place, events=Events(**events), workers=workers)
    return final(recipe, out)


def same(one: Adapter, other: Adapter) -> bool:
    return one.keys() == other.keys() and all(
        one[name].tobytes() == other[name].tobytes() for name in one
    )


@pytest.mark.usefixtures("seeded")
def test_workers_give_the_bits_of_one_process_and_each_ledger_has_one_writer(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe(folder, "data.sites=3", "data.partition=iid", "training.optimizer=adamw")
    steps: list[None] = []
    alone = run(recipe, tmp_path / "alone", 1)
    writers = tmp_path / "writers"
    real = LedgerFile.writing

    def writing(file: LedgerFile):  # type: ignore[no-untyped-def]
        with writers.open("a") as log:
            log.write(f"{file.path.name} {os.getpid()}\n")
        return real(file)

    monkeypatch.setattr(LedgerFile, "writing", writing)
    together = run(recipe, tmp_path / "workers", 2, on_step=lambda: steps.append(None))
    assert same(alone, together)
    assert len(steps) == 3 * 2 * 2  # each site's steps are shown
    pairs = {tuple(line.split()) for line in writers.read_text().splitlines()}
    assert len({name for name, _ in pairs}) == len(pairs) == 3
    assert len({pid for _, pid in pairs} - {str(os.getpid())}) == 2


def test_workers_of_two_threads_give_the_bits_of_a_process_of_two(
    folder: Path, tmp_path: Path
) -> None:
    """A fork that used its parent's pool of threads would hang."""
    recipe, before = plain(folder), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        alone = run(recipe, tmp_path / "alone", 1)
        torch.set_num_threads(4)
        told: list[str] = []
        assert same(alone, run(recipe, tmp_path / "workers", 2, on_base=told.append))
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert told[-1] == "workers: 2 processes of 2 threads each, which share one base"


@pytest.mark.nightly  # each worker loads torch
def test_workers_that_are_started_anew_give_the_same_bits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = plain(folder)
    alone = run(recipe, tmp_path / "alone", 1)
    monkeypatch.setattr(worker_plan, "can_fork", lambda: False)
    assert same(alone, run(recipe, tmp_path / "workers", 2))


@pytest.mark.usefixtures("seeded")
def test_shared_noise_keeps_its_keys_where_the_site_is(folder: Path, tmp_path: Path) -> None:
    recipe = small_recipe(
        folder,
        "data.sites=3",
        "data.partition=iid",
        "privacy.noise=shared",
        "training.mode=gradient-rounds",
        "training.local_steps=1",
        "federation.num_rounds=1",
    )
    assert same(run(recipe, tmp_path / "one", 1), run(recipe, tmp_path / "two", 2))


@pytest.mark.nightly  # a thousand ledgers
def test_a_thousand_sites_on_two_workers(folder: Path, tmp_path: Path) -> None:
    write_notes(folder / "many.jsonl", 2000)
    recipe = plain(
        folder,
        "data.sites=1000",
        f"data.train='{folder / 'many.jsonl'}'",
        "training.local_steps=1",
        "training.expected_batch_size=2",
        "federation.num_rounds=1",
    )
    reports: list[RoundReport] = []
    run(recipe, tmp_path / "run", 2, on_round=reports.append)
    assert len(reports[0].received) == 1000
    assert reports[0].missing == ()


class Mischief:
    """Does something in one site's second round, once, in whatever process it runs."""

    def __init__(self, patch: pytest.MonkeyPatch, does: Callable[[], None]) -> None:
        self._parent, self._real = os.getpid(), site_round.local_update
        self._does = does
        patch.setattr(site_round, "local_update", self)

    def __call__(self, *given: object, **named: object) -> Adapter:
        if named["round_number"] == 2 and os.getpid() != self._parent:
            self._does()
        return self._real(*given, **named)  # type: ignore[arg-type]


def test_a_worker_that_dies_ends_the_run_in_one_message_and_it_can_be_resumed(
    folder: Path, tmp_path: Path
) -> None:
    recipe = plain(folder)
    with pytest.MonkeyPatch.context() as patch:
        Mischief(patch, lambda: os.kill(os.getpid(), signal.SIGKILL))
        with pytest.raises(CloisterError, match=r"worker \d of 2 .--workers. ended by SIGKILL"):
            run(recipe, tmp_path / "run", 2)
    kept = RunDirectory.reopen(tmp_path / "run")
    assert len(kept.metrics()) == 1
    run(recipe, tmp_path / "run", 2)  # the round that was charged is skipped, as in one process


def test_ctrl_c_leaves_no_worker_and_a_run_that_can_be_resumed(
    folder: Path, tmp_path: Path
) -> None:
    recipe, steps = plain(folder), iter(range(100))

    def on_step() -> None:
        if next(steps) == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "run", 3, on_step=on_step)
    assert len(RunDirectory.reopen(tmp_path / "run").metrics()) == 1
    run(recipe, tmp_path / "run", 3)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_said_as_in_one_process(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def full(*_: object) -> None:
        raise LedgerError("east.ledger: cannot be written (No space left on device)")

    monkeypatch.setattr(Ledger, "reserve", full)
    with pytest.raises(LedgerError, match="No space left on device"):
        run(plain(folder), tmp_path / "run", workers)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_round_that_fails_ends_the_run_with_the_site_s_own_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug of the user's task")

    monkeypatch.setattr(site_round, "local_update", broken)
    with pytest.raises(ZeroDivisionError, match="a bug of the user's task"):
        run(plain(folder), tmp_path / "run", workers)


def test_log_records_of_workers_are_the_coordinator_s(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Mischief(monkeypatch, lambda: logging.getLogger("cloister.told").warning("seen %d", 7))
    run(plain(folder), tmp_path / "run", 3)
    assert [r.getMessage() for r in caplog.records if r.name == "cloister.told"] == ["seen 7"] * 3


def test_workers_end_with_the_coordinator_s_process(folder: Path, tmp_path: Path) -> None:
    study = prepare(plain(folder))
    sites = SimulatedSites(study.recipe, tmp_path, study)
    read, write = os.pipe()
    coordinator = os.fork()
    if coordinator == 0:
        try:
            plan = WorkerPlan(2, 1, True, "cpu")
            started = worker_start.start_workers(plan, sites, 3)
            os.write(write, " ".join(str(w.child._pid) for w in started).encode())  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.waitpid(coordinator, 0)
    workers = [int(number) for number in os.read(read, 100).split()]
    os.close(read)
    os.close(write)
    deadline = time.monotonic() + 60
    while any(map(runs, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(workers) == 2


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_fork_that_the_system_refuses_leaves_no_other_and_no_open_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, real, asked = prepare(plain(folder)), os.fork, iter(range(2))

    def fork() -> int:
        if next(asked):
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real()

    monkeypatch.setattr(os, "fork", fork)
    gc.collect()  # what was left open before is not closed in between
    before = psutil.Process().num_fds()
    with pytest.raises(CloisterError, match=r"worker 2 of 2 cannot be started .Resource temp"):
        worker_start.start_workers(
            WorkerPlan(2, 1, True, "cpu"), SimulatedSites(study.recipe, tmp_path, study), 3
        )
    assert psutil.Process().num_fds() == before


@pytest.mark.parametrize(
    ("sites", "most", "found"),
    [(1, 8, 1), (2, 2, 2), (3, 2, 2), (4, 3, 2), (10, 8, 5), (10, 16, 10), (50, 16, 13), (7, 1, 1)],
)
def test_no_more_workers_than_end_a_round_sooner(sites: int, most: int, found: int) -> None:
    assert useful(sites, most) == found
    plan = WorkerPlan(found, 1, True, "cpu")
    loads = Counter(plan.worker_of(site) for site in range(sites))
    assert len(loads) == found
    assert max(loads.values()) == -(-sites // min(sites, most))


def test_unasked_workers_are_as_many_as_threads_where_there_is_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = prepare(plain(folder))
    workspace = workspace_of(study)
    assert 1e5 < operations(study, workspace) < worker_plan.PAYS
    assert plan_workers(study, workspace) is None
    monkeypatch.setattr(worker_plan, "PAYS", 1.0)
    assert plan_workers(study, workspace) is None  # a process of the tests has one thread
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    assert plan_workers(study, workspace) == WorkerPlan(3, 5, True, "cpu")
    assert plan_workers(study, workspace, 1) is None
    monkeypatch.setattr(worker_plan, "can_fork", lambda: False)
    assert plan_workers(study, workspace) is None
    asked = plan_workers(study, workspace, 2)
    assert asked == WorkerPlan(2, 8, False, "cpu")
    assert str(asked) == ("workers: 2 processes, 8 threads each; each loads a base of its own")


def test_on_gpus_each_worker_has_one_of_its_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = prepare(plain(folder))
    monkeypatch.setattr(worker_plan, "find_device", lambda asked: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert plan_workers(study, workspace_of(study)) is None  # each would load a base, unasked
    with pytest.raises(CloisterError, match=r"3 given, and each needs its own GPU.* 2 GPU"):
        plan_workers(study, workspace_of(study), 3)
    plan = plan_workers(study, workspace_of(study), 2)
    assert plan is not None
    assert not plan.is_forked
    assert str(plan) == "workers: 2 processes, a GPU each; each loads a base of its own"
    sites = SimulatedSites(study.recipe, tmp_path, study)
    placed = [worker_start._placed(sites, plan, worker) for worker in range(2)]
    assert [p.recipe.machine.device for p in placed] == ["cuda:0", "cuda:1"]
    assert [p.recipe.machine.frozen_cache_gib for p in placed] == [2.0, 2.0]
    assert {p.recipe.digest() for p in placed} == {study.recipe.digest()}
    assert {p.prepared for p in placed} == {None}


@pytest.mark.parametrize(
    ("workers", "engine", "assignment", "message"),
    [
        (0, "local", "study.seed=0", "workers: 0 given; 1 to 64"),
        (65, "local", "study.seed=0", "workers: 65 given; 1 to 64"),
        (2, "ray", "study.seed=0", "workers: 2 given with --engine ray"),
        (2, "local", "machine.processes=2", "with machine.processes = 2"),
        (2, "local", "machine.device='cuda:1'", "with machine.device = 'cuda:1'"),
    ],
)
def test_workers_that_cannot_be_are_refused_before_anything_loads(
    folder: Path, workers: int, engine: str, assignment: str, message: str
) -> None:
    with pytest.raises(UsageError) as raised:
        check_workers(plain(folder, assignment), engine, workers)
    assert message in str(raised.value)


def test_errors_reach_the_coordinator_with_their_class_where_it_can_be_sent() -> None:
    error = DataError("row 3: no text")
    assert portable(error) is error
    changed = portable(MisfitError("it is empty", "row 3: no text"))
    assert str(changed) == "MisfitError: row 3: no text"


def test_a_fork_adds_its_share_of_what_the_caches_may_still_take(folder: Path) -> None:
    study = prepare(plain(folder, "lora.top_layers=1", "machine.frozen_cache_gib=1"))
    network = workspace_of(study).network
    assert network.prefix is not None
    whole = network.prefix._max_bytes
    filled = network.prefix._kept._filled.bytes
    network.share_caches(4)
    assert network.prefix._max_bytes == filled + (whole - filled) / 4


def test_a_worker_s_setup_can_be_sent(folder: Path, tmp_path: Path) -> None:
    setup = WorkerSetup(SimulatedSites(plain(folder), tmp_path), 3, 1, 2)
    assert pickle.loads(pickle.dumps(setup)).sites.recipe == setup.sites.recipe


@pytest.mark.parametrize(("probe_rounds", "hands_over"), [(0, True), (2, True), (0, False)])
def test_a_twin_computes_no_state_that_the_private_run_s_workers_cached(
    probe_rounds: int,
    hands_over: bool,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Workers end with their run and give back what they cached, for all records were drawn."""
    small_recipe(folder)  # makes the files
    one = tmp_path / "one.jsonl"  # few texts are scored: the coordinator's process caches them too
    one.write_text((folder / "test.jsonl").read_text().splitlines()[0] + "\n")
    recipe = small_recipe(
        folder,
        f"data.test='{one}'",
        f"task.labels={sorted(NOTES)}",
        "lora.top_layers=1",
        "training.expected_batch_size=40",
        f"training.probe_rounds={probe_rounds}",
        f"federation.num_rounds={probe_rounds + 1}",
        f"study.seed={7 + probe_rounds + hands_over}",  # a network of its own …
    )
    _kept.cache_clear()  # … of which nothing is cached yet
    run = RunDirectory.create(tmp_path / "run", recipe)
    simulate(recipe, run, workers=2, hands_over=hands_over)
    computed: list[int] = []
    compute = FrozenPrefix._compute

    def counted(prefix: FrozenPrefix, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        computed.append(len(inputs["input_ids"]))
        return compute(prefix, inputs)

    monkeypatch.setattr(FrozenPrefix, "_compute", counted)
    twin = plain_twin(recipe)
    simulate(twin, RunDirectory.create(tmp_path / "twin", twin), workers=1)
    assert bool(computed) is not hands_over
