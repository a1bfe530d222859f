"""Formats of data files: the format that an ending means, encodings and separators."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

Kind = Literal["json", "csv", "conll", "parquet", "arrow"]

# What a file that ends so holds; a JSON file is lines of objects or one array, as it begins.
ENDINGS: dict[str, Kind] = {
    ".jsonl": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".conll": "conll",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
COMPRESSED = ".gz"
TEXTS = ("json", "csv", "conll")
# What a separator can be called, beside by itself.
SEPARATOR_NAMES = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|", "\\t": "\t"}


@dataclass(frozen=True, kw_only=True)
class FileForm:
    """The form of a data file: format, encoding and separator.

    Attributes:
        kind: Its format.
        is_gzip: Whether its text is compressed.
        encoding: Python's name of the encoding of its text; `utf-8` skips a byte order mark.
        separator: Separates the cells of a `csv`.
        quotes: Whether `"` encloses a cell of a `csv` that holds separators or line breaks.
    """

    kind: Kind
    is_gzip: bool = False
    encoding: str = "utf-8"
    separator: str = ","
    quotes: bool = True


def form_of(name: str | PurePath) -> FileForm | None:
    """Returns a file's form by its ending, with text in UTF-8; None: not a data file's ending.

    Args:
        name: The file's name; the file need not exist: `notes.csv`, `notes.tsv.gz`.
    """
    path = PurePath(name)
    is_gzip = path.suffix.lower() == COMPRESSED
    ending = PurePath(path.stem).suffix.lower() if is_gzip else path.suffix.lower()
    kind = ENDINGS.get(ending)
    if kind is None or (is_gzip and kind not in TEXTS):
        return None
    return FileForm(kind=kind, is_gzip=is_gzip, separator="\t" if ending == ".tsv" else ",")


def separator_of(name: str) -> str | None:
    """Returns the character of a separator or of its name; None: it is not a separator."""
    found = SEPARATOR_NAMES.get(name, name)
    return found if len(found) == 1 and found not in '"\r\n\0' else None


def listed_endings() -> str:
    """Returns the endings in words, for messages and help."""
    return f"{', '.join(ENDINGS)}, or one of text with {COMPRESSED}"
