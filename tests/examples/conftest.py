"""The example systems as modules, with services in threads of the test in place of processes."""

import importlib.util
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
from cloister.service.versions import Served, open_version
from tests.support.models import tiny_bert
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
    kept = given.get("--feedback")
    desk = None if kept is None else FeedbackDesk(FeedbackStore(Path(kept), make=True))
    service = Service(served, batcher, figures, 60, None, desk)
    try:
        app = make_app(service, Callers(), CallerRates(None, time.monotonic))
        with on_a_port(app) as address:
            yield f"{address}/"
    finally:
        batcher.close()
