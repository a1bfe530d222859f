"""Where the words of a text are: a word, a mark, or one Chinese or Japanese character each."""

from __future__ import annotations

import re

# A word with inner apostrophes and hyphens; a character of a script without blanks; a mark.
_PIECE = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\U00020000-\U00031fff]|[^\W_]+(?:['’-][^\W_]+)*|\S"
)
_ALONE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\U00020000-\U00031fff]")


def spans_in(text: str) -> list[tuple[int, int]]:
    """Returns first character and end of each piece of a text.

    Each Chinese or Japanese character is a piece of its own.
    """
    found: list[tuple[int, int]] = []
    for match in _PIECE.finditer(text):
        start = match.start()
        for alone in _ALONE.finditer(match.group()):  # a character within letters: 3月, A股
            if start < match.start() + alone.start():
                found.append((start, match.start() + alone.start()))
            found.append((match.start() + alone.start(), match.start() + alone.end()))
            start = match.start() + alone.end()
        if start < match.end():
            found.append((start, match.end()))
    return found
