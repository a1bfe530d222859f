"""Loads a finished run on the CPU in float32, for reports about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cloister.errors import UsageError
from cloister.export.adapter_folder import adapter_folder, read_released
from cloister.export.forms.finished import recipe_beside
from cloister.recipe import Recipe, read_run_recipe
from cloister.serving.model import Model, about_adapter, load
from cloister.tasks.config import TaskKind


@dataclass(frozen=True)
class Opened:
    """A finished run, loaded for a report.

    Attributes:
        folder: The adapter's folder.
        model: Base, adapter and head.
        recipe: The recipe of the adapter's run; None: the adapter is alone.
    """

    folder: Path
    model: Model
    recipe: Recipe | None

    @property
    def name(self) -> str:
        """Returns the study's name; for an adapter alone, its folder's name."""
        return self.folder.name if self.recipe is None else self.recipe.study.name

    @property
    def kind(self) -> TaskKind:
        """Returns the task's name in a recipe."""
        return self.model.workspace.task.kind


def recipe_of(run: Path) -> tuple[Path, Recipe | None]:
    """Returns the folder of a run's adapter and the run's recipe, without loading the model.

    Raises:
        BadFileError: There is no adapter.
    """
    folder = adapter_folder(run)
    file = recipe_beside(folder, read_released(folder))
    return folder, None if file is None else read_run_recipe(file)


def open_run(run: Path, base: str | None = None) -> Opened:
    """Loads a finished run's base, adapter and head.

    Args:
        run: A finished run's folder, or an adapter's.
        base: The base's folder or hub id on this machine; None: the one that the adapter names.

    Raises:
        UsageError: Its task is a plug-in's, each site kept a part of it, or its base is quantized.
        BadFileError: The adapter is missing or damaged.
        ModelFileError: The base is missing, or is not the one that was trained.
    """
    about = about_adapter(run)
    if about.model.quantization != "none":
        raise UsageError(
            f"{run}: its base is quantized ({about.model.quantization}), which needs a GPU, but "
            "reports are computed on the CPU; train without quantization "
            '(model.quantization = "none")'
        )
    folder, recipe = recipe_of(run)
    model = load(run, "cpu", base=base)
    network = model.workspace.network.float().eval()
    network.is_float32 = True
    return Opened(folder, model, recipe)
