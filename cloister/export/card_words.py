"""Adds statements by people to a card: a site's description of its records, a use, a measurement.

Each statement is a quotation below the section's own text; a line before it says that it is not
Cloister's. It is another party's text, so its length is bounded, each line begins with `>`, and
control characters and HTML are removed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cloister.bounds import listed
from cloister.errors import BadFileError, UsageError
from cloister.export.card_sections import BIAS, DATA, NO_WORDS, ROBUSTNESS, USE
from cloister.files import bad_file, open_file, write_whole
from cloister.printable import one_line

# Longest statement: a page of 60 lines of 80 characters, at most four bytes each.
MOST_CHARACTERS = 4800
# The section that each kind of statement goes into.
SECTIONS: Mapping[str, str] = {"use": USE, "bias": BIAS, "robustness": ROBUSTNESS}
_STATED = "The people who ran the study state:"
_OWN = "In the site's own words, as it gave them to the people who ran the study:"


def add_words(folder: Path, words: Mapping[str, str], statements: Mapping[str, str]) -> None:
    """Adds statements to an adapter's card; a new one replaces the earlier one of the same place.

    Args:
        folder: The adapter's folder; its card is rewritten completely or not at all.
        words: Statements by their kind: `use`, `bias` or `robustness`.
        statements: By site, its description of its records.

    Raises:
        UsageError: The card has no such site, or a statement is empty or too long.
        BadFileError: There is no card of this version, or it cannot be written.
    """
    card = folder / "README.md"
    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadFileError(f"{card}: no card can be read here ({error}); give a run") from error
    for place, given in words.items():
        text = _put(text, f"## {SECTIONS[place]}", _STATED, given, place, card)
    sites = re.findall(r"^### (.+)$", _section(text, f"## {DATA}"), re.M)
    unknown = [site for site in statements if site not in sites]
    if unknown:
        raise UsageError(
            f"--statement: the card has no site {listed(unknown)}; its sites are {listed(sites)}"
        )
    for site, given in statements.items():
        text = _put(text, f"### {site}", _OWN, given, f"statement of {site}", card)
    try:
        write_whole(card, text.encode())
    except OSError as error:
        raise bad_file(error, "written") from error


def read_words(path: Path) -> str:
    """Reads a statement from a file.

    Raises:
        BadFileError: The file cannot be read, or is not UTF-8 text.
    """
    try:
        with open_file(path) as file:
            return file.read(4 * MOST_CHARACTERS + 1).decode("utf-8")
    except OSError as error:
        raise bad_file(error, "read") from error
    except UnicodeDecodeError as error:
        raise BadFileError(
            f"{path}: byte {error.start} is not UTF-8; save the text as UTF-8"
        ) from error


def _section(text: str, heading: str) -> str:
    """Returns a section's text, up to the next heading of its level or a higher one."""
    _, found, rest = f"\n{text}".partition(f"\n{heading}\n")
    rank = heading.count("#", 0, heading.index(" "))
    ends = re.search(rf"^#{{1,{rank}}} ", rest, re.M)
    return rest[: ends.start()] if found and ends else rest if found else ""


def _put(text: str, heading: str, by: str, words: str, what: str, card: Path) -> str:
    body = _section(text, heading)
    if not body:
        raise BadFileError(
            f"{card}: no section {heading!r}, because another version wrote this card; export the "
            "run again, or add the words by hand"
        )
    if not words.strip():
        raise UsageError(f"{what}: empty; give a text")
    if len(words) > MOST_CHARACTERS:
        raise UsageError(f"{what}: {len(words):,} characters; at most {MOST_CHARACTERS:,} are kept")
    lines = [one_line(line, MOST_CHARACTERS) for line in words.strip().splitlines()]
    quoted = "\n".join(f"> {line}".replace("<", "&lt;").rstrip() for line in lines)
    kept = body.partition(f"\n{by}\n")[0].replace(NO_WORDS, "").strip()
    new = f"\n{kept}\n\n{by}\n\n{quoted}\n\n"
    return text.replace(f"{heading}\n{body}", f"{heading}\n{new}", 1)
