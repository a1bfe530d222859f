"""Conformance of units: removing one person's records removes one unit and changes no other.

Clipping bounds the influence of a unit. It bounds a person's influence only if all records of the
person form one unit, and no other unit depends on them.
"""

from __future__ import annotations

from dataclasses import replace

from cloister.audit.audited_site import AuditedSite, encoded
from cloister.audit.statistics import Check, exact_check
from cloister.privacy.units import Unit


def unit_check(site: AuditedSite) -> Check:
    """Removes each person of a site in turn, or each record if records are the units.

    The last person also has a copy of the first person's first record. Where records are the units,
    the first record has a copy at the end (`Record.unit`), which goes with it.

    Args:
        site: The audited site.
    """
    by_person = site.plan.unit is Unit.PERSON
    records = [*site.records, replace(site.records[0], person=site.records[-1].person)]
    if not by_person:
        records[0] = replace(records[0], unit="one")
        records.append(records[0])
    owners = [
        record.person if by_person else record.unit or place for place, record in enumerate(records)
    ]

    def without(owner: object) -> tuple[object, ...]:
        left = [record for one, record in zip(owners, records, strict=True) if one != owner]
        return encoded(left, site.workspace.task, site.plan)

    whole: tuple[object, ...] = encoded(records, site.workspace.task, site.plan)
    one_less = [whole[:at] + whole[at + 1 :] for at in range(len(whole))]
    failures = sum(without(owner) not in one_less for owner in dict.fromkeys(owners))
    return exact_check(
        "units",
        f"{'persons' if by_person else 'records'} whose removal does not remove exactly one "
        "unit, or changes another unit",
        failures,
    )
