"""Checks lengths and token ids against a base's limits, before the base gets them.

An id or a position that a base has no row for raises an error on a CPU and ends the whole process
on a GPU. If a record caused that end, it would reveal the record (docs/pitfalls.md). So a task and
a tokenizer that do not fit their base are refused when the base is opened, and a record that does
not fit is sorted out before any part of it reaches a device.

Here:
    Limits: what a base can take, as a value (`cloister.models.limits.limits_of` reads it off one).
    misfit: why one encoded record does not fit.
    check_fit: refuses a task or tokenizer that does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cloister.errors import ModelFileError, UsageError
from cloister.tasks.task import Example

Misfit = Literal["empty", "length", "token"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest token id and length that a base can take.

    Attributes:
        positions: Longest record in tokens; None: no limit (ALiBi, recurrences).
        vocabulary: Number of token ids, which are 0 to `vocabulary` - 1; None: ids are hashed.
    """

    positions: int | None
    vocabulary: int | None


def misfit(example: Example, limits: Limits) -> Misfit | None:
    """Returns why a base cannot take an encoded record; None: it can.

    It compares lengths and ids only, on the CPU, and never raises.

    Args:
        example: One encoded record.
        limits: What the base can take.

    Returns:
        `empty`: no token. `length`: more tokens than positions. `token`: an id that the embedding
        has no row for, be it negative or too large.
    """
    if not example.input_ids:
        return "empty"
    if limits.positions is not None and len(example.input_ids) > limits.positions:
        return "length"
    least, most = min(example.input_ids), max(example.input_ids)
    if least < 0 or (limits.vocabulary is not None and most >= limits.vocabulary):
        return "token"
    return None if example.rejected is None else misfit(example.rejected, limits)


def check_fit(
    limits: Limits, base: str, max_length: int, vocabulary: Mapping[str, int], pad_id: int
) -> None:
    """Refuses a task or tokenizer that goes beyond its base.

    Args:
        limits: What the base can take.
        base: The base's name in messages.
        max_length: `task.max_length`.
        vocabulary: The tokenizer's tokens and their ids.
        pad_id: Token id of padding.

    Raises:
        UsageError: `max_length` is beyond the base's positions.
        ModelFileError: The tokenizer has ids, or pads with one, that the base has no row for.
    """
    positions, rows = limits.positions, limits.vocabulary
    if positions is not None and max_length > positions:
        raise UsageError(
            f"task.max_length: {max_length} given; the base has {positions} positions: set "
            f"task.max_length to {positions} or less, or choose a base with more"
        )
    if rows is None:
        return
    token, highest = max(vocabulary.items(), key=lambda item: item[1], default=("", 0))
    if highest >= rows:
        raise ModelFileError(
            f"model.base: the tokenizer of {base} has ids up to {highest} ({token!r}); its "
            f"embedding has {rows} rows, for ids up to {rows - 1}: get the tokenizer that belongs "
            "to the base, or resize the embedding and save both"
        )
    if not 0 <= pad_id < rows:
        raise ModelFileError(
            f"model.base: the tokenizer of {base} pads with id {pad_id}; its embedding has {rows} "
            f"rows, for ids up to {rows - 1}: set a padding token that the base knows, and save "
            "the tokenizer"
        )
