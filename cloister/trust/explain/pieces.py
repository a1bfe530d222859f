"""Splits an input into pieces (words, marks, characters) with their tokens, for explanations.

A word, a mark or one Chinese character is a piece. The tokenizer's offsets show which tokens belong
to a piece. Tokens of no piece (special tokens, a template's words) are never blanked.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

# Most pieces; if there are more, neighbours are joined, because occlusion computes a row for each.
MOST_PIECES = 128


@dataclass(frozen=True)
class Piece:
    """A piece of an input, with its tokens.

    Attributes:
        text: Its characters.
        tokens: Places of its tokens in the network's input.
        after: The text between it and the next piece.
    """

    text: str
    tokens: tuple[int, ...]
    after: str = " "


def pieces_of(
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    encoded: Any,
    texts: Sequence[str],
    spans: Sequence[Sequence[tuple[int, int]]],
) -> tuple[Piece, ...]:
    """Returns the pieces of an input, in order, at most `MOST_PIECES`.

    Args:
        tokenizer: The base's tokenizer.
        ids: The token ids that the network reads.
        encoded: A fast tokenizer's result for the texts, with offsets; None: the tokenizer is slow.
        texts: One or two texts.
        spans: The spans of the pieces of each text.

    Returns:
        The pieces that have a token. If `ids` are not the tokens of `encoded`, such as for a text
        that was cut inside of a prompt, each token that is not special is a piece.
    """
    if encoded is None or tuple(encoded["input_ids"]) != tuple(ids):
        special = set(tokenizer.all_special_ids)
        alone = [
            Piece(str(tokenizer.decode([token])), (place,))
            for place, token in enumerate(ids)
            if token not in special
        ]
        return _joined(alone)
    tokens: dict[tuple[int, int], list[int]] = {}
    ends = [[end for _, end in of_text] for of_text in spans]
    which = encoded.sequence_ids(0) if hasattr(encoded, "sequence_ids") else [0] * len(ids)
    for place, (start, end) in enumerate(encoded["offset_mapping"]):
        # Templates write special tokens as text: they have a width and a place of their own.
        text = which[place] if which[place] is not None else 0
        if start == end:
            continue
        piece = bisect_right(ends[text], start)
        if piece < len(spans[text]) and spans[text][piece][0] < end:
            tokens.setdefault((text, piece), []).append(place)
    found = []
    for (text, piece), places in sorted(tokens.items()):
        start, end = spans[text][piece]
        follows = spans[text][piece + 1][0] if piece + 1 < len(spans[text]) else end
        after = texts[text][end:follows] if follows > end or piece + 1 < len(spans[text]) else "\n"
        found.append(Piece(texts[text][start:end], tuple(places), after))
    return _joined(found)


def _joined(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Joins neighbours into at most `MOST_PIECES` pieces of nearly equal numbers of tokens."""
    if len(pieces) <= MOST_PIECES:
        return tuple(pieces)
    edges = [round(k * len(pieces) / MOST_PIECES) for k in range(MOST_PIECES + 1)]
    found = []
    for first, end in pairwise(edges):
        group = pieces[first:end]
        text = "".join(one.text + one.after for one in group[:-1]) + group[-1].text
        places = tuple(place for one in group for place in one.tokens)
        found.append(Piece(text, places, group[-1].after))
    return tuple(found)
