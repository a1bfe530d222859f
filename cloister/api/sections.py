"""Converts Python arguments to sections of a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from os import PathLike
from typing import Any

from cloister.api.dealing import Dealt
from cloister.api.memory_tables import NEEDED, is_table
from cloister.bounds import shortened
from cloister.errors import UsageError
from cloister.fields import whole_table
from cloister.strategies.config import PluginStrategy, StrategyConfig
from cloister.strategies.plugins import named as named_strategy
from cloister.tasks.config import TaskConfig
from cloister.tasks.plugins import named as named_task

# A section of a recipe: its fields by name, or its dataclass.
Section = Mapping[str, object] | Any
# The sources in a recipe whose rows are in memory and not yet written. The rows are kept beside the
# recipe; these names only satisfy the rules of `[data]`.
IN_MEMORY = "in-memory/{}.jsonl"


def table_of(name: str, section: Section | None) -> dict[str, object]:
    """Returns a section's fields, from a mapping or its dataclass.

    Args:
        name: The section's name, for messages.
        section: The user's value; None: no field.

    Raises:
        UsageError: It is neither.
    """
    if section is None:
        return {}
    if isinstance(section, Mapping):
        return dict(section)
    if isinstance(section, PluginStrategy | TaskConfig):
        return section.table()
    if dataclasses.is_dataclass(section) and not isinstance(section, type):
        return whole_table(section)
    wanted = {"privacy": "cloister.Privacy(...)"}.get(name, "its configuration")
    raise UsageError(
        f"{name}: {shortened(section)} given; a dict of the section's fields, or {wanted}, is "
        "needed"
    )


def headed(name: str, key: str, section: object) -> dict[str, object]:
    """Returns a section's fields; the user may give only the value of its first field.

    Args:
        name: The section's name, for messages.
        key: The first field's name.
        section: The user's value.
    """
    if isinstance(section, str | PathLike):
        return {key: str(section)}
    return table_of(name, section)


def strategy_table(strategy: object) -> dict[str, object]:
    """Returns the section `[strategy]`; it names the user's own strategy, with its options."""
    if strategy is None or isinstance(strategy, str | Mapping | StrategyConfig | PluginStrategy):
        return headed("strategy", "name", strategy)
    if not isinstance(strategy, type) and not hasattr(strategy, "aggregate"):
        raise UsageError(
            f"strategy: {shortened(strategy)} given; a strategy's name, a class or object that "
            "derives from cloister.Strategy, or a dict of the section's fields, is needed"
        )
    return named_strategy(strategy).table()  # type: ignore[arg-type]


def task_table(task: object) -> dict[str, object]:
    """Returns the section `[task]`; it names the user's own task."""
    if not isinstance(task, type):
        return headed("task", "kind", task)
    kind, plugin = named_task(task)
    return {"kind": kind, "plugin": plugin.table()}


def given(**fields: object) -> dict[str, object]:
    """Returns the fields that have a value."""
    return {key: value for key, value in fields.items() if value is not None}


def source_of(data: object) -> tuple[object, dict[str, object]]:
    """Returns the training data, and the fields of `[data]` that say how they are dealt."""
    if isinstance(data, Dealt) and isinstance(data.data, Mapping):
        raise UsageError("data: a dict of sites needs no partition; give it as data")
    if isinstance(data, Dealt):
        return data.data, data.fields
    if is_table(data):
        raise UsageError(
            "data: one table given, without sites; deal it with "
            'cloister.partition(table, sites=5), or by="column" if rows name their sites'
        )
    if isinstance(data, Mapping):
        return data, {"sites": len(data), "partition": "column"}
    return data, {}


def stated(source: object, split: str) -> str | None:
    """Returns a source as the recipe names it.

    Raises:
        UsageError: It is neither a source nor a table.
    """
    if source is None or isinstance(source, str):
        return source
    if isinstance(source, PathLike):
        return str(source)
    if is_table(source) or (split == "train" and isinstance(source, Mapping)):
        return IN_MEMORY.format(split)
    name = "data" if split == "train" else split
    raise UsageError(f"{name}: {type(source).__name__} given; a file, a hub id, or {NEEDED}")
