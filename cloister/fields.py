"""Tables read from TOML into frozen dataclasses, with every problem reported at once."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import tomllib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from cloister.errors import UsageError

Section = TypeVar("Section")


def read_section(
    kind: type[Section], table: Mapping[str, object], path: str, problems: list[str]
) -> Section | None:
    """Makes a section's dataclass from its table.

    Args:
        kind: A frozen keyword-only dataclass whose `__post_init__` raises UsageError on values
            that cannot be meant.
        table: Values by key.
        path: The section's name, for messages.
        problems: Gets one line for each thing wrong.

    Returns:
        The section, or None where something is wrong.
    """
    hints = typing.get_type_hints(kind)
    found = len(problems)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(hints)}"
            problems.append(f"{path}.{key}: unknown key{hint}")
            continue
        try:
            values[key] = _convert(value, hints[key])
        except TypeError as error:
            problems.append(f"{path}.{key}: {value!r} given; {error} needed")
    if len(problems) > found:
        return None
    try:
        return kind(**values)
    except UsageError as error:
        problems.append(f"{path}.{error}")
        return None


def parse_assignment(text: str) -> tuple[str, str, object]:
    """Reads `section.key=value`; the value is TOML, or else a bare string.

    Raises:
        UsageError: The text is not of that form.
    """
    target, equals, raw = text.partition("=")
    section, dot, key = target.strip().partition(".")
    if not equals or not dot or not section or not key:
        raise UsageError(f"--set {text}: section.key=value is needed, as in training.local_steps=2")
    try:
        value: object = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    return section, key, value


def as_table(section: object) -> dict[str, object]:
    """A section's values as TOML and JSON know them; absent ones are left out."""
    table: dict[str, object] = {}
    for field in dataclasses.fields(section):  # type: ignore[arg-type]
        value = getattr(section, field.name)
        if value is None:
            continue
        if isinstance(value, enum.Enum):
            value = value.value
        table[field.name] = list(value) if isinstance(value, tuple) else value
    return table


def _convert(value: object, hint: Any) -> object:
    """The value as the hint's type; a TypeError says in words what is needed."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, [a for a in arguments if a is not type(None)])
    if origin is Literal:
        if value in arguments and isinstance(value, type(arguments[0])):
            return value
        raise TypeError(" or ".join(f'"{a}"' for a in arguments))
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError(f"a list of {_name(arguments[0])}")
        return tuple(_convert(item, arguments[0]) for item in value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        if value in {member.value for member in hint}:
            return hint(value)
        raise TypeError(" or ".join(f'"{member.value}"' for member in hint))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is hint:
        return value
    raise TypeError(_name(hint))


def _convert_union(value: object, members: list[Any]) -> object:
    needs = []
    for member in members:
        try:
            return _convert(value, member)
        except TypeError as error:
            needs.append(str(error))
    raise TypeError(" or ".join(needs))


def _name(hint: Any) -> str:
    names = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
    return names.get(hint, str(hint))
