"""Physical batches: a logical batch cut by token count, records of similar length together.

The order of the records of a logical batch is free, because their contributions are summed; so
sorting them by length saves padding and costs no privacy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloister.tasks.task import Example


def physical_batches(examples: Sequence[Example], max_tokens: int) -> Iterator[list[Example]]:
    """Cuts examples into batches of at most `max_tokens` padded tokens.

    Args:
        examples: Any number, also none.
        max_tokens: Most tokens of a batch, padding included; a longer record goes alone.

    Yields:
        Every example once, longest first, so that what needs most memory comes first.
    """
    batch: list[Example] = []
    for example in sorted(examples, key=lambda e: len(e.input_ids), reverse=True):
        longest = len(batch[0].input_ids) if batch else len(example.input_ids)
        if batch and longest * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(example)
    if batch:
        yield batch
