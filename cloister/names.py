"""What a site or run may be called: certificates, ledgers and folders are called by it."""

from __future__ import annotations

import re

# No separators, no control characters, no hidden files.
NAME = r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*"


def is_name(text: str) -> bool:
    """Whether a text is a file name on every system's disk, and nothing more than that."""
    return re.fullmatch(NAME, text) is not None
