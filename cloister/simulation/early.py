"""Refuses a study early, before torch, transformers or a base model are loaded.

Loading these takes 10 to 20 seconds; a wrong path or column is reported at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cloister.data.config import DataConfig
from cloister.data.load import Split, first_record, load
from cloister.data.records import RecordKind
from cloister.data.source import OLD_TEST, PUBLIC, RECIPE, DataOrigin
from cloister.errors import ModelFileError, UsageError
from cloister.models.config import base_problem
from cloister.plugins import is_of_this_process
from cloister.recipe import Recipe
from cloister.simulation.budget_check import budget_problem
from cloister.simulation.plans import plans_of
from cloister.simulation.ray_nodes import check_installed
from cloister.simulation.recipe_checks import check_recipe
from cloister.training.machine import MOST_PROCESSES

# Largest file that is read whole, which takes about 0.7 s (12 MB of CSV a second, measured).
READ_WHOLE = 8 * 2**20


def refuse_early(recipe: Recipe, engine: Literal["local", "ray"] = "local") -> None:
    """Refuses a study that cannot run, by quick checks.

    The run itself repeats these checks, and checks the rest: every record, the labels, the base.

    Args:
        recipe: The study.
        engine: The engine that would run its sites.

    Raises:
        UsageError: The engine cannot run it, or its fields contradict each other.
        ModelFileError: `model.base` names neither a folder nor a hub id.
        DataError: A file is missing, or its first row does not fit the task; in a file of at most
            `READ_WHOLE` bytes, any row.
        RefusedError: No noise meets the target, or its adapters have no gradients of single
            records.
        BudgetError: No site's stated budget covers a round.
    """
    check_engine(recipe, engine)
    check_recipe(recipe)
    problem = base_problem(recipe.model.base)
    if problem is not None:
        raise ModelFileError(problem)
    data, kind = recipe.data, recipe.task.records
    _check_rows(data.train, "train", kind, data, sites=data.partition == "column")
    if data.fold is None and data.test_source is not None:
        _check_rows(data.test_source, "test", kind, data)
    if data.validation is not None:
        _check_rows(data.validation, "validation", kind, data)
    if data.public is not None:
        _check_rows(data.public, "validation", kind, data, asker=PUBLIC)
    if data.old_test is not None:
        _check_rows(data.old_test, "test", kind, data, asker=OLD_TEST)
    plans_of(recipe, data.site_names)
    short = budget_problem(recipe)
    if short is not None:
        raise short


def _check_rows(
    source: str,
    split: Split,
    kind: RecordKind,
    columns: DataConfig,
    *,
    sites: bool = False,
    asker: DataOrigin = RECIPE,
) -> None:
    """Checks all rows of a small file, and the first row of a large one."""
    path = Path(source)
    if path.is_file() and path.stat().st_size <= READ_WHOLE:
        load(source, split, kind, columns, sites=sites, asker=asker)
    else:
        first_record(source, split, kind, columns, sites=sites, asker=asker)


def check_engine(recipe: Recipe, engine: Literal["local", "ray"]) -> None:
    """Refuses an engine that cannot run a study.

    Raises:
        UsageError: Ray is not installed; or sites would run in other processes, but have several
            processes each, or need a task that exists in this process only.
    """
    if engine == "ray":
        check_installed()
    if engine == "ray" and recipe.machine.processes:
        raise UsageError(
            f"machine.processes: {recipe.machine.processes} given with --engine ray, each of "
            "whose workers would start as many; use --engine local"
        )
    if engine == "ray" and is_of_this_process(recipe.task.kind):
        raise UsageError(
            f"task.kind: {recipe.task.kind} is a class of a script or notebook, which Ray's "
            "workers do not have; put it into a module, or use --engine local"
        )


def check_workers(recipe: Recipe, engine: str, asked: int | None) -> None:
    """Refuses a number of workers that a recipe or an engine cannot have, before anything loads.

    Raises:
        UsageError: It is out of bounds, or what it is given with also sets processes or one device.
    """
    if asked is None:
        return
    if not 1 <= asked <= MOST_PROCESSES:
        raise UsageError(f"workers: {asked} given; 1 to {MOST_PROCESSES} is needed")
    if engine != "local":
        raise UsageError(
            f"workers: {asked} given with --engine {engine}, which starts workers itself; leave "
            "it out, or use --engine local"
        )
    if asked > 1 and recipe.machine.processes:
        raise UsageError(
            f"workers: {asked} given with machine.processes = {recipe.machine.processes}, of "
            "which each worker would start as many; use one of the two"
        )
    if asked > 1 and recipe.machine.device not in (None, "cpu", "cuda"):
        raise UsageError(
            f"workers: {asked} given with machine.device = {recipe.machine.device!r}; workers "
            'take the CUDA GPUs from 0 on, one each: set device = "cuda", or "cpu"'
        )
