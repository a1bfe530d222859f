"""Reads recipes from TOML: a user's file, with defaults, and a run's file, which has every field.

Every problem is reported at once, with the key's path.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cloister.bounds import shortened
from cloister.errors import RecipeError, UsageError
from cloister.fields import (
    LONGEST_KEY,
    field_types,
    owners,
    parse_assignment,
    read_section,
    takes_none,
)
from cloister.models.config import DEFAULT_BASE
from cloister.recipe.defaults import with_task_defaults
from cloister.recipe.document import FORMAT, LAST_FORMAT, OLD_MACHINE, as_begun
from cloister.recipe.head_defaults import with_head_defaults
from cloister.recipe.quickstart import quickstart_tables
from cloister.recipe.rules import study_problems
from cloister.recipe.schema import DEFAULT_SHA256, SECTIONS, Recipe
from cloister.recipe.strategy_rules import strategy_problems
from cloister.recipe.votes_config import VotesConfig
from cloister.strategies.config import FIELDS, PluginStrategy, StrategyConfig
from cloister.strategies.plugins import carried_plugin, is_plugin, read_plugin
from cloister.tasks.plugins import read_task
from cloister.toml_text import parse_toml, read_toml
from cloister.training.config import TrainingConfig
from cloister.training.machine import MachineConfig

KINDS: dict[str, type] = {
    **{name: kind for name, kind in typing.get_type_hints(Recipe).items() if name in SECTIONS},
    "strategy": StrategyConfig,
}
# Fields that moved from `[training]` to `[machine]`.
MOVED = tuple(f.name for f in dataclasses.fields(TrainingConfig) if f.metadata.get("elsewhere"))
# The note for a recipe's file that names no training data.
STAND_IN = (
    "data.train: missing; built-in synthetic records are used. Give your own with "
    "--set data.train=… and --set data.test=…"
)

# What is said of `[votes]` in a recipe that a user wrote for training.
VOTES_ELSEWHERE = (
    "a study of votes trains nothing: plan it by cloister plan FILE, run it by cloister synthesize "
    "--votes FILE, or at connected sites by cloister run start FILE"
)

Tables = dict[str, object]


def read_recipe(path: Path | None, assignments: Iterable[str] = ()) -> Recipe:
    """Reads a recipe's file and the command line's changes to it.

    Args:
        path: A TOML file; None: the quickstart, or the defaults if the changes describe another
            study (`cloister.recipe.quickstart`).
        assignments: `section.key=value` each; later ones replace earlier ones.

    Raises:
        BadFileError: The file is missing or not valid TOML.
        RecipeError: Fields are invalid; all problems at once.
    """
    assignments = tuple(assignments)
    if path is None:
        return _read(quickstart_tables(assignments), assignments)
    tables = read_toml(path, "give the recipe's file")
    recipe = _read(tables, assignments)
    data = tables.get("data", {})
    if not isinstance(data, dict) or "train" in data:
        return recipe
    return dataclasses.replace(recipe, notes=(*recipe.notes, STAND_IN), has_stand_in=True)


def parse_recipe(text: str, assignments: Iterable[str] = ()) -> Recipe:
    """Reads a recipe from TOML text; see `read_recipe`.

    Raises:
        tomllib.TOMLDecodeError: The text is not valid TOML.
        RecipeError: Fields are invalid; all problems at once.
    """
    return _read(parse_toml(text), assignments)


def read_tables(tables: Mapping[str, object], votes: VotesConfig | None = None) -> Recipe:
    """Reads a recipe from its sections; see `read_recipe`.

    Args:
        tables: By section, each a table of fields; None: the field is absent.
        votes: The section `[votes]`, of a study of votes only.

    Raises:
        RecipeError: Fields are invalid; all problems at once.
    """
    return _read(dict(tables), (), votes=votes)


def read_run_recipe(path: Path) -> Recipe:
    """Reads a run's `recipe.toml`; no default of this version is filled in.

    A file of an earlier format, or without `format`, was written by a version with another digest
    and other meanings of fields; the run keeps both.

    Raises:
        BadFileError: The file is missing or not valid TOML.
        RecipeError: A field is missing or invalid.
    """
    tables = read_toml(path, "give the folder of a run")
    folder = path.resolve().parent
    if "format" in tables:
        found = _read(tables, (), is_whole=True, imports=False)
        return dataclasses.replace(found, run_folder=folder)
    training = tables.get("training")
    given = training if isinstance(training, dict) else {}
    problems: list[str] = []
    stated = {name: given.get(name, getattr(OLD_MACHINE, name)) for name in MOVED}
    begun = read_section(MachineConfig, stated, "training", problems)
    if problems:
        raise RecipeError(problems)
    found = _read(_begun(tables), (), imports=False)
    return dataclasses.replace(found, begun=begun, notes=(), run_folder=folder)


def validated(recipe: Recipe) -> Recipe:
    """Checks a recipe that was made in Python against the rules that cross sections.

    Raises:
        RecipeError: Its sections contradict each other.
    """
    return _validated(recipe)


def _validated(recipe: Recipe, is_begun: bool = False) -> Recipe:
    problems = study_problems(recipe)
    if not (is_begun and isinstance(recipe.strategy, PluginStrategy)):
        problems += strategy_problems(recipe)
    if problems:
        raise RecipeError(problems)
    return recipe


def _read(
    tables: Tables,
    assignments: Iterable[str],
    *,
    is_whole: bool = False,
    imports: bool = True,
    votes: VotesConfig | None = None,
) -> Recipe:
    """Reads a recipe; `imports`: whether it is the user's own, so that it may import plug-ins."""
    problems: list[str] = []
    for assignment in assignments:
        _assign(tables, assignment, problems)
    version = tables.pop("format", FORMAT)
    if version not in (FORMAT, LAST_FORMAT) or isinstance(version, bool):
        problems.append(
            f"format: a recipe of another version; this version reads format {FORMAT}: run it with "
            "the version that wrote it, or remove the line `format` and check every field"
        )
    _take_absent(tables, problems)
    is_begun = is_whole and version == LAST_FORMAT
    if is_begun:
        tables = _begun(tables)
    notes = _take_moved(tables, problems)
    stated = tables
    if not is_whole:
        tables = with_task_defaults(tables)
    sections = read_sections(tables, problems, is_whole=is_whole, imports=imports)
    if problems:
        raise RecipeError(problems)
    written = LAST_FORMAT if is_begun else FORMAT
    if votes is not None:
        sections["votes"] = votes
    recipe = Recipe(**sections, format=written, notes=notes)
    if imports and not is_whole and recipe.votes is None:  # a user's own, not a run's of any format
        recipe = with_head_defaults(recipe, stated)
    return _validated(recipe, is_begun=not imports)


