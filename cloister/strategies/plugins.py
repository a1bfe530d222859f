"""Makes strategies of other packages, from a recipe's table or a Python object.

A strategy gets released payloads alone and returns the next adapter. That is post-processing and
costs no ε. It runs at the coordinator; sites carry its name, version and options unread.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from cloister.canonical import canonical
from cloister.errors import UsageError
from cloister.fields import check_bounds, read_section
from cloister.plugins import Origin, is_installed, load, origin, path_of, said, source_version
from cloister.strategies.config import PluginStrategy
from cloister.strategies.guard import guarded
from cloister.strategies.registry import BUILT_IN
from cloister.strategies.strategy import Strategy, Traits

GROUP = "cloister.strategies"
KEY = "strategy.name"
# Keys of `[strategy]` that are never a plug-in's options.
RESERVED = frozenset({"name", "distribution", "version", "weights"})


def is_plugin(name: object) -> bool:
    """Whether `strategy.name` is read as a plug-in's name; nothing is imported."""
    if not isinstance(name, str):
        return False
    if name in BUILT_IN:
        return BUILT_IN[name].fields is None
    return is_installed(name, GROUP)


def carried_plugin(table: Mapping[str, object], problems: list[str]) -> PluginStrategy | None:
    """A plug-in's section as a run's `recipe.toml` states it; nothing is imported.

    Args:
        table: The `[strategy]` table with every value.
        problems: Gets one line for each thing wrong.
    """
    missing = [key for key in ("distribution", "version") if key not in table]
    problems += [f"strategy.{key}: missing" for key in missing]
    if missing:
        return None
    try:
        options = canonical({k: v for k, v in table.items() if k not in RESERVED}).decode()
    except (TypeError, ValueError):
        problems.append(
            "strategy: an option has an unknown type; give numbers, text or lists of them"
        )
        return None
    stated = {key: table[key] for key in RESERVED if key in table}
    return read_section(PluginStrategy, {**stated, "options": options}, "strategy", problems)


def read_plugin(table: Mapping[str, object], problems: list[str]) -> PluginStrategy | None:
    """A plug-in's section from a user's own recipe: imports the plug-in, checks and completes its
    options.

    Args:
        table: The `[strategy]` table.
        problems: Gets one line for each thing wrong.
    """
    try:
        name = str(table["name"])
        found = _find(name)
        kind = load(found.path, KEY)
        stated = _stated(name, found, kind)
        _same_version(stated, table)
        section = _with_options(stated, kind, table, problems)
        if section is not None:
            make_plugin(section, {})
    except UsageError as error:
        problems.append(str(error))
        return None
    return section


def named(strategy: Strategy | type[Strategy]) -> PluginStrategy:
    """The recipe section for a strategy that was made in Python.

    Args:
        strategy: A class, or an object of one. The fields of a dataclass are its options. A class
            of a script or notebook gets a name that only this process can use.

    Raises:
        UsageError: It has state that a recipe cannot hold, or it is not a strategy.
    """
    kind = strategy if isinstance(strategy, type) else type(strategy)
    path = path_of(kind, KEY)
    made = _construct(path, kind, {}) if isinstance(strategy, type) else strategy
    if not dataclasses.is_dataclass(kind) and getattr(made, "__dict__", None):
        raise UsageError(
            f"{KEY}: {path} has attributes that are not dataclass fields, so a recipe cannot "
            "hold them; make the class a dataclass"
        )
    section = _stated(path, _find(path), kind)
    section = dataclasses.replace(section, options=_options(path, made))
    make_plugin(section, {})
    return section


def make_plugin(section: PluginStrategy, weights: Mapping[str, float]) -> Strategy:
    """Makes the strategy of a section, with every call checked (`strategies.guard`).

    Args:
        section: From `read_plugin` or `carried_plugin`.
        weights: Declared weights by site.

    Raises:
        UsageError: It is not installed here in the version that the recipe states, or is not a
            strategy.
    """
    found = _find(section.name)
    kind = load(found.path, KEY)
    _same_version(_stated(section.name, found, kind), section.table())
    problems: list[str] = []
    options = {k: v for k, v in section.table().items() if k not in RESERVED}
    made = _made(section.name, kind, options, problems)
    if problems:
        raise UsageError("\n".join(problems))
    traits = _traits(section.name, made)
    if section.weights and not traits.takes_weights:
        raise UsageError(f"strategy.weights: {section.name} takes no weights; leave them out")
    return guarded(section.name, made, traits, weights)


