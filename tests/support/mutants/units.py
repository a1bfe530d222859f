"""Broken grouping: units that are not exactly one person's records."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from cloister.audit import audited_site as audit
from cloister.data.records import Record, TextRecord
from cloister.privacy.units import Unit
from cloister.training.units import EncodedUnits
from tests.support.mutants.registry import mutant

SOUND = audit.encode_units


def persons_are(patch: pytest.MonkeyPatch, name: Callable[[TextRecord], object]) -> None:
    """Records go together by another name than the person's."""

    def broken(records: Sequence[Record], task: Any, unit: Unit, *rest: Any) -> EncodedUnits:
        named = [
            replace(r, person=f"{r.person} {name(r)}") if isinstance(r, TextRecord) else r
            for r in records
        ]
        return SOUND(named, task, unit, *rest)

    patch.setattr(audit, "encode_units", broken)


@mutant("units", "units")
def a_person_is_a_unit_for_each_label(patch: pytest.MonkeyPatch) -> None:
    persons_are(patch, lambda record: record.label)


@mutant("units", "units")
def a_person_s_long_records_are_a_unit_of_their_own(patch: pytest.MonkeyPatch) -> None:
    persons_are(patch, lambda record: len(record.text) > 100)


@mutant("units", "units")
def every_record_is_a_unit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        audit,
        "encode_units",
        lambda records, task, unit, *rest: SOUND(records, task, Unit.RECORD, *rest),
    )


@mutant("units", "units")
def a_record_that_another_has_too_is_left_out(patch: pytest.MonkeyPatch) -> None:
    def broken(*given: Any) -> EncodedUnits:
        found, seen = SOUND(*given), set()
        units = []
        for unit in found.units:
            units.append(tuple(example for example in unit if example.input_ids not in seen))
            seen |= {example.input_ids for example in unit}
        return replace(found, units=tuple(units))

    patch.setattr(audit, "encode_units", broken)
