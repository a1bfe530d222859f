"""What a site or run may be called, and how a number is said with its word."""

from __future__ import annotations

import re

# No separators, no control characters, no hidden files.
NAME = r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*"


# Bytes; a file system allows 255, and endings are added.
LONGEST = 200


def is_name(text: str) -> bool:
    """Whether a text is a file name on every system's disk, and nothing more than that.

    What cannot be seen is no part of a name: two names that look alike would be two sites.
    """
    return (
        re.fullmatch(NAME, text) is not None
        and text.isprintable()
        and len(text.encode()) <= LONGEST
    )


def counted(count: int, word: str) -> str:
    """A number with its word, as in `1 record` and `2 records`."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
