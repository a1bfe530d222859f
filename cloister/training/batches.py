"""Cuts physical batches without privacy: by token count, with units of similar length together.

Gradients are summed, so units may be in any order, and sorting them by length saves padding. But
then a unit's padding depends on the other units, and so does its rounding. Private training
therefore cuts differently (`training.shapes`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from cloister.training.config import PLAIN_TOKENS
from cloister.training.units import UnitExamples

# Most padded tokens of a training pass on a CPU, for each of torch's threads. In batches of 64
# short texts a step of MiniLM took 9.3 ms a text with 256 tokens, 9.3 to 9.6 with 512, 10.0 with
# 1,024, and 11.5 to 12.1 with 2,048, whose states leave a core's caches (CPU time of one thread,
# `benchmarks/README.md`). Their memory grows with the tokens.
CPU_PASS = 256


def tokens_of_a_pass(device: torch.device) -> int:
    """Returns the most padded tokens of a training pass, if the machine states none."""
    if device.type != "cpu":
        return PLAIN_TOKENS
    return min(CPU_PASS * torch.get_num_threads(), PLAIN_TOKENS)


def physical_batches(
    units: Sequence[UnitExamples], max_tokens: int
) -> Iterator[list[UnitExamples]]:
    """Cuts units into batches of at most `max_tokens` padded tokens.

    Args:
        units: Any number, including none; a unit's records stay together, empty units are left out.
        max_tokens: Most tokens of a batch, padding included; a larger unit goes alone.

    Yields:
        Every unit with records once, longest record first, so that a lack of memory shows early.
    """
    batch: list[UnitExamples] = []
    records, longest = 0, 0
    for unit in sorted(filter(None, units), key=_longest, reverse=True):
        if batch and longest * (records + len(unit)) > max_tokens:
            yield batch
            batch, records = [], 0
        longest = longest if batch else _longest(unit)
        batch.append(unit)
        records += len(unit)
    if batch:
        yield batch


def _longest(unit: UnitExamples) -> int:
    return max(len(example.input_ids) for example in unit)
