"""What showing everybody the most frequent items reaches, without a model."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence

from cloister.data.records import ItemsRecord
from cloister.tasks.ranking import SHOWN, rank_scores


def popular_scores(persons: Sequence[ItemsRecord], shown: int = SHOWN) -> dict[str, float]:
    """Scores of ranking items by how often they came next in the very records that are scored.

    No ranking that is the same for everybody does better on them, but for what each person has
    already; so a model that beats it has learnt something of persons. The counts are of public
    records. (Counts of training records would be private, and would have to be charged.)

    Args:
        persons: Public records, with at least two different items each.
        shown: Length of a list.
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
