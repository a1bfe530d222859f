"""Converts the schemes of entity tags IOB1, IOB2 (BIO), BIOES (IOBES, BMES) and BILOU to BIO.

All mark where an entity begins or ends by a letter before its type. One rule reads all of them: an
entity begins at B, S or U, and at any other letter whose type differs from that of the open entity;
it ends at E, L, S and U. Each sentence is read alone, so no other record changes its tags.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

BIO = re.compile(r"O|[BI]-.+")
KNOWN = re.compile(r"O|[BIESLUM]-.+")
_BEGIN, _END = "BSU", "ESLU"


def as_bio(tags: Sequence[str]) -> tuple[str, ...]:
    """Returns the tags of one sentence in BIO.

    Args:
        tags: One per word, each `O` or a letter of `KNOWN`, a hyphen and a type.
    """
    found = []
    running = ""  # the type of the open entity
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
    """Returns the name of the scheme that uses these letters, for a person to read.

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
