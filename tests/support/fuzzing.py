"""Helpers of all fuzzers: hostile bytes and values, and the rules for a parser.

A parser of another party's bytes returns a value, or raises one CloisterError with a message of
bounded length and without control characters; in both cases it uses bounded memory.
"""

import json
import math
import os
import tracemalloc
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from cloister.errors import CloisterError
from cloister.printable import printable
from tests.support.examples import tries

# Examples a test: few in `make test`, and as many as are asked for in `python -m tests.fuzz`.
settings.register_profile("quick", max_examples=tries(40))
settings.register_profile("fuzz", max_examples=int(os.environ.get("FUZZ_EXAMPLES", "2000")))
_PROFILE = settings.get_profile(
    "fuzz" if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else "quick"
)
fuzz = settings(
    _PROFILE,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

# For what takes a tenth of a second: ε is computed anew.
fuzz_slow = settings(fuzz, max_examples=max(5, fuzz.max_examples // 8))

# Characters of a message: `cli.streams.MOST_SHOWN`, and room for a folder's name.
LONGEST_MESSAGE = 5_000
# Bytes that a parser may take beside a hundred times its input: caches, and a policy's sections.
SPARE = 32 * 2**20
# Where ε is computed anew: a privacy loss distribution on its finest grid, and its transforms.
SPARE_OF_PLD = 256 * 2**20
# Examples that were tried in this process, for the runner's figures.
tried = 0


def must_read(read: Callable[[], object], size: int = 0, *, spare: int = SPARE) -> object:
    """Calls a parser; returns its value, or None if it refused correctly.

    Args:
        read: Calls it.
        size: Bytes of its input.
        spare: Bytes that it may take whatever its input is.
    """
    global tried
    tried += 1
    tracemalloc.start()
    try:
        found = read()
    except CloisterError as error:
        found, text = None, str(error)
        assert text
        assert len(text) <= LONGEST_MESSAGE, f"{len(text)} characters"
        assert printable(text) == text, ascii(text)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak <= spare + 100 * size, f"{peak} bytes for {size}"
    return found


def must_account(read: Callable[[], object], size: int = 0) -> object:
    """Does the same as `must_read`, for parsers that compute ε."""
    return must_read(read, size, spare=SPARE_OF_PLD)


# Pieces that stand where a parser does not look for them.
PIECES = [
    b"",
    b"\x00",
    b"\xff\xfe",
    b"\x1b[31m",
    b"\r",
    b"NaN",
    b"Infinity",
    b"1e999",
    b"9" * 5000,
    b"-",
    b"null",
    b"true",
    b'"',
    b"\\",
    b'"\\ud800"',
    b"\\u202e",
    b"[" * 3000,
    b'{"a":' * 3000,
    b"[],[]," * 500,
    b"\n" * 200,
    "\u202e".encode(),
    b"{}",
    b"[[",
    b"}}",
    b"=",
    b"#",
]


@st.composite
def mutated(draw: st.DrawFn, whole: bytes) -> bytes:
    """Draws bytes that differ a little from valid ones: cut, doubled, overwritten or extended."""
    found = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(found)))
        to = min(len(found), at + draw(st.sampled_from([0, 1, 2, 8, 64, 4096])))
        match draw(st.sampled_from(["put", "cut", "flip", "double", "end"])):
            case "put":
                found[at:to] = draw(st.sampled_from(PIECES) | st.binary(max_size=20))
            case "cut":
                del found[at:to]
            case "flip" if at < len(found):
                found[at] ^= draw(st.integers(1, 255))
            case "double":
                found[at:at] = found[at:to] * draw(st.integers(1, 50))
            case "end":
                del found[at:]
    return bytes(found)


def hostile_bytes(whole: bytes) -> st.SearchStrategy[bytes]:
    """Draws bytes of any kind; most of them differ only a little from valid ones."""
    return st.one_of(
        mutated(whole),
        mutated(whole),
        st.binary(max_size=300),
        st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join),
    )


def _nested(kind: str) -> object:
    value: object = 1
    for _ in range(900):  # `json.dumps` recurses, too
        value = [value] if kind == "list" else {"a": value}
    return value


# Values of every kind that JSON has, and some that it takes although it should not.
ODD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2**63,
    -(2**63),
    2**64,
    10**400,
    0.0,
    -0.0,
    5e-324,
    0.5,
    1e308,
    math.inf,
    -math.inf,
    math.nan,
    "",
    "a",
    "\x1b[2J",
    "a\nb",
    "\u202etxt",
    "\ud800",
    "\x00",
    "x" * 70_000,
    "é" * 300,
    "../../etc/passwd",
    "/dev/zero",
    "0" * 64,
    "f" * 64,
    "zz",
    "2027-01-01T00:00:00+00:00",
    [],
    {},
    [[]],
    [1] * 3000,
    [None],
    {"": {}},
    {"a": 1},
    [["a", [1]]],
    _nested("list"),
    _nested("dict"),
]
odd = (
    st.sampled_from(ODD)
    | st.text(max_size=20)
    | st.integers()
    | st.floats()
    | st.binary(max_size=8).map(lambda value: value.hex())
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for name, item in value.items():
            found += _places(item, (*path, name))
    elif isinstance(value, list):
        for number, item in enumerate(value[:20]):
            found += _places(item, (*path, number))
    return found


@st.composite
def reshaped(draw: st.DrawFn, document: Any) -> Any:
    """Draws a valid structure with some values replaced, removed or added."""
    found = deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = [place for place in _places(found) if place]
        if not places:
            return draw(odd)
        place = draw(st.sampled_from(places))
        parent = found
        for step in place[:-1]:
            parent = parent[step]
        match draw(st.sampled_from(["set", "set", "set", "drop", "add", "swap"])):
            case "set":
                parent[place[-1]] = deepcopy(draw(odd))
            case "drop":
                del parent[place[-1]]
            case "add" if isinstance(parent, dict):
                name = draw(st.sampled_from(["", "more", "\x1b[1m", "a" * 5000]))
                parent[name] = deepcopy(draw(odd))
            case "add":
                parent.append(deepcopy(draw(odd)))
            case "swap":
                other = draw(st.sampled_from(places))
                value = found
                try:
                    for step in other:
                        value = value[step]
                    parent[place[-1]] = deepcopy(value)
                except (KeyError, IndexError, TypeError):
                    continue
    return found


def as_json(value: Any) -> bytes:
    """Writes JSON without any rule: NaN, infinities and lone surrogates are allowed."""
    return json.dumps(value).encode()


def canonical_or_json(value: Any) -> bytes:
    """Writes canonical JSON if possible, so that a parser gets as far as the content."""
    try:
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
        ).encode()
    except ValueError:
        return as_json(value)
