"""Reads sentences of a CoNLL file: one word per line, a blank line after each sentence.

The first column is the word and the last its tag (CoNLL-2003 has two more between). A tab
separates columns where a line has one, blanks do elsewhere. Tags of any known scheme become BIO.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cloister.data.formats import FileForm
from cloister.data.lines import text_lines
from cloister.data.tag_schemes import KNOWN, as_bio
from cloister.data.values import MOST_ROW_BYTES, Row, shown
from cloister.errors import DataError

CONLL = FileForm(kind="conll")
# Begins a document in CoNLL-2003; it is not a word.
_DOCUMENT = "-DOCSTART-"
_BLANKS = re.compile(r"[ \t]+")


def conll_rows(path: Path, form: FileForm = CONLL) -> Iterator[tuple[int, Row]]:
    """Yields the sentences of a file as `tokens` and `tags`, each with its number, from 1.

    A line that begins with # before a sentence's first word, and does not end in a tag, is a
    comment.

    Raises:
        DataError: A line's number of columns differs from the first line's, its last column is not
            a tag of a known scheme, or a sentence is too long.
        OSError: The file cannot be read.
    """
    tokens: list[str] = []
    tags: list[str] = []
    number = width = size = 0
    for line_number, line in text_lines(path, "line", form):
        cells = _cells(line)
        where = f"{path.name}, line {line_number}"
        if not cells or cells[0] == _DOCUMENT:
            if tokens:
                number += 1
                yield number, {"tokens": tokens, "tags": list(as_bio(tags))}
            tokens, tags, size = [], [], 0
            continue
        if not tokens and cells[0].startswith("#") and not KNOWN.fullmatch(cells[-1]):
            continue
        width = width or len(cells)
        if len(cells) != width or width < 2:
            raise DataError(
                f"{where}: {len(cells)} columns, but {max(width, 2)} are needed: a word, its tag, "
                "and the same columns in every line; correct the line"
            )
        if not KNOWN.fullmatch(cells[-1]):
            raise DataError(
                f"{where}: tag {shown(cells[-1])!r} is of no known scheme (O, B-type, I-type "
                "and similar); the last column must be the tag"
            )
        size += len(line)
        if size > MOST_ROW_BYTES:
            raise DataError(
                f"{where}: a sentence of more than {MOST_ROW_BYTES >> 20} MiB, the most that a row "
                "may hold; put a blank line after each sentence"
            )
        tokens.append(cells[0])
        tags.append(cells[-1])
    if tokens:
        yield number + 1, {"tokens": tokens, "tags": list(as_bio(tags))}


def _cells(line: str) -> list[str]:
    text = line.strip(" \t\r\n")
    if not text:
        return []
    return text.split("\t") if "\t" in text else _BLANKS.split(text)
