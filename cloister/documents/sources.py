"""Documents from files: plain texts whole, and the texts of data files row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.data.detected import detect_form
from cloister.data.encodings import detect, known_encoding
from cloister.data.formats import form_of
from cloister.data.values import kind_of
from cloister.errors import DataError, UsageError
from cloister.files import bad_file, open_file, stamp_of

PLAIN = (".txt", ".md", ".rst")
# A plain text is read whole: a hundred books.
MOST_BYTES = 2**26
# Files of one index: more is a mistaken folder.
MOST_FILES = 10_000


@dataclass(frozen=True)
class SourceText:
    """One text to be searched in.

    Attributes:
        source: The file that it is from, as it was given or under the folder that was.
        sha256: Of that file.
        row: Its row where the file has rows, from 1; None: the file is the text.
        title: What a reader knows it by; empty: nothing but the file.
        text: All of it.
    """

    source: str
    sha256: str
    row: int | None
    title: str
    text: str


def files_in(places: Sequence[Path]) -> list[tuple[str, Path]]:
    """The files of some places, each with the name that it goes by.

    Args:
        places: Files, and folders whose plain texts and data files are taken, at any depth; hidden
            ones and links are not.

    Raises:
        UsageError: A place holds nothing that is read, or there are too many files.
    """
    found: list[tuple[str, Path]] = []
    for place in places:
        if not place.is_dir():
            found.append((place.name, place))
            continue
        inside = [
            path
            for path in sorted(place.rglob("*"))
            if _is_read(path)
            and path.is_file()
            and not path.is_symlink()
            and not any(part.startswith(".") for part in path.relative_to(place).parts)
        ]
        if not inside:
            raise UsageError(f"{place}: holds no text ({', '.join(PLAIN)}) and no data file")
        found += [(str(path.relative_to(place)), path) for path in inside]
    if len(found) > MOST_FILES:
        raise UsageError(f"{len(found):,} files given; at most {MOST_FILES:,} are indexed together")
    return found


def _is_read(path: Path) -> bool:
    return path.suffix.lower() in PLAIN or form_of(path.name) is not None


def documents_of(
    name: str, path: Path, text: str, title: str, encoding: str | None
) -> Iterator[SourceText]:
    """The documents of one file.

    Args:
        name: What the file goes by.
        path: The file.
        text: Column of a data file's texts.
        title: Column of their titles; a row may lack it.
        encoding: Of its text; None: it is detected.

    Raises:
        DataError: The file cannot be read, or a row has no text.
    """
    try:
        sha256 = stamp_of(path).sha256
        if path.suffix.lower() in PLAIN:
            yield SourceText(name, sha256, None, "", _plain(path, encoding))
            return
        for number, row in detect_form(path, encoding).rows():
            found = row.get(text)
            if not isinstance(found, str):
                what = "nothing" if found is None else kind_of(found)
                raise DataError(
                    f"{name}, row {number}: {text} holds {what}; a text is needed: give --text "
                    "its column's name"
                )
            named = row.get(title)
            yield SourceText(name, sha256, number, named if isinstance(named, str) else "", found)
    except OSError as error:
        raise bad_file(error, "read") from error


def _plain(path: Path, encoding: str | None) -> str:
    with open_file(path) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise DataError(f"{path}: more than {MOST_BYTES >> 20} MiB of text; cut it into files")
    if not content.strip():
        return ""
    given = None if encoding is None else known_encoding(encoding)
    return content.decode(detect(path, given=given).name).removeprefix("\ufeff")
