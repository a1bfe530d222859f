"""A study's labels: what its recipe or its public sets say, never what private records hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloister.data.records import Record
from cloister.data.values import shown
from cloister.errors import DataError
from cloister.tasks.config import TaskConfig
from cloister.tasks.plugins import labels_in


def study_labels(
    task: TaskConfig,
    train: Mapping[str, Sequence[Record]],
    public: Mapping[str, Sequence[Record]],
) -> tuple[str, ...]:
    """The labels in force: `task.labels`, else those of the public sets; never of private records.

    The head has a row per label, so a label from one private record would reveal it.

    Args:
        task: The section of the recipe.
        train: Training records by where they are from, for messages.
        public: Test and validation records, likewise.

    Raises:
        DataError: Records have labels that are not among these.
    """
    find = labels_in(task.kind)
    held = {
        where: {label for record in records for label in find(record)}
        for where, records in (*train.items(), *public.items())
    }
    labels = task.labels or tuple(sorted(set().union(*(held[where] for where in public))))
    for where, found in held.items():
        unknown = sorted(found - set(labels))
        if unknown:
            named = ", ".join(map(shown, unknown[:5]))
            raise DataError(
                f"{where} has labels that are not the study's: {named}; the "
                "study's are those of the public test set, unless task.labels names all of them"
            )
    return labels
