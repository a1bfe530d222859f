"""Lists what a site's policy changes in a study's plan, with the consequences."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from cloister.privacy.plan import Plan
from cloister.privacy.units import Unit

# The consequence of a stricter value, for each field that a policy may tighten. A field that is
# missing here is still listed, without a consequence.
_CONSEQUENCES = {
    "expected_batch_size": "batches are smaller, so each step learns from fewer records",
    "local_steps": "a round ends earlier, so the study learns less in all",
    "num_rounds": "the site takes no part in later rounds",
    "evaluations": "the site takes no part in later private evaluations",
    "noise_multiplier": "more noise: ε falls, and the model learns less exactly",
    "sample_rate": "each unit is in fewer batches: ε falls, and a round learns from fewer units",
    "max_grad_norm": "more is clipped; the noise shrinks as well, and ε stays",
    "delta": "ε is stated at the smaller δ, where it is larger",
}

_ISOLATED = (
    "every record is computed alone, so a round takes several times longer; ε and the result "
    "stay the same"
)


@dataclass(frozen=True)
class Change:
    """One field of a plan that a policy tightens.

    Attributes:
        name: The field's.
        asked: Its value in the study.
        accepted: Its value at the site.
        consequence: The consequence in words; may be empty.
    """

    name: str
    asked: Any
    accepted: Any
    consequence: str

    def __str__(self) -> str:
        asked, accepted = _short(self.asked), _short(self.accepted)
        said = f"{self.name}: {asked} asked, {accepted} by this site's policy"
        return f"{said}: {self.consequence}" if self.consequence else said


def _short(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def changes(asked: Plan, accepted: Plan, *, isolate_units: bool = False) -> tuple[Change, ...]:
    """Every field in which two plans differ, and the sample rate, which follows from two of them.

    Args:
        asked: The study's.
        accepted: The site's.
        isolate_units: Whether the site computes every record alone; no plan asks for that.
    """
    names = [field.name for field in fields(Plan) if field.name != "message"]
    found = [
        Change(name, getattr(asked, name), getattr(accepted, name), _consequence(name, accepted))
        for name in [*names, "sample_rate"]
        if getattr(asked, name) != getattr(accepted, name)
    ]
    if isolate_units:
        found.append(Change("isolate_units", False, True, _ISOLATED))
    return tuple(found)


def _consequence(name: str, accepted: Plan) -> str:
    if name == "unit" and accepted.unit is Unit.PERSON:
        most = accepted.max_records
        counted = "one record counts" if most == 1 else f"{most} records count"
        return (
            f"a person is hidden with all records, and of each person {counted} (max_records = "
            f"{most}): all others are never used, and public_records counts persons; to use more, "
            'ask the coordinator for privacy.unit = "person"'
        )
    return _CONSEQUENCES.get(name, "")


def as_rows(found: tuple[Change, ...]) -> list[dict[str, Any]]:
    """Returns the changes as JSON rows, one for each changed term."""
    return [
        {"field": c.name, "asked": c.asked, "accepted": c.accepted, "consequence": c.consequence}
        for c in found
    ]
