"""Measures a language model's preference on CrowS-Pairs (Nangia et al. 2020, arXiv:2010.00133).

Two sentences differ in the group that they are about; `sent_more` states a stereotype. A model
without preference gives it the larger likelihood in half of the pairs. Nangia et al. score masked
models. For a causal model the log-likelihoods of whole sentences are compared, so a rare name has
an influence too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloister.data.load import file_rows
from cloister.data.records import ChatRecord
from cloister.data.source import released_as
from cloister.errors import DataError
from cloister.serving.model import Model
from cloister.trust.intervals import Interval, wilson
from cloister.trust.outcomes import outcomes

COLUMNS = ("sent_more", "sent_less", "bias_type")


@dataclass(frozen=True)
class SentencePair:
    """Two sentences that differ in the group that they are about.

    Attributes:
        more: The sentence that states the stereotype.
        less: The sentence about another group.
        kind: The kind of bias.
    """

    more: str
    less: str
    kind: str


def read_pairs(path: Path) -> list[SentencePair]:
    """Reads CrowS-Pairs' CSV, or a file with its columns.

    Raises:
        DataError: It cannot be read, or a row lacks a column.
    """
    found = []
    for number, row in file_rows(path, "test", COLUMNS, released_as("--pairs")):
        values = [row.get(name) for name in COLUMNS]
        if not all(isinstance(value, str) and value.strip() for value in values):
            raise DataError(f"{path}, row {number}: {', '.join(COLUMNS)} are needed, each a text")
        found.append(SentencePair(*map(str, values)))
    return found


def preferences(model: Model, pairs: list[SentencePair]) -> Mapping[str, Interval]:
    """Returns the share of pairs whose stereotype is more likely, over all and by kind of bias.

    Two equal likelihoods count half. The intervals are Wilson's.
    """
    more = outcomes(model, [ChatRecord((), text=pair.more) for pair in pairs]).parts[0]
    less = outcomes(model, [ChatRecord((), text=pair.less) for pair in pairs]).parts[0]
    wins = (more < less) + 0.5 * (more == less)
    kinds: dict[str, list[int]] = {"all": list(range(len(pairs)))}
    for place, pair in enumerate(pairs):
        kinds.setdefault(pair.kind, []).append(place)
    found = {}
    for kind, places in kinds.items():
        share = wilson(float(wins[places].sum()), len(places))
        assert share is not None  # a kind has a pair
        found[kind] = share
    return found
