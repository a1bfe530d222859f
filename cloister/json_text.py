"""Parses JSON that another party wrote: bounded before it is parsed, and with one meaning only.

`json` accepts numbers of thousands of digits, NaN, lone surrogates and duplicate names in an
object, recurses as deep as a text nests, and needs thirty times the memory of a text such as
`[],[],[],…`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from cloister.bounds import LARGEST_INTEGER

# Deepest nesting: a certificate has depth 5 (terms of sharing in a plan in a row in a list); this
# is twice that and some.
MOST_DEPTH = 12
# Most values and containers of a document: 100 bytes each in Python, 20 MB in all. A message of
# 10,000 sites in one table has 20,000.
MOST_VALUES = 200_000
# Most characters of a 64-bit integer, with its sign.
_DIGITS = len(str(LARGEST_INTEGER)) + 1
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)


def read_json(
    content: bytes | str,
    *,
    most_bytes: int,
    most_depth: int = MOST_DEPTH,
    most_values: int = MOST_VALUES,
) -> Any:
    """Parses JSON that another party wrote, within bounds.

    Args:
        content: UTF-8, or text.
        most_bytes: Largest size in bytes.
        most_depth: Deepest nesting of lists and objects.
        most_values: About the largest number of values, lists and objects.

    Raises:
        ValueError: It is not JSON or not UTF-8, too long, too deep or has too many values; or it
            has a duplicate name in an object, NaN, an infinity, an integer of more than 64 bits, or
            half of a surrogate pair. The message is one short line.

    Guarantees:
        Time and memory are bounded by `most_bytes` and `most_values`, for any content.
    """
    if len(content) > most_bytes:
        raise ValueError(f"more than {most_bytes} bytes")
    text = content if isinstance(content, str) else content.decode("utf-8")
    _look_over(text, most_depth, most_values)
    try:
        value = json.loads(
            text,
            object_pairs_hook=each_once,
            parse_constant=_refused,
            parse_float=_finite,
            parse_int=_whole,
        )
    except RecursionError as error:
        raise ValueError("lists and objects too deep") from error
    if isinstance(content, str) or "\\u" in text:
        _check_text(value)
    return value


def each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Builds an object; refuses duplicate names, because readers could use either value.

    Raises:
        ValueError: A name is duplicate.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate name in an object")
    return found


def _look_over(text: str, most_depth: int, most_values: int) -> None:
    """Refuses, in one pass, a text that would need too much time or memory to parse."""
    depth = values = 0
    for match in _TOKEN.finditer(text):
        token = match.group()
        opens = token in ("[", "{")
        values += opens or token == ","
        depth += opens - (token in ("]", "}"))
        if depth > most_depth:
            raise ValueError(f"lists and objects over {most_depth} deep")
        if values > most_values:
            raise ValueError(f"over {most_values} values")


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number that is too large")
    return value


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS or not -LARGEST_INTEGER - 1 <= (value := int(digits)) <= (
        LARGEST_INTEGER
    ):
        raise ValueError("a whole number of more than 64 bits")
    return value


def _check_text(value: Any) -> None:
    """Refuses lone surrogates, which have no bytes, at any depth."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError("half of a surrogate pair") from error
    elif isinstance(value, list):
        for item in value:
            _check_text(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_text(name)
            _check_text(item)
