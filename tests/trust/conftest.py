"""One finished study that the reports' tests share."""

from pathlib import Path

import pytest

from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import simulate
from tests.support.studies import small_recipe


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run's folder; its records and its public test set lie in `../study`."""
    place = tmp_path_factory.mktemp("finished")
    recipe = small_recipe(place / "study", "model.pooling=mean", "privacy.epsilon=500.0")
    directory = RunDirectory.create(place / "run", recipe)
    simulate(recipe, directory)
    return directory.path