def _begun(tables: Tables) -> Tables:
    """Converts a run's tables of a format before 3 to today's fields."""
    model = tables.get("model", {})
    return {**tables, "model": as_begun(model)} if isinstance(model, dict) else tables


def read_sections(
    tables: Mapping[str, object], problems: list[str], *, is_whole: bool, imports: bool
) -> dict[str, Any]:
    """Reads every section of a table of sections.

    Args:
        tables: The fields by section.
        problems: Gets one line for each problem.
        is_whole: Whether every section and field is required.
        imports: Whether plug-ins that it names may be imported.
    """
    if is_whole:
        problems += [f"{name}: missing" for name in KINDS if name not in tables]
    sections: dict[str, Any] = {}
    for name, table in tables.items():
        if name not in KINDS and not (name == "votes" and is_whole):
            meant = owners(name[:LONGEST_KEY], KINDS)
            hint = (
                f"it is a key, not a section: {' or '.join(meant)}"
                if meant
                else f"known: {', '.join(KINDS)}"
            )
            hint = VOTES_ELSEWHERE if name == "votes" else hint
            problems.append(f"{shortened(name)[1:-1]}: unknown section; {hint}")
        elif not isinstance(table, dict):
            problems.append(f"{name}: {shortened(table)} given; a section [{name}] is needed")
        elif name == "votes":
            sections[name] = read_section(VotesConfig, table, name, problems, is_whole=True)
        elif name == "strategy":
            sections[name] = _strategy(table, problems, is_whole, imports)
        elif name == "task":
            sections[name] = read_task(table, problems, is_whole=is_whole, imports=imports)
        else:
            if name == "model" and table.get("base", DEFAULT_BASE) == DEFAULT_BASE:
                table = {"sha256": DEFAULT_SHA256, **table}
            others = {other: kind for other, kind in KINDS.items() if other != name}
            sections[name] = read_section(
                KINDS[name], table, name, problems, is_whole=is_whole, others=others
            )
    return sections


