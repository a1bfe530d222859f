"""One adapter that the tests of whole watches share."""

from pathlib import Path

import pytest

from cloister.tasks.config import TaskConfig
from tests.support.released import exported
from tests.support.watched import LABELS


@pytest.fixture(scope="session")
def watched_run(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    """The folder of an adapter that answers `LABELS`."""
    place = tmp_path_factory.mktemp("watched") / "run"
    return exported(place, bert, TaskConfig(labels=LABELS, max_length=12))
