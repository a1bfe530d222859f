"""Scores a baseline without a model: recommend the most frequent items to every person."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence

from cloister.data.records import ItemsRecord
from cloister.tasks.ranking import SHOWN, rank_scores


def popular_scores(persons: Sequence[ItemsRecord], shown: int = SHOWN) -> dict[str, float]:
    """Returns the scores of ranking items by how often they come next in the scored records.

    Items that a person has already are left out. No other ranking that is the same for all persons
    does better on these records, so a model that beats it has learnt something about persons. The
    counts come from public records; counts of training records would be private and would have to
    be charged.

    Args:
        persons: Public records, with at least two different items each.
        shown: Length of the list that a person is shown.
    """
    sequences = [list(dict.fromkeys(person.items)) for person in persons]
    counts = Counter(items[-1] for items in sequences)
    ascending = sorted(counts.values())
    ranks = []
    for *before, last in sequences:
        own, seen = counts[last], [counts[item] for item in before]
        first, end = bisect_left(ascending, own), bisect_right(ascending, own)
        above = len(ascending) - end - sum(count > own for count in seen)
        equal = end - first - 1 - sum(count == own for count in seen)
        ranks.append(1 + above + equal / 2)
    return rank_scores(ranks, shown)
