"""Predicts which public item a person takes next, from the sequence of items that they took.

The base reads the texts of a person's last items as one text, the latest first, and gives a vector
h. The frozen base also gives each item a vector e, from its public text. The score of an item is
s = (W·h + b)·e. So items that no person has had are ranked too.

Loss: the cross-entropy of the last item among all items that the person did not have before. All
items are candidates for every record. Negatives taken from the batch would couple records, and
clipping one record's gradient would no longer bound that record's influence.

One record has one target, its last item. Earlier items are not targets too: each would need a
forward pass of its own text, while the clip bounds all losses of one person together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cloister.data.catalogue import Catalogue, read_catalogue
from cloister.data.records import ItemsRecord, Record, RecordKind
from cloister.errors import MisfitError, UsageError
from cloister.tasks.collate import collate
from cloister.tasks.config import LAST_ITEMS, TaskConfig, TaskKind
from cloister.tasks.cut import MOST_ITEMS
from cloister.tasks.one_text import is_text_cut, text_ids
from cloister.tasks.ranking import SHOWN, rank_scores, ranks_of, without_seen
from cloister.tasks.task import Batch, BatchShape, Example

TASK = {"kind": "recommendation", "records": "items"}

UNKNOWN_ITEM = "an item is not in task.items"
TOO_FEW = "fewer than two different items, so nothing came next"
# Written between the texts of two items.
BETWEEN = "; "


def make(
    config: TaskConfig, labels: tuple[str, ...], tokenizer: PreTrainedTokenizerBase, pad_id: int
) -> Recommendation:
    """Binds the task and reads its items; see `build_task`. It has no labels of its own."""
    if config.items is None:
        raise UsageError("task.items: none given; recommendation needs a public file of items")
    catalogue = read_catalogue(config.items, config.items_sha256)
    last = config.last_items or LAST_ITEMS
    return Recommendation(tokenizer, config.max_length, pad_id, catalogue, last)


@dataclass(frozen=True)
class Recommendation:
    """The task of ranking public items for each person.

    Attributes:
        tokenizer: The base's.
        max_length: Longest text of a person's last items, in tokens.
        pad_id: Token id of padding.
        catalogue: The public items.
        last: How many of a person's last items are read.
        places: The place of each item in the catalogue, by id.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    pad_id: int
    catalogue: Catalogue
    last: int
    kind: TaskKind = "recommendation"
    record_kind: RecordKind = "items"
    primary_metric: str = f"ndcg@{SHOWN}"
    places: Mapping[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        places = {item: place for place, item in enumerate(self.catalogue.ids)}
        object.__setattr__(self, "places", places)

    @property
    def labels(self) -> tuple[str, ...]:
        """The items' ids, in the order of the outputs."""
        return self.catalogue.ids

    def encode(self, record: Record) -> Example:
        """Reads all but the last of a person's items, which is the target; see `Task.encode`.

        A repeated item counts at its first place only, because the ranked items are new to the
        person.
        """
        assert isinstance(record, ItemsRecord)
        places = self.known(record.items)
        if len(places) < 2:
            raise MisfitError(TOO_FEW, f"{TOO_FEW}; leave the row out")
        *before, target = places
        return Example(self.text_ids(before), target, seen=tuple(before))

    def history(self, items: Sequence[str]) -> Example:
        """Reads all of a person's items, to predict the next one; the example has no real target.

        Raises:
            MisfitError: No item is given, or one is not in the catalogue.
        """
        places = self.known(items)
        if not places:
            raise MisfitError("no item", "no item given; at least one is needed")
        return Example(self.text_ids(places), 0, seen=tuple(places))

    def known(self, items: Sequence[str]) -> list[int]:
        """Returns the places of a person's different items, in the order of their first occurrence.

        Of a longer list only the last `MOST_ITEMS` are read.

        Raises:
            MisfitError: An item is not in the catalogue.
        """
        try:
            return list(dict.fromkeys(self.places[item] for item in items[-MOST_ITEMS:]))
        except KeyError:
            raise MisfitError(
                UNKNOWN_ITEM, f"{UNKNOWN_ITEM}; add it to the public file, or leave the row out"
            ) from None

    def text_ids(self, places: Sequence[int]) -> tuple[int, ...]:
        """Returns the token ids of the last items' texts, the latest first, cut at the end."""
        return text_ids(self.tokenizer, self._text(places), self.max_length, self.pad_id)

    def item_example(self, place: int) -> Example:
        """Returns an item's own text as an example, from which the base computes its vector."""
        text = self.catalogue.texts[place]
        return Example(text_ids(self.tokenizer, text, self.max_length, self.pad_id), 0)

    def by_length(self) -> tuple[str, ...]:
        """Returns the items' ids, sorted by the length of their texts, the longest last."""
        texts = self.catalogue.texts
        return tuple(sorted(self.catalogue.ids, key=lambda item: len(texts[self.places[item]])))

    def is_cut(self, items: Sequence[str]) -> bool:
        """Returns whether the texts of a person's last items are longer than `max_length`."""
        return is_text_cut(self.tokenizer, self._text(self.known(items)), self.max_length)

    def _text(self, places: Sequence[int]) -> str:
        texts = self.catalogue.texts
        return BETWEEN.join(texts[place] for place in reversed(places[-self.last :]))

    def collate(self, examples: Sequence[Example], shape: BatchShape | None = None) -> Batch:
        """Pads texts into a batch."""
        return collate(examples, self.pad_id, shape)

    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Returns the cross-entropy of each person's next item among items new to them, [B]."""
        scores = without_seen(logits.float(), [example.seen for example in batch.examples])
        return F.cross_entropy(scores, batch.target.to(logits.device), reduction="none")

    def meter(self) -> RankMeter:
        """Returns a new meter of hit rate, NDCG, mean reciprocal rank and loss."""
        return RankMeter(self)


@dataclass
class RankMeter:
    """Collects the rank of each person's next item."""

    task: Recommendation
    _ranks: list[float] = field(default_factory=list)
    _loss: float = 0.0

    def add(self, logits: Tensor, batch: Batch) -> None:
        """Takes one batch, logits [B, C]; every row is an example."""
        scores = without_seen(logits.double().cpu(), [example.seen for example in batch.examples])
        self._ranks += ranks_of(scores, batch.target.cpu())
        self._loss += float(self.task.record_losses(logits, batch).sum())

    def result(self) -> dict[str, float]:
        """Returns hit rate and NDCG of the first ten, mean reciprocal rank, and mean loss."""
        return {**rank_scores(self._ranks), "loss": self._loss / max(len(self._ranks), 1)}

    def report(self) -> Mapping[str, Mapping[str, float]]:
        """Returns an empty report: a row for each of hundreds of items would not help a reader."""
        return {}
