"""Physical batches without privacy: cut by token count, units of similar length together.

The order of the units of a logical batch is free, because their gradients are summed, so sorting
them by length saves padding. Each unit's padding then depends on its companions, which couples them
by rounding: private training cuts otherwise (`training.shapes`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloister.training.units import UnitExamples


def physical_batches(
    units: Sequence[UnitExamples], max_tokens: int
) -> Iterator[list[UnitExamples]]:
    """Cuts units into batches of at most `max_tokens` padded tokens.

    Args:
        units: Any number, also none; a unit's records stay together, empty ones are left out.
        max_tokens: Most tokens of a batch, padding included; a larger unit goes alone.

    Yields:
        Every unit with records once, longest record first, so that what needs most memory comes
        early.
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