def _strategy(
    table: Mapping[str, object], problems: list[str], is_whole: bool, imports: bool
) -> object:
    """Reads the strategy, which has only its own options.

    A plug-in is imported if a user's recipe names it, but not for a run's own file: that was
    checked when the run began, and its reader may not have the plug-in.
    """
    if imports and is_plugin(table.get("name")):
        return read_plugin(table, problems)
    if is_whole and "distribution" in table:
        return carried_plugin(table, problems)
    if is_whole:
        own = FIELDS.get(table.get("name"), frozenset())  # type: ignore[call-overload]
        missing = {"name", *own} - table.keys()
        problems += [f"strategy.{key}: missing" for key in sorted(missing)]
    return read_section(StrategyConfig, table, "strategy", problems)


def _assign(tables: Tables, assignment: str, problems: list[str]) -> None:
    try:
        section, key, value = parse_assignment(assignment, KINDS)
    except UsageError as error:
        problems.append(str(error))
        return
    table = tables.setdefault(section, {})
    if isinstance(table, dict):
        table[key] = value
    absent = tables.get("absent")
    if isinstance(absent, list):  # a run's recipe.toml that is used again with a change
        tables["absent"] = [name for name in absent if name != f"{section}.{key}"]


def _take_absent(tables: Tables, problems: list[str]) -> None:
    """Sets the fields that `absent` lists to no value, in spite of their defaults."""
    absent = tables.pop("absent", [])
    if not isinstance(absent, list) or not all(isinstance(name, str) for name in absent):
        problems.append('absent: a list of fields is needed, as in ["data.person"]')
        return
    kinds = {**KINDS, "votes": VotesConfig}
    for name in absent:
        section, _, key = name.partition(".")
        hint = field_types(kinds[section]).get(key) if section in kinds else None
        table = tables.setdefault(section, {}) if hint is not None else None
        if hint is None or not takes_none(hint):
            problems.append(f"absent: {shortened(name)} is not a field that may be absent")
        elif isinstance(table, dict) and key in table:
            problems.append(f"{name}: listed in `absent`, but also given; remove one of them")
        elif isinstance(table, dict):
            table[key] = None


def _take_moved(tables: Tables, problems: list[str]) -> tuple[str, ...]:
    """Moves the machine's fields out of `[training]`; returns a note for each."""
    training, machine = tables.get("training"), tables.get("machine", {})
    if not isinstance(training, dict) or not isinstance(machine, dict):
        return ()
    moved = [name for name in MOVED if name in training]
    for name in moved:
        if name in machine:
            problems.append(f"training.{name}: also given in [machine]; remove it from [training]")
        machine = {**machine, name: training[name]}
    if moved:
        tables["training"] = {k: v for k, v in training.items() if k not in MOVED}
        tables["machine"] = machine
    return tuple(
        f"training.{name}: is a field of [machine] now, not of the study; it was read as "
        f"machine.{name}: move it there"
        for name in moved
    )
