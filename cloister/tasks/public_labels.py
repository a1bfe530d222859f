"""Returns a study's labels, from its recipe or its public sets, never from private records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloister.data.records import Record
from cloister.data.values import shown
from cloister.errors import DataError
from cloister.tasks.build import labels_of


def study_labels(
    declared: tuple[str, ...],
    kind: str,
    train: Mapping[str, Sequence[Record]],
    public: Mapping[str, Sequence[Record]],
) -> tuple[str, ...]:
    """Returns the study's labels; they never come from private records.

    The head has a row per label, so a label from one private record would reveal it.

    Args:
        declared: `task.labels`; empty: the labels of the public sets.
        kind: The task's kind.
        train: Training records by where they are from, for messages.
        public: Test and validation records, likewise.

    Raises:
        DataError: Records have labels that are not among these.
    """
    labels = declared or labels_of([r for records in public.values() for r in records], kind)
    for where, records in (*train.items(), *public.items()):
        unknown = sorted(set(labels_of(records, kind)) - set(labels))
        if unknown:
            named = ", ".join(map(shown, unknown[:5]))
            known = (
                "task.labels must name every label of the code book"
                if declared
                else "they are those of the public test set, unless task.labels names all of them"
            )
            raise DataError(f"{where} has labels that are not the study's: {named}; {known}")
    return labels
