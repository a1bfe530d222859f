"""Finds which of a person's items changed each recommended item most, by leaving items out.

    moved(i, j) = log p(j | all items) − log p(j | all items but i)

with p the softmax over the items that the person lacks (occlusion: Zeiler & Fergus 2014,
arXiv:1311.2901, section 3.2, on items in place of image patches). The candidates stay the same when
an item is left out, so a shift of all scores has no effect. The result shows what this model used,
not why the person would like the item.

Shapes: n items that are left out, C items of the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cloister.serving.predictions import Because, Ranked
from cloister.tasks.ranking import without_seen
from cloister.tasks.recommendation import Recommendation
from cloister.tasks.task import Example

# Most last items of a person that are left out, one at a time: three times the default of
# `task.last_items`. It bounds the number of passes that a request takes.
MOST_LEFT_OUT = 32


def reasoned(
    task: Recommendation,
    items: Sequence[str],
    ranked: Ranked,
    logits_of: Callable[[Sequence[Example]], Sequence[Tensor]],
) -> Ranked:
    """Adds to each recommended item the person's item that changed it most.

    Args:
        task: The task, with its catalogue.
        items: The person's items, oldest first.
        ranked: The recommendation for them.
        logits_of: Computes the scores of examples, [C] each.
    """
    whole = task.history(items)
    read = [task.catalogue.ids[place] for place in whole.seen[-min(task.last, MOST_LEFT_OUT) :]]
    parts = [[one for one in items if one != left] for left in read]
    first, *others = logits_of([whole, *(task.history(part) for part in parts if part)])
    shown = [task.places[one.item] for one in ranked.items]
    moved = most_moved(first, torch.stack([first, *others])[1:], whole.seen, shown)
    told = [
        one if why is None else replace(one, because=Because(read[why[0]], why[1]))
        for one, why in zip(ranked.items, moved, strict=True)
    ]
    return replace(ranked, items=tuple(told))


def most_moved(
    scores: Tensor, without: Tensor, seen: Sequence[int], shown: Sequence[int]
) -> list[tuple[int, float] | None]:
    """Finds the left-out item that changed each shown item most.

    Args:
        scores: Scores from all items of the person, [C].
        without: Scores without one of them, one row for each, [n, C].
        seen: Indexes of all items of the person, which are not candidates.
        shown: Indexes of the recommended items.

    Returns:
        For each shown item, the row of `without` and the change, in nats of log probability; None:
        no item raises it.
    """
    if not len(without):
        return [None] * len(shown)
    rows = torch.cat([scores[None], without]).double()
    shares = without_seen(rows, [seen] * len(rows)).log_softmax(dim=1)[:, list(shown)]
    moved = shares[0] - shares[1:]
    best = moved.max(dim=0)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [(row, value) if value > 0 else None for row, value in pairs]
