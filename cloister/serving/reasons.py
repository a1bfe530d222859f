"""Which of a person's items moved each recommended item most, by leaving one item out at a time.

    moved(i, j) = log p(j | all items) − log p(j | all items but i)

with p the softmax over the items that the person lacks (occlusion: Zeiler & Fergus 2014,
arXiv:1311.2901, section 3.2, on items in place of image patches). The candidates stay the same when
an item is left out, so a shift of all scores moves nothing. It says what this model read, not why
the person would like the item.

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

# A person's last items of which one at a time is left out: three times what a study reads by
# default (`task.last_items`), so that no request takes more than this number of passes.
MOST_LEFT_OUT = 32


def reasoned(
    task: Recommendation,
    items: Sequence[str],
    ranked: Ranked,
    logits_of: Callable[[Sequence[Example]], Sequence[Tensor]],
) -> Ranked:
    """Adds to each recommended item which of the person's items moved it most.

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
    """Finds the left-out item that moved each shown item most.

    Args:
        scores: [C], from all items of the person.
        without: [n, C], from all but one of them each.
        seen: Places of all items of the person, which are no candidates.
        shown: Places of the recommended items.

    Returns:
        For each shown item the row of `without` and by how much, in nats of log probability; None
        if no item speaks for it.
    """
    if not len(without):
        return [None] * len(shown)
    rows = torch.cat([scores[None], without]).double()
    shares = without_seen(rows, [seen] * len(rows)).log_softmax(dim=1)[:, list(shown)]
    moved = shares[0] - shares[1:]
    best = moved.max(dim=0)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [(row, value) if value > 0 else None for row, value in pairs]
