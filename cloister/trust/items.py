"""Turns a person's items into the texts that a recommender reads, and scores its next items.

A report disturbs or explains items' texts, because ids mean nothing to a reader. The ranked items
keep their vectors, which were computed from the public catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from cloister.data.records import ItemsRecord
from cloister.serving.model import Model
from cloister.tasks.one_text import text_ids
from cloister.tasks.ranking import SHOWN, ranks_of, without_seen
from cloister.tasks.recommendation import BETWEEN, Recommendation
from cloister.tasks.task import Example
from cloister.training.batches import physical_batches
from cloister.training.units import singles


@dataclass(frozen=True, slots=True)
class ItemsInTexts(ItemsRecord):
    """A person's items with their texts.

    Attributes:
        texts: Texts of the last items before the one that the model must find, oldest first.
    """

    texts: tuple[str, ...] = field(kw_only=True)


def in_texts(task: Recommendation, record: ItemsRecord) -> ItemsInTexts:
    """Adds the catalogue's texts to a person's items.

    Raises:
        MisfitError: The person has fewer than two different items, or one that is not in the
            catalogue.
    """
    if isinstance(record, ItemsInTexts):
        return record
    seen = task.encode(record).seen[-task.last :]
    texts = tuple(task.catalogue.texts[place] for place in seen)
    return ItemsInTexts(record.items, record.site, record.person, record.unit, texts=texts)


def example_of(task: Recommendation, record: ItemsRecord) -> Example:
    """Encodes a record as `task.encode` does, but with the record's own texts."""
    read = in_texts(task, record)
    text = BETWEEN.join(reversed(read.texts))
    ids = text_ids(task.tokenizer, text, task.max_length, task.pad_id)
    return replace(task.encode(record), input_ids=ids)


def next_items(
    model: Model, task: Recommendation, records: Sequence[ItemsRecord]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns whether each person's next item is among the first `SHOWN`, and the first item.

    Args:
        model: The finished model.
        task: The model's task.
        records: Public records.

    Returns:
        Hits (0 or 1) and ones, float64 [2, N], and the ids of the items that rank first.
    """
    examples = [example_of(task, record) for record in records]
    place = {id(example): number for number, example in enumerate(examples)}
    hits, first = np.zeros(len(examples)), [""] * len(examples)
    with torch.no_grad():
        for group in physical_batches(singles(examples), model.max_tokens):
            own = [example for (example,) in group]
            batch = task.collate(own)
            logits = model.workspace.network.logits(batch)
            scores = without_seen(logits.double().cpu(), [example.seen for example in own])
            ranks = ranks_of(scores, batch.target.cpu())
            best = scores.argmax(dim=1).tolist()
            for example, rank, item in zip(own, ranks, best, strict=True):
                hits[place[id(example)]] = rank <= SHOWN
                first[place[id(example)]] = task.catalogue.ids[item]
    return np.stack([hits, np.ones(len(examples))]), tuple(first)
