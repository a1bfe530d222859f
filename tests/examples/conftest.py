"""The example systems as modules, with services in threads of the test in place of processes."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from cloister.feedback.store import FeedbackStore
from cloister.service.app import Service, make_app
from cloister.service.batching import Batcher
from cloister.service.callers import CallerRates, Callers
from cloister.service.feedback_desk import FeedbackDesk
from cloister.service.figures import Figures
from cloister.service.library import open_library
from cloister.service.versions import Served, open_version
from tests.support.models import tiny_bert, tiny_llama
from tests.support.web import on_a_port

EXAMPLES = Path(__file__).parents[2] / "examples"
Opened = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def opened() -> Iterator[Opened]:
    """Opens an example's `run.py` as a module that is not the program."""
    kept = list(sys.path)

    def load(name: str) -> ModuleType:
        sys.path.insert(0, str(EXAMPLES / name))
        place = EXAMPLES / name / "run.py"
        spec = importlib.util.spec_from_file_location(f"example_{name.replace('-', '_')}", place)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    sys.path[:] = kept


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny chat base whose context holds four pages and a question."""
    return tiny_llama(tmp_path_factory.mktemp("talker") / "base", positions=512)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder whose positions hold a question with its answer."""
    return tiny_bert(tmp_path_factory.mktemp("encoder") / "base", positions=96)


@contextmanager
def serving(run: str, *words: str) -> Iterator[str]:
    """In place of `services.serving`: the same service, in a thread of the test."""
    given = dict(zip(words[::2], words[1::2], strict=True))
    version = open_version(Path(run), None, None)
    served, figures = Served(lambda: version), Figures(lambda: 0)
    batcher = Batcher(served, 1000, 10, figures.batch)
    pages = given.get("--documents")
    least = float(given.get("--least-score", 0))
    library = None if pages is None else open_library(Path(pages), None, None, least)
    kept = given.get("--feedback")
    desk = None if kept is None else FeedbackDesk(FeedbackStore(Path(kept), make=True))
    service = Service(served, batcher, figures, 60, library, desk)
    try:
        app = make_app(service, Callers(), CallerRates(None, time.monotonic))
        with on_a_port(app) as address:
            yield f"{address}/"
    finally:
        batcher.close()


@contextmanager
def started(example: str, *words: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """An example with `--serve`: its process, what it said until its page was up, the address."""
    command = [sys.executable, str(EXAMPLES / example / "run.py"), "--serve", *words]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    # Sources first; a base's package may lie where PYTHONPATH points.
    paths = [str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        told = []
        try:
            for line in process.stdout:
                told.append(line)
                if line.startswith("It stays"):
                    break
            said = "".join(told)
            assert "It stays" in said, said
            page = next(line for line in told if line.startswith("The ") and "http" in line)
            yield process, said, page.split()[-1]
        finally:
            process.send_signal(signal.SIGTERM)
