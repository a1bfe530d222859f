"""Generates records of any task's kind, for audits, which may inspect every result of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from cloister.data.records import (
    ChatRecord,
    ItemsRecord,
    LabelsRecord,
    Message,
    PairRecord,
    Record,
    RecordKind,
    ScoreRecord,
    TextRecord,
    TokenRecord,
)
from cloister.data.synthetic import training_notes

# Words of a record: short, usual and long, so that batches are ragged.
LENGTHS = (3, 12, 40)


def made_up_records(
    kind: RecordKind,
    labels: Sequence[str],
    persons: int,
    each: int,
    scores: tuple[float, float] = (0.0, 1.0),
) -> list[Record]:
    """Makes records of a given number of persons.

    Args:
        kind: The kind of record that the task reads.
        labels: Class names, tags or ids of items; none for conversations.
        persons: Number of persons.
        each: Most records of one person; persons have 1, 2, … records in turn.
        scores: The lowest and the highest score, which the records have.
    """
    draw = random.Random(0)
    words = " ".join(note.text for note in training_notes(50)).split()
    records: list[Record] = []
    for person in range(persons):
        for _ in range(1 + person % each):
            text = draw.choices(words, k=LENGTHS[len(records) % len(LENGTHS)])
            name = f"person {person}"
            if kind == "text":
                records.append(TextRecord(" ".join(text), draw.choice(labels), person=name))
            elif kind == "labels":
                several = tuple(label for label in labels if draw.random() < 0.5)
                records.append(LabelsRecord(" ".join(text), several, person=name))
            elif kind == "score":
                records.append(ScoreRecord(" ".join(text), draw.choice(scores), person=name))
            elif kind == "items":
                had = draw.sample(labels, min(len(text), len(labels)))
                records.append(ItemsRecord(tuple(had), person=name))
            elif kind == "pairs":
                half = len(text) // 2 or 1
                parts = " ".join(text[:half]), " ".join(text[half:])
                label = draw.choice(labels)
                records.append(PairRecord(parts[0], label, person=name, text_b=parts[1]))
            elif kind == "tokens":
                tags = tuple(draw.choice(labels) for _ in text)
                records.append(TokenRecord(tuple(text), tags, person=name))
            else:
                half = len(text) // 2 or 1
                turns = (
                    Message("user", " ".join(text[:half])),
                    Message("assistant", " ".join(text[half:]) or "yes"),
                )
                other = (turns[0], Message("assistant", " ".join(text[:half])))
                records.append(ChatRecord(turns, person=name, rejected=other))
    return records
