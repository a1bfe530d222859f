"""JSON that another party wrote into values: bounded before it is parsed, and one reading only.

`json` takes numbers of thousands of digits, NaN, halves of surrogate pairs and a name twice in one
object, recurses as deep as a text says, and makes thirty times a text's bytes of `[],[],[],…`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from cloister.bounds import LARGEST_INTEGER

# Our deepest document is a certificate: its terms of sharing are a table in a plan's in a row in a
# list, depth 5. Twice that and some.
MOST_DEPTH = 12
# Values and containers of a document; 100 bytes each in Python, 20 MB in all. A message of 10,000
# sites in one table has 20,000.
MOST_VALUES = 200_000
# Digits of a whole number of 64 bits, with its sign.
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
        most_bytes: Longest that it may be.
        most_depth: Of lists and objects in each other.
        most_values: Values, lists and objects in all, about.

    Raises:
        ValueError: It is not JSON or not UTF-8, too long, too deep or of too many values; or it has
            a name twice in one object, NaN, an infinity, a whole number of more than 64 bits, or
            half of a surrogate pair. The message is one short line.

    Guarantees:
        Time and memory grow with `most_bytes` and `most_values`, whatever the content is.
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
    """Builds an object; refuses duplicate names, of which readers could take either.

    Raises:
        ValueError: One does.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice in one object")
    return found


def _look_over(text: str, most_depth: int, most_values: int) -> None:
    """Refuses what would take too much to parse, in one pass."""
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
        raise ValueError("a number beyond the largest")
    return value


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS or not -LARGEST_INTEGER - 1 <= (value := int(digits)) <= (
        LARGEST_INTEGER
    ):
        raise ValueError("a whole number of more than 64 bits")
    return value


def _check_text(value: Any) -> None:
    """Refuses halves of surrogate pairs, which have no bytes; as deep as was allowed."""
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
