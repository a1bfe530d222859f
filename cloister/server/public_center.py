"""Fills in the mean vector of a study's public records (`model.center = "public"`).

The coordinator computes it once, before the study's document is written, and sends it with that: so
sites subtract the same vector without having the records, and the digest covers it.
"""

from __future__ import annotations

from dataclasses import replace

from cloister.data.public_set import public_records, text_of
from cloister.models.center import mean_vector
from cloister.recipe import Recipe
from cloister.training.workspace import open_workspace


def with_public_center(recipe: Recipe) -> Recipe:
    """Returns the study with `model.center_values`, if it needs them and does not have them yet.

    Args:
        recipe: With labels; its public file and its base are on this machine.

    Raises:
        DataError: The file cannot be read.
        ModelFileError: The base cannot be found or loaded.
    """
    model = recipe.model
    if model.center != "public" or model.center_values is not None:
        return recipe
    workspace = open_workspace(
        replace(model, center=None),
        recipe.lora,
        recipe.task,
        recipe.task.labels,
        recipe.study.seed,
        device=recipe.machine.device,
        attention=recipe.machine.attention,
    )
    texts = [text_of(record) for record in public_records(recipe.data, recipe.task.records)]
    values = mean_vector(workspace.network, workspace.task, texts).tolist()
    return replace(recipe, model=replace(model, center_values=tuple(values)))
