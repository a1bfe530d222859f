"""Escapes another party's text for a terminal or log, so that no character of it has an effect.

A site's name, a label, a reason or a file's name may have escape sequences, which recolour, move
the cursor or overwrite text; line ends, which forge another program's line; marks that change the
direction of writing; and lone surrogates, which cannot be sent to a terminal.
"""

from __future__ import annotations

import re

from cloister.bounds import TURNING

# C0 and C1 controls except tab and line feed, DEL, line and paragraph separators, lone surrogates,
# and marks that change the direction of writing.
_ACTS = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{''.join(TURNING)}]")
_ACTS_IN_A_LINE = re.compile(f"[\t\n]|{_ACTS.pattern}")


def printable(text: str) -> str:
    r"""Returns a text with control characters except tab and line feed escaped, as `\x1b`."""
    return _ACTS.sub(_escaped, text)


def one_line(text: str, most: int) -> str:
    r"""Returns another party's text for use inside a line: tab and line feed are escaped too.

    Args:
        text: The text as received.
        most: Most characters that are shown.
    """
    shown = _ACTS_IN_A_LINE.sub(_escaped, text[:most])
    return shown if len(text) <= most and len(shown) <= most else f"{shown[:most]}…"


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