def _find(name: str) -> Origin:
    if name in BUILT_IN:
        kind: Any = BUILT_IN[name].make
        return Origin(f"{kind.__module__}:{kind.__name__}")
    return origin(name, GROUP, KEY)


def _stated(name: str, found: Origin, kind: type) -> PluginStrategy:
    """Name, package and version; a built-in strategy has no version but the recipe's format."""
    version = found.version if found.distribution or name in BUILT_IN else source_version(kind)
    return PluginStrategy(name=name, distribution=found.distribution, version=version)


def _same_version(here: PluginStrategy, table: Mapping[str, object]) -> None:
    for key in ("distribution", "version"):
        wanted, has = table.get(key, getattr(here, key)), getattr(here, key)
        if wanted != has:
            raise UsageError(
                f"strategy.{key}: the recipe was written with {wanted or 'none'} of {here.name}, "
                f"here is {has or 'none'}; install that one, or take strategy.distribution and "
                "strategy.version out and start a new run"
            )


def _with_options(
    stated: PluginStrategy, kind: type, table: Mapping[str, object], problems: list[str]
) -> PluginStrategy | None:
    """The section with each option's value."""
    given = {key: value for key, value in table.items() if key not in RESERVED}
    made = _made(stated.name, kind, given, problems)
    if problems:
        return None
    whole = {
        **{key: getattr(stated, key) for key in ("name", "distribution", "version")},
        **({"weights": table["weights"]} if table.get("weights") else {}),
        "options": _options(stated.name, made),
    }
    return read_section(PluginStrategy, whole, "strategy", problems)


def _made(name: str, kind: type, given: Mapping[str, object], problems: list[str]) -> Any:
    """An object of the class with these options; None where something is wrong."""
    if dataclasses.is_dataclass(kind):
        reserved = sorted(RESERVED & {field.name for field in dataclasses.fields(kind)})
        if reserved:
            raise UsageError(f"strategy: a field of {name} is called {reserved[0]}; rename it")
        try:
            return read_section(kind, given, "strategy", problems)
        except (Exception, SystemExit) as error:
            raise UsageError(f"{KEY}: {name} cannot be made: {said(error)}") from error
    problems += [f"strategy.{key}: unknown key; {name} has no options" for key in given]
    return None if problems else _construct(name, kind, {})


def _construct(name: str, kind: type, options: Mapping[str, object]) -> Any:
    try:
        return kind(**options)
    except (Exception, SystemExit) as error:
        raise UsageError(f"{KEY}: {name} cannot be made: {said(error)}") from error


def _options(name: str, made: object) -> str:
    """Canonical JSON of an object's options; absent ones are left out, as TOML has no null.

    Raises:
        UsageError: An option is not a number, text, truth value or list of these.
    """
    if not dataclasses.is_dataclass(made):
        return "{}"
    values = {f.name: getattr(made, f.name) for f in dataclasses.fields(made) if f.init}
    absent = [f.name for f in dataclasses.fields(made) if values.get(f.name, 0) is None]
    if any(f.name in absent and f.default is not None for f in dataclasses.fields(made)):
        raise UsageError(
            f"strategy.{absent[0]}: None given; only a field whose default is None may be None"
        )
    try:
        return canonical({k: v for k, v in values.items() if v is not None}).decode()
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{KEY}: an option of {name} is not a number, text or list: {error}"
        ) from error


def _traits(name: str, made: Any) -> Traits:
    """The declared traits, checked."""
    for needed in ("init", "aggregate"):
        if not callable(getattr(made, needed, None)):
            raise UsageError(
                f"{KEY}: {name} has no method {needed}; derive it from "
                "cloister.strategies.strategy.Strategy"
            )
    traits = getattr(made, "traits", None)
    if not isinstance(traits, Traits):
        raise UsageError(f"{KEY}: traits of {name} are {type(traits).__name__}; Traits are needed")
    try:
        check_bounds(traits)
    except UsageError as error:
        raise UsageError(f"{KEY}: traits of {name}: {error}") from None
    if traits.takes_weights and not traits.is_linear:
        raise UsageError(
            f"{KEY}: traits of {name}: takes_weights is for linear strategies, whose mean is "
            "weighted for them; give constants as options of its own"
        )
    if traits.is_linear and hasattr(made, "left_out"):
        raise UsageError(
            f"{KEY}: traits of {name}: a linear strategy is given means and cannot leave updates "
            "out; take is_linear or left_out away"
        )
    return traits
