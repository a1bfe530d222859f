"""Reads tables from TOML or JSON into frozen dataclasses, and reports every problem at once.

A field's bounds are written beside its type (`Annotated[int, Between(1, 9)]`, see
`cloister.bounds`).
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import enum
import sys
import tomllib
import types
import typing
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar

from cloister.bounds import Bound, ByName, Items, shortened
from cloister.errors import UsageError
from cloister.toml_text import parse_toml

Section = TypeVar("Section")

# Longest key that a message repeats or finds a similar one for; the longest field has 22 letters.
LONGEST_KEY = 64
# Metadata key of a field: its names in other programs, in lower case.
SYNONYMS = "synonyms"
# Metadata of a field that the machine's own file sets, so that it is not a key of its section.
ELSEWHERE = {"elsewhere": True}
# Metadata of a field that was added after documents had been written without it: a table names it
# only if it has a value, so that the digest of a study that does not use it does not change.
LATER = {"later": True}


def called(synonyms: str) -> dict[str, str]:
    """Returns metadata of a field: its names in other programs.

    Args:
        synonyms: Names in lower case, separated by blanks; for messages only, not valid in a file.
    """
    return {SYNONYMS: synonyms}


class _UnfitError(Exception):
    """A value that a field cannot have: what was given, what is needed, and where in it."""

    def __init__(self, value: object, needed: str, place: str = "") -> None:
        self.value, self.given, self.needed, self.place = value, shortened(value), needed, place
        super().__init__(needed)


def read_section(
    kind: type[Section],
    table: Mapping[str, object],
    path: str,
    problems: list[str],
    *,
    is_whole: bool = False,
    others: Mapping[str, type] | None = None,
) -> Section | None:
    """Makes a section's dataclass from its table of values.

    Args:
        kind: A frozen keyword-only dataclass whose `__post_init__` raises UsageError on values
            that are invalid.
        table: Values by key; None (JSON's null): absent.
        path: The section's name, for messages.
        problems: Gets one line for each problem.
        is_whole: Whether every field is required, so that no default is filled in.
        others: The file's other sections by name, so that a message can name the section of an
            unknown key.

    Returns:
        The section; None: something is wrong.
    """
    hints = field_types(kind)
    found = len(problems)
    values: dict[str, Any] = {}
    if is_whole:
        later = later_fields(kind)
        problems += [f"{path}.{key}: missing" for key in hints if key not in {*table, *later}]
    for key, value in table.items():
        if key not in hints:
            problems.append(
                f"{path}.{shortened(key)[1:-1]}: unknown key{_near(key, kind, others or {})}"
            )
            continue
        try:
            absent = value is None and takes_none(hints[key])  # TOML itself has no None
            values[key] = None if absent else _convert(python_value(value), hints[key])
        except _UnfitError as error:
            problems.append(
                f"{path}.{key}: {error.given} given{error.place}; {error.needed} needed"
            )
    if len(problems) > found:
        return None
    try:
        return kind(**values)
    except UsageError as error:
        problems.append(f"{path}.{error}")
        return None


def check_bounds(section: object) -> None:
    """Checks a section that was made in Python against the types and bounds of its fields.

    NumPy's numbers in it become Python's, so that a loop over `numpy.linspace` can make sections.

    Raises:
        UsageError: A value is not valid; the message begins with the field's name.
    """
    for key, hint in field_types(type(section), everywhere=True).items():
        value = getattr(section, key)
        if value is None and takes_none(hint):
            continue
        if (given := python_value(value)) is not value:
            value = given
            object.__setattr__(section, key, value)  # sections are frozen
        try:
            converted = _convert(value, hint)
        except _UnfitError as error:
            raise UsageError(
                f"{key}: {error.given} given{error.place}; {error.needed} needed"
            ) from None
        if isinstance(value, dict):  # sections are hashable values
            object.__setattr__(section, key, converted)


def python_value(value: object) -> object:
    """Converts a number or array of NumPy to Python; returns any other value unchanged."""
    numpy = sys.modules.get("numpy")  # a NumPy value exists only if it is loaded
    if numpy is not None and isinstance(value, numpy.generic | numpy.ndarray):
        found: object = value.tolist()
        return found
    return value


def field_types(kind: type, *, everywhere: bool = False) -> dict[str, Any]:
    """Returns the types of a section's keys, with their bounds.

    Args:
        kind: The section's dataclass.
        everywhere: Whether to include fields that are set elsewhere.
    """
    hints = _hints_of(kind)
    return {
        field.name: hints[field.name]
        for field in dataclasses.fields(kind)
        if everywhere or not field.metadata.get("elsewhere")
    }


# Cached: evaluating a class's annotations each time took a fifth of the time of a site's answer.
@lru_cache(maxsize=512)
def _hints_of(kind: type) -> Mapping[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def takes_none(hint: Any) -> bool:
    """Returns whether a field may be absent."""
    return type(None) in typing.get_args(hint)


def parse_assignment(
    text: str, sections: Mapping[str, type] | None = None
) -> tuple[str, str, object]:
    """Reads `section.key=value`; the value is TOML, or else a plain string.

    Args:
        text: The user's text.
        sections: The sections by name, so that a message can name the section of a bare key.

    Raises:
        UsageError: The text is not of that form.
    """
    target, equals, raw = text.partition("=")
    section, dot, key = target.strip().partition(".")
    if not equals or not dot or not section or not key:
        meant = owners(target.strip(), sections or {}) if equals and not dot else []
        if meant:
            raise UsageError(
                f"--set {shortened(text)[1:-1]}: the section is missing; "
                f"{' or '.join(f'{field}={shortened(raw)[1:-1]}' for field in meant)} is needed"
            )
        raise UsageError(
            f"--set {shortened(text)[1:-1]}: section.key=value is needed, as in "
            "training.local_steps=2"
        )
    try:
        found = parse_toml(f"value = {raw}")
    except tomllib.TOMLDecodeError:
        return section, key, raw
    if found.keys() != {"value"}:  # further lines would be read as more of the file
        raise UsageError(
            f"--set {shortened(text)[1:-1]}: {section}.{key} and more given; one field is needed, "
            "with a separate --set for each"
        )
    value = found["value"]
    return section, key, value


def as_table(section: object) -> dict[str, object]:
    """Returns a section's values as TOML and JSON have them, without absent ones."""
    return {key: value for key, value in whole_table(section).items() if value is not None}


def whole_table(section: object) -> dict[str, object]:
    """Returns a section's values for JSON, None for absent ones, without absent `LATER` ones."""
    table: dict[str, object] = {}
    later = later_fields(type(section))
    for key, hint in field_types(type(section)).items():
        value = getattr(section, key)
        if value is None and key in later:
            continue
        if isinstance(value, enum.Enum):
            value = value.value
        if value is not None and _is_by_name(hint):
            value = dict(value)
        table[key] = list(value) if isinstance(value, tuple) else value
    return table


def owners(key: str, sections: Mapping[str, type]) -> list[str]:
    """Returns the fields that a key without section may mean, as `section.key`.

    Args:
        key: The user's key.
        sections: Dataclasses by name.

    Returns:
        Fields of that name; if there is none, fields with that name in other programs.
    """
    same = [name for name, kind in sections.items() if key in _keys(kind)]
    if same:
        return [f"{name}.{key}" for name in same]
    named = {name: _synonyms(kind).get(key.lower()) for name, kind in sections.items()}
    return [f"{name}.{own}" for name, own in named.items() if own is not None]


@lru_cache(maxsize=64)  # a file may have thousands of unknown keys, each of which is searched for
def _keys(kind: type) -> tuple[str, ...]:
    """Returns a section's keys."""
    return tuple(field_types(kind))


def later_fields(kind: type) -> frozenset[str]:
    """Returns the fields of a section that a table names only if they have a value (`LATER`)."""
    return frozenset(f.name for f in dataclasses.fields(kind) if f.metadata.get("later"))


@lru_cache(maxsize=64)
def _synonyms(kind: type) -> dict[str, str]:
    """Returns a section's keys by their names in other programs."""
    return {
        synonym: field.name
        for field in dataclasses.fields(kind)
        for synonym in field.metadata.get(SYNONYMS, "").split()
    }


def _near(key: str, kind: type, others: Mapping[str, type]) -> str:
    """Returns what an unknown key may have meant, for the end of a message.

    A known synonym comes first, then a field of the same name in another section, then a name with
    a similar spelling, then a synonym of another section's field.
    """
    known = _keys(kind)
    synonym = _synonyms(kind).get(key.lower())
    if synonym is not None:
        return f"; did you mean {synonym}?"
    elsewhere = owners(key, others)
    if any(field.endswith(f".{key}") for field in elsewhere):
        return f"; it is a key of another section: {' or '.join(elsewhere)}"
    near = difflib.get_close_matches(key[:LONGEST_KEY].lower(), known, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    if elsewhere:
        return f"; did you mean {' or '.join(elsewhere)}?"
    return f"; known: {', '.join(known)}"


def _convert(value: object, hint: Any) -> object:
    """Converts a value to the hint's type, and checks its bounds.

    Raises:
        _UnfitError: The value does not fit.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _bounded(value, hint, arguments)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, [a for a in arguments if a is not type(None)])
    if origin is Literal:
        if any(type(value) is type(a) and value == a for a in arguments):
            return value
        raise _UnfitError(value, type_words(hint))
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _UnfitError(value, type_words(hint))
        return tuple(_item(item, arguments[0], number) for number, item in enumerate(value))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        if isinstance(value, str | hint) and value in {member.value for member in hint}:
            return hint(value)
        raise _UnfitError(value, type_words(hint))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise _UnfitError(value, type_words(hint)) from None
    if type(value) is hint:
        return value
    raise _UnfitError(value, type_words(hint))


def _bounded(value: object, hint: Any, arguments: tuple[Any, ...]) -> object:
    kind, bounds = arguments[0], [bound for bound in arguments[1:] if isinstance(bound, Bound)]
    if any(isinstance(bound, ByName) for bound in bounds):
        return _by_name(value, hint)
    for bound in bounds:  # checked before a long list is converted
        if isinstance(bound, Items) and isinstance(value, list | tuple) and not bound(value):
            raise _UnfitError(value, type_words(hint))
    try:
        converted = _convert(value, kind)
    except _UnfitError as error:
        if error.place:
            raise
        raise _UnfitError(value, type_words(hint)) from None
    if not all(bound(converted) for bound in bounds):
        raise _UnfitError(value, type_words(hint))
    return converted


def _is_by_name(hint: Any) -> bool:
    """Returns whether a field is a table of values by name; it may be absent."""
    hints = [hint, *typing.get_args(hint)]
    return any(isinstance(part, ByName) for one in hints for part in typing.get_args(one))


def _by_name(value: object, hint: Any) -> tuple[tuple[object, object], ...]:
    """Converts a table of values by name to pairs in order of the names."""
    kind, *bounds = typing.get_args(hint)
    value = dict(value) if isinstance(value, tuple) else value  # a section has pairs already
    if not isinstance(value, dict) or not all(bound(value) for bound in bounds):
        raise _UnfitError(value, type_words(hint))
    name_hint, value_hint = typing.get_args(typing.get_args(kind)[0])
    found = []
    for name, one in value.items():
        try:
            found.append((_convert(name, name_hint), _convert(one, value_hint)))
        except _UnfitError as error:
            raise _UnfitError(error.value, error.needed, f" for {shortened(name)}") from None
    return tuple(sorted(found, key=lambda pair: str(pair[0])))


def _item(value: object, hint: Any, number: int) -> object:
    try:
        return _convert(value, hint)
    except _UnfitError as error:
        raise _UnfitError(value, error.needed, f" as value {number + 1}") from None


def _convert_union(value: object, members: list[Any]) -> object:
    needs = []
    for member in members:
        try:
            return _convert(value, member)
        except _UnfitError as error:
            if error.place:  # the type is right, but a value in it is not
                raise
            needs.append(error.needed)
    raise _UnfitError(value, " or ".join(needs))


def type_words(hint: Any) -> str:
    """Returns a field's type with its bounds, in words, for messages and the recipe's reference."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated and _is_by_name(hint):
        inner = typing.get_args(typing.get_args(arguments[0])[0])[1]
        return f"a table of {type_words(inner)} {arguments[1]}"
    if origin is Annotated:
        return " ".join([type_words(arguments[0]), *(str(bound) for bound in arguments[1:])])
    if origin is Literal:
        return " or ".join(f'"{a}"' if isinstance(a, str) else str(a) for a in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_words(a) for a in arguments if a is not type(None))
    if origin is tuple:
        return f"a list of {type_words(arguments[0])}"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return " or ".join(f'"{member.value}"' for member in hint)
    names = {
        str: "a string",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        datetime.date: "a date without quotes, such as 2027-06-30,",
    }
    return names.get(hint, str(hint))
