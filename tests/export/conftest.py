"""One process for all scripts of a worker's tests: it loads torch once."""

from collections.abc import Iterator

import pytest

from tests.support.plain_scripts import Run, plain_scripts


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs a script without cloister."""
    with plain_scripts(tmp_path_factory.mktemp("scripts")) as run:
        yield run
