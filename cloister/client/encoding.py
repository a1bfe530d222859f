"""A site's records as an accepted study reads them: a function that no record makes fail."""

from __future__ import annotations

from collections.abc import Sequence

from cloister.data.records import Record
from cloister.privacy.plan import Plan
from cloister.privacy.units import Unit
from cloister.tasks.task import Example
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace


def encoded_units(
    records: Sequence[Record], workspace: Workspace, plan: Plan
) -> tuple[UnitExamples, ...]:
    """Encodes records, together where they are one unit's.

    Args:
        records: As they were read under the site's own command; private.
        workspace: Of the accepted study.
        plan: Of the site in it: whose presence is hidden, and how many of a person's records count.

    Returns:
        Units in the order of their first record. One whose records cannot be used is empty: it is
        drawn like any other and contributes zero.

    Guarantees:
        Never raises for a record: what cannot be encoded, has a label that the study does not
        name, or a token beyond the base's vocabulary is left out.
    """
    if plan.unit is Unit.RECORD:
        return tuple(_usable([record], workspace) for record in records)
    persons: dict[str | None, list[Record]] = {}
    for record in records:
        persons.setdefault(record.person, []).append(record)
    unknown = len(persons.pop(None, []))  # records that name nobody are nobody's
    known = [_usable(person[: plan.max_records], workspace) for person in persons.values()]
    return (*known, *[()] * unknown)


def _usable(records: Sequence[Record], workspace: Workspace) -> UnitExamples:
    found = []
    vocabulary = len(workspace.network.backbone.get_input_embeddings().weight)
    for record in records:
        try:
            example: Example = workspace.task.encode(record)
        except Exception:
            continue  # of whatever kind: which one it is would tell of the record
        ids = example.input_ids
        if ids and 0 <= min(ids) <= max(ids) < vocabulary:
            found.append(example)
    return tuple(found)
