"""Schemes of entity tags: IOB1, IOB2 (BIO), BIOES (IOBES, BMES) and BILOU, read as BIO.

All say where an entity begins or ends by a letter before its type. One rule reads them all: an
entity begins at B, S or U, and at any other letter whose type is not that of an entity that goes
on; it ends at E, L, S and U. A sentence is read alone, so no other record changes its tags.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

BIO = re.compile(r"O|[BI]-.+")
KNOWN = re.compile(r"O|[BIESLUM]-.+")
_BEGIN, _END = "BSU", "ESLU"


def as_bio(tags: Sequence[str]) -> tuple[str, ...]:
    """The tags of one sentence in BIO.

    Args:
        tags: One a word, each `O` or a letter of `KNOWN`, a hyphen and a type.
    """
    found = []
    running = ""  # the type of the entity that goes on
    for tag in tags:
        letter, _, kind = tag.partition("-")
        if not kind:
            running = ""
            found.append("O")
            continue
        begins = letter in _BEGIN or kind != running
        found.append(f"{'B' if begins else 'I'}-{kind}")
        running = "" if letter in _END else kind
    return tuple(found)


def scheme_of(letters: set[str]) -> str:
    """The name of the scheme that uses these letters, for a person to read.

    Args:
        letters: The first letters of all tags of a file, without `O`.
    """
    if letters & {"L", "U"}:
        return "BILOU"
    if "M" in letters:
        return "BMES"
    if letters & {"E", "S"}:
        return "BIOES"
    return "BIO (IOB2)" if "B" in letters or not letters else "IOB1 or IO"
