"""Trains the adapter on a study's public records: before round 1, and again after each round.

The adapter that was trained before round 1 is stored in the run's folder, so that a resumed run
begins with the same one. After a round (`federation.public_replay`) it is experience replay
(Rolnick et al. 2019, arXiv:1811.11682) with public records in the place of the earlier task's
private ones, which stay at their sites. Both read only public records and what the sites released,
so they cost no ε.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, encode
from cloister.data.public_set import KEY, public_records, stated_public_set
from cloister.data.records import Record
from cloister.recipe import Recipe
from cloister.recipe.private_file import refuse_private_training
from cloister.server.run_directory import RunDirectory
from cloister.strategies.strategy import ServerState
from cloister.training.public_start import public_replay, public_start
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
    if not recipe.public_steps:
        return begin
    kept = run.load_start()
    if kept is not None:
        return decode(kept, begin.shapes)
    records = _checked(recipe)
    start = public_start(workspace, begin, records, recipe.training, recipe.study.seed)
    run.save_start(encode(start))
    return start


def replay_on_public(recipe: Recipe, workspace: Workspace) -> Callable[[ServerState], ServerState]:
    """Returns the step after a round's aggregation that trains on public records, if there is one.

    Args:
        recipe: The resolved study.
        workspace: The study's workspace; each call overwrites its network.

    Raises:
        DataError: The public file cannot be read, or has another hash than the recipe states.
        RefusedError: The file has the study's private records.
    """
    steps = recipe.federation.public_replay
    if not steps:
        return lambda closed: closed
    records, training, seed = _checked(recipe), recipe.training, recipe.study.seed

    def replayed(closed: ServerState) -> ServerState:
        names = workspace.trained_in_round(training, closed.round) - workspace.kept
        adapter = public_replay(
            workspace, closed.adapter, records, training, steps, names, closed.round, seed
        )
        return dataclasses.replace(closed, adapter=adapter)

    return replayed


def _checked(recipe: Recipe) -> Sequence[Record]:
    """Reads the public records; refuses a changed file, and one with private records."""
    stated_public_set(recipe.data, recipe.task.records)
    records = public_records(recipe.data, recipe.task.records)
    refuse_private_training(recipe, records, KEY)
    return records
