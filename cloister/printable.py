"""Text of another party on a terminal or in a log: no character of it acts, each is shown.

A site's name, a label, a reason or a file's name may hold escape sequences, which recolour, move
the cursor or write over what stands there, line ends, which forge a line of somebody else's, marks
that turn the direction of writing, and halves of surrogate pairs, which no terminal can be sent.
"""

from __future__ import annotations

import re

from cloister.bounds import TURNING

# C0 and C1 controls but for tab and line feed, DEL, line and paragraph separators, lone surrogates,
# and marks that turn the direction of writing.
_ACTS = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{''.join(TURNING)}]")
_ACTS_IN_A_LINE = re.compile(f"[\t\n]|{_ACTS.pattern}")


def printable(text: str) -> str:
    r"""Text in which no character acts but tab and line feed; the others are written as `\x1b`."""
    return _ACTS.sub(_escaped, text)


def one_line(text: str, most: int) -> str:
    r"""Text of another party inside a line of ours: neither a tab nor a line feed acts either.

    Args:
        text: As it came.
        most: Characters of it that are shown.
    """
    shown = _ACTS_IN_A_LINE.sub(_escaped, text[:most])
    return shown if len(text) <= most and len(shown) <= most else f"{shown[:most]}…"


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
