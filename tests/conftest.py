"""Fixtures for all tests."""

import gc
import inspect
import os
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import settings

import tests.support.examples  # noqa: F401 - registers the profile
from tests.support import worker_forks
from tests.support.logs_where_asked import capture_logs_where_asked

# A million objects of modules stay for good: looking through them while they are loaded, and again
# in every full collection of the tests, takes a fifth of a worker's time and frees nothing.
gc.disable()

# Set before torch and flwr are loaded: a test never talks to anybody, and two threads of a tiny
# model wait for each other longer than they work.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["OMP_NUM_THREADS"] = "1"  # whatever the shell says: as many workers as cores run
# Where a test takes two threads, one that waits leaves its core to the other workers.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tests neither read nor write the user's cache of proofs; those of the cache set another folder.
os.environ["CLOISTER_KEPT_PROOFS"] = "0"

# What a user's shell says decides no test: widths and colours, proxies, a cluster, a database.
OF_A_SHELL = ("COLUMNS", "LINES", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "RAY_ADDRESS")
OF_TESTS = ("CLOISTER_DATA", "CLOISTER_KEPT_PROOFS")
for _name in [*os.environ]:
    _chosen = _name.startswith(("CLOISTER_", "PG")) and _name not in OF_TESTS
    if _chosen or _name in OF_A_SHELL or _name.lower().endswith("_proxy"):
        del os.environ[_name]

settings.load_profile("tries")

# Begun first, so that no worker is left with one of them when the others have nothing to do.
LONG = (
    "tests/faults/",
    "tests/e2e/",
    "tests/audit/",
    "tests/training/",
    "tests/simulation/",
    "tests/tools/",
)


@pytest.hookimpl(trylast=True)  # after pytest has made its own
def pytest_configure(config: pytest.Config) -> None:
    """Spares the tests that read no logs the cost of capturing them."""
    capture_logs_where_asked(config.pluginmanager)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files that take longest first; within a file the order stays."""

    def place(item: pytest.Item) -> int:
        name = item.nodeid
        return next((i for i, start in enumerate(LONG) if name.startswith(start)), len(LONG))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Collects garbage from here on, but for what was loaded until now; less often than Python."""
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)
    gc.enable()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Forks a copy of this worker, from which tests start programs (`support.worker_forks`)."""
    if not session.items:  # as where other processes run the tests
        return (yield)
    worker_forks.begin()
    try:
        return (yield)
    finally:
        worker_forks.end()


@pytest.fixture(scope="session", autouse=True)
def undrawn() -> Iterator[None]:
    """A finished run's picture is an empty file: drawing it takes a third of a tiny study's time.

    Tests of pictures draw them; `test_a_run_leaves_everything_behind` does at the end of a run.
    """
    ending = sys.modules.get("cloister.server.ending")  # files of tests that run studies load it
    with pytest.MonkeyPatch.context() as patch:
        if ending is not None:
            for name in ("plot_run", "plot_classes"):
                patch.setattr(ending, name, _empty_picture(getattr(ending, name)))
        yield


def _empty_picture(draw: Callable[..., object]) -> Callable[..., None]:
    """Returns what takes the arguments of a function that draws, and writes an empty file."""
    bind = inspect.signature(draw).bind

    def empty(*given: object, **named: object) -> None:
        bind(*given, **named).arguments["path"].write_bytes(b"")

    return empty


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """No write waits for the disk: a tiny study syncs 30 files and 10 entries, 10 ms and more each.

    Tests of full disks bring an `fsync` of their own, and tests of power cuts a file layer for
    SQLite, whose syncs stay as they are. So do those of the programs that tests start.
    """
    from cloister.ledger.storage import LedgerFile

    connect = LedgerFile._connect

    def without_waiting(ledger: LedgerFile, flags: int) -> apsw.Connection:
        connection = connect(ledger, flags)
        if ledger._vfs is None:
            connection.execute("PRAGMA synchronous=OFF")
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        patch.setattr(LedgerFile, "_connect", without_waiting)
        yield


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT encoder on disk."""
    from tests.support.models import tiny_bert

    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 on disk."""
    from tests.support.models import tiny_gpt2

    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama on disk."""
    from tests.support.models import tiny_llama

    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def utility(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Imports modules of simulations/utility, which stand beside one another, and forgets them."""
    folder = Path(__file__).parents[1] / "simulations" / "utility"
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)

    def load(name: str) -> Any:
        __import__(name)
        return sys.modules[name]

    yield load
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == folder:
            del sys.modules[name]
