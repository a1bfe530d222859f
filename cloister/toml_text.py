"""Parses TOML text into tables: every TOML file of cloister is read here.

`tomllib` needs quadratic time in the parts of a dotted key (20,000 parts took 20 s) and recurses
with nesting, so a linear pass bounds the structure of a text before it is parsed.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from cloister.errors import BadFileError
from cloister.files import why_no_file

# Largest file: four lists with one number for each of 10,000 sites need about 400 kB, a chat
# template at most 64 KiB, labels and paths the rest; this is twice that.
MOST_BYTES = 2**20
# Deepest nesting and most parts of a key: the deepest value is a list in a section (depth 1, a key
# of 2 parts); these are four times that.
MOST_DEPTH = 8
MOST_PARTS = 8
# Most keys and sections: a recipe has about 90 and 13; these are ten times that and more.
MOST_KEYS = 1000
MOST_BRACKETS = 1000
# Most commas: four lists of 10,000 sites, 5,000 labels and 1,000 modules have 46,000.
MOST_COMMAS = 50_000
# Longest key, number or date without quotes: a 64-bit float has at most 24 characters, the longest
# key 22. `tomllib`'s memory grows with the length of numbers.
LONGEST_WORD = 256

BOM = "\ufeff"

# Strings and comments as a whole, so that their content does not count, and structural characters.
# Possessive, and unclosed strings end at the line or file: each character is read once.
_TOKEN = re.compile(
    r'"""(?:[^"\\]++|\\.|"(?!""))*+(?:"{3,5}|\\?\Z)'
    r"|'''(?:[^']++|'(?!''))*+(?:'{3,5}|\Z)"
    r'|"(?:[^"\\\n]++|\\[^\n])*+(?:"|\\?)'
    r"|'[^'\n]*+'?"
    r"|#[^\n]*+"
    r"|[\[\]{}=,.]"
    rf"|[^\s\[\]{{}}=,.\"'#]{{{LONGEST_WORD + 1}}}"
    r"|\n\s*+",
    re.DOTALL,
)


def parse_toml(text: str) -> dict[str, object]:
    """Parses TOML, in time and memory proportional to the text's length.

    Args:
        text: With or without a byte order mark.

    Raises:
        tomllib.TOMLDecodeError: The text is not valid TOML, or exceeds the bounds above.
    """
    text = text.removeprefix(BOM)
    if len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        # Without the text's size: `read_toml` reads only up to the limit.
        raise tomllib.TOMLDecodeError(
            f"more than {MOST_BYTES} bytes given, which no valid file has"
        )
    _look_over(text)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except (ValueError, RecursionError) as error:  # an integer of over 4,300 digits
        raise tomllib.TOMLDecodeError(str(error)) from error


def read_toml(path: Path, remedy: str) -> dict[str, object]:
    """Reads a TOML file within bounds, with one clear error if it is not valid.

    Args:
        path: The file.
        remedy: What to do if it is missing or damaged.

    Raises:
        BadFileError: The file cannot be read, or is not valid TOML.
    """
    return parse_file(path, read_file(path, remedy), remedy)


def read_file(path: Path, remedy: str) -> bytes:
    """Reads a file's bytes, up to the largest valid size; see `read_toml`."""
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES + len(BOM.encode()) + 1)
    except OSError as error:
        why = why_no_file(path) or error.strerror
        raise BadFileError(f"{path}: cannot be read ({why}); {remedy}") from error


def parse_file(path: Path, content: bytes, remedy: str) -> dict[str, object]:
    """Parses a file's bytes; see `read_toml`."""
    try:
        return parse_toml(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadFileError(f"{path}: not UTF-8 text (byte {error.start + 1}); {remedy}") from error
    except tomllib.TOMLDecodeError as error:
        raise BadFileError(f"{path}: not valid TOML: {error}; {remedy}") from error


def _look_over(text: str) -> None:
    """Refuses, in one pass, a text with more structure than a valid file."""
    depth = parts = 0
    counts = {"=": 0, "[": 0, ",": 0}
    limits = {"=": MOST_KEYS, "[": MOST_BRACKETS, ",": MOST_COMMAS}
    names = {"=": "keys", "[": "lists and tables", ",": "values in lists"}
    for match in _TOKEN.finditer(text):
        token = match.group()
        mark = "[" if token in ("[", "{") else token
        if len(token) > LONGEST_WORD and token[0] not in "\"'#\n":
            raise _too_much(text, match.start(), f"a word of over {LONGEST_WORD} characters")
        if token == ".":
            parts += 1
            if parts >= MOST_PARTS:
                raise _too_much(text, match.start(), f"a key of over {MOST_PARTS} parts")
            continue
        if mark in counts:
            counts[mark] += 1
            if counts[mark] > limits[mark]:
                most = f"over {limits[mark]} {names[mark]}"
                raise _too_much(text, match.start(), most)
        if mark in ("=", "[", "]", "}", ",") or token.startswith("\n"):
            parts = 0
        depth += (mark == "[") - (token in ("]", "}"))
        if depth > MOST_DEPTH:
            raise _too_much(text, match.start(), f"lists and tables over {MOST_DEPTH} deep")


def _too_much(text: str, position: int, what: str) -> tomllib.TOMLDecodeError:
    line = text.count("\n", 0, position) + 1
    return tomllib.TOMLDecodeError(f"{what} (at line {line}), which no valid file has")
