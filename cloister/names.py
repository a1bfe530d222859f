"""Checks names of sites and runs, names simulated sites, tells a URL from a path, and counts."""

from __future__ import annotations

import re

# No separators, no control characters, no hidden files.
NAME = r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*"


# Longest name in bytes; a file system allows 255, and endings are added.
LONGEST = 200


def is_name(text: str) -> bool:
    """Returns whether a text can be a file name on every system, and is not a path.

    Invisible characters are not allowed: two names that look equal would be two sites.
    """
    return (
        re.fullmatch(NAME, text) is not None
        and text.isprintable()
        and len(text.encode()) <= LONGEST
    )


def site_names(count: int) -> list[str]:
    """Returns names of simulated sites, whose alphabetical order is their numerical order."""
    width = len(str(count - 1))
    return [f"site-{number:0{width}d}" for number in range(count)]


# A scheme as RFC 3986 (section 3.1) writes it, of more letters than a drive of Windows has.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(text: str) -> bool:
    """Returns whether a text is a URL, and no path of this machine."""
    return _SCHEME.match(text) is not None


def counted(count: int, word: str) -> str:
    """Returns a number with its noun: `1 record`, `2 records`."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
