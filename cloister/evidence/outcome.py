"""What the sites of a study certified, in words: an adapter, or a data set of synthetic records.

A certificate of a study of votes covers the data set's files in the place of an adapter's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

from cloister.names import counted
from cloister.privacy.release_kind import ReleaseKind

# What a site sent, by the kind of release.
SENT = {
    ReleaseKind.TRAINING: "update",
    ReleaseKind.EVALUATION: "private evaluation",
    ReleaseKind.VOTE: "vote",
}


class Made(StrEnum):
    """What a study gives."""

    ADAPTER = "adapter"
    DATA_SET = "data set"


def outcome_of(ledgers: Iterable[tuple[object, object]]) -> Made:
    """Returns what the studies in some ledgers give.

    Args:
        ledgers: For each site, its trained rounds and its votes; only whether there are any counts.
    """
    charged = list(ledgers)
    votes_alone = any(votes for _, votes in charged) and not any(rounds for rounds, _ in charged)
    return Made.DATA_SET if votes_alone else Made.ADAPTER


def sent_words(kinds: Iterable[ReleaseKind]) -> str:
    """Counts what was sent, as in `12 updates and 2 private evaluations`."""
    found = Counter(kinds)
    return " and ".join(counted(found[kind], word) for kind, word in SENT.items() if found[kind])


def unchecked(outcome: Made) -> tuple[str, ...]:
    """Returns the claims that no evidence can show, in words."""
    is_data_set = outcome is Made.DATA_SET
    made = (
        "That the data set's records are those that the released votes chose; the bundle does not "
        "hold them."
        if is_data_set
        else "That the adapter is the aggregate of the released updates; the bundle does not hold "
        "them."
    )
    chosen = "candidate texts, labels" if is_data_set else "hyper-parameters, labels"
    card = "data set's card" if is_data_set else "adapter's card (README.md)"
    return (
        "That each site's records are what it says, and that no person has records at several "
        "sites.",
        "That each site ran this code unchanged: its operator could run another. Conformance "
        "(cloister audit run) tests code, not operators.",
        f"That the coordinator's list of received {'votes' if is_data_set else 'updates'} is "
        "complete, and that no site took part besides those whose keys were given.",
        made,
        f"That {chosen} and the base model were chosen without looking at the records.",
        f"The {card}, which no certificate covers.",
    )
