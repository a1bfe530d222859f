"""Finds the built-in generators by name; they give records of made-up people without a file."""

from __future__ import annotations

from collections.abc import Sequence

from cloister.data.config import GENERATED, QUESTIONS
from cloister.data.records import Record, RecordKind
from cloister.errors import DataError

_WORDS = {
    "text": "texts with one label",
    "pairs": "pairs of texts",
    "labels": "texts with several labels",
    "score": "texts with a score",
    "items": "people's items",
    "messages": "conversations",
}


def is_generated(source: str) -> bool:
    """Returns whether a source is one of the built-in generators."""
    return source == QUESTIONS or source in GENERATED.values()


def check_generated(source: str, kind: RecordKind) -> None:
    """Refuses a generator whose records the task cannot read.

    Raises:
        DataError: Its records are of another kind.
    """
    holds = [one for one, name in GENERATED.items() if name == source]
    if source == QUESTIONS:
        holds = ["text"]
    if kind not in holds:
        own = f"; {GENERATED[kind]} has records for it" if kind in GENERATED else ""
        held = " and ".join(_WORDS[one] for one in holds)
        raise DataError(
            f"{source} holds {held}, which this task does not read; give other data{own}"
        )


def generated(source: str, kind: RecordKind, *, train: bool) -> list[Record]:
    """Returns the records of a generator, with seed 0.

    Args:
        source: Its name in `data.train`.
        kind: The kind of record that the task reads.
        train: Whether to return the training set; else the test set.

    Raises:
        DataError: Its records are of another kind.
    """
    check_generated(source, kind)
    halves: tuple[Sequence[Record], Sequence[Record]]
    if source == QUESTIONS:
        from cloister.data.synthetic_questions import hospital_questions

        halves = hospital_questions()
    elif kind == "labels":
        from cloister.data.synthetic_referrals import referral_letters

        halves = referral_letters()
    elif kind == "score":
        from cloister.data.synthetic_answers import marked_answers

        halves = marked_answers()
    elif kind == "items":
        from cloister.data.synthetic_shops import shop_customers

        halves = shop_customers()
    elif kind == "messages":
        from cloister.data.synthetic_desks import desk_chats

        halves = desk_chats()
    elif kind == "pairs":
        from cloister.data.synthetic_pairs import hospital_claims

        halves = hospital_claims()
    else:
        from cloister.data.synthetic import hospital_notes

        halves = hospital_notes()
    return list(halves[0] if train else halves[1])
