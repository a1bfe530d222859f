"""Trains the adapter before round 1 on public records, if a study has some.

The trained adapter is stored in the run's folder, so that a resumed run begins with the same one.
"""

from __future__ import annotations

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, encode
from cloister.data.public_set import KEY, public_records, stated_public_set
from cloister.recipe import Recipe
from cloister.recipe.private_file import refuse_private_training
from cloister.server.run_directory import RunDirectory
from cloister.training.public_start import public_start
from cloister.training.workspace import Workspace


def trained_on_public(
    recipe: Recipe, workspace: Workspace, run: RunDirectory, begin: Adapter
) -> Adapter:
    """Returns the global adapter before round 1, trained on the study's public records if any.

    Args:
        recipe: The resolved study.
        workspace: The study's workspace; training on public records overwrites its network.
        run: The run's folder, in which the trained adapter is stored.
        begin: The adapter before this training.

    Raises:
        DataError: The public file cannot be read, or has another hash than the recipe states.
        RefusedError: The file has the study's private records.
    """
    if recipe.data.public is None:
        return begin
    kept = run.load_start()
    if kept is not None:
        return decode(kept, begin.shapes)
    stated_public_set(recipe.data, recipe.task.records)
    records = public_records(recipe.data, recipe.task.records)
    refuse_private_training(recipe, records, KEY)
    start = public_start(workspace, begin, records, recipe.training, recipe.study.seed)
    run.save_start(encode(start))
    return start
