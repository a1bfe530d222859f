"""Scripts of a card run without cloister."""

import pytest

from tests.support.plain_scripts import Run, plain_script


@pytest.fixture(scope="session")
def plain() -> Run:
    """Runs a script without cloister."""
    return plain_script
