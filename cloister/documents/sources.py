"""Reads documents: a plain text file is one document, a data file has one in each row."""

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
# Longest plain text file, in bytes; it is read into memory. About a hundred books.
MOST_BYTES = 2**26
# Most files of one index: more are probably a wrong folder.
MOST_FILES = 10_000


@dataclass(frozen=True)
class SourceText:
    """One document, before it is cut into passages.

    Attributes:
        source: Name of its file, as it was given, or relative to the folder that was given.
        sha256: SHA-256 of that file.
        row: Its row in a data file, from 1; None: the file is one plain text.
        title: Its title for readers; may be empty.
        text: The whole text.
    """

    source: str
    sha256: str
    row: int | None
    title: str
    text: str


def files_in(places: Sequence[Path]) -> list[tuple[str, Path]]:
    """Returns the files to read, each with the name by which a passage names it.

    Args:
        places: Files and folders. Of a folder, plain texts and data files at any depth are read;
            hidden files and links are skipped.

    Raises:
        UsageError: A place has no file that can be read, or there are too many files.
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
            raise UsageError(
                f"{place}: holds no text ({', '.join(PLAIN)}) and no data file; give files, or a "
                "folder that holds some (hidden files and links are not read)"
            )
        found += [(str(path.relative_to(place)), path) for path in inside]
    if len(found) > MOST_FILES:
        raise UsageError(f"{len(found):,} files given; at most {MOST_FILES:,} are indexed together")
    return found


def _is_read(path: Path) -> bool:
    return path.suffix.lower() in PLAIN or form_of(path.name) is not None


def documents_of(
    name: str, path: Path, text: str, title: str, encoding: str | None
) -> Iterator[SourceText]:
    """Reads the documents of one file.

    Args:
        name: The name by which a passage names the file.
        path: The file.
        text: The column with a data file's texts.
        title: The column with their titles; a row may lack it.
        encoding: The file's encoding; None: it is detected.

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
