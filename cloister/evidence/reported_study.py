"""The facts that a report states about its study: name, coordinator, model, dates, records.

They come from a recipe or an adapter's `cloister.json`. A ledger alone knows only a study's digest;
then the report says that the facts are unknown, and takes nothing from a file's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cloister.evidence.fingerprint import MOST_TOLD, Hashed
from cloister.evidence.report_document import Table
from cloister.json_text import read_json
from cloister.ledger.replay import ChargedRound
from cloister.names import counted
from cloister.printable import one_line
from cloister.recipe import Recipe

# Most characters that a report shows of another party's text; longer names are cut.
LONGEST_SHOWN = 120
UNKNOWN = "not known from this evidence"
SIMULATED = "none: simulated on one machine"


@dataclass(frozen=True, kw_only=True)
class ReportedStudy:
    """Facts of a study as text; None: not known.

    Attributes:
        name: The name in its recipe.
        coordinator: Who ran it, as stated by the person who makes the report.
        model: The frozen base that was fine-tuned, with its SHA-256.
        task: The kind of task.
        purpose: Its purpose, as stated by the person who makes the report.
        records_per_person: How many records of one person count.
    """

    name: str | None = None
    coordinator: str | None = None
    model: str | None = None
    task: str | None = None
    purpose: str | None = None
    records_per_person: str | None = None


def of_recipe(recipe: Recipe) -> ReportedStudy:
    """Returns the facts in a run's recipe."""
    privacy = recipe.privacy
    return ReportedStudy(
        name=recipe.study.name,
        model=_model(recipe.model.base, recipe.model.sha256),
        task=recipe.task.kind,
        records_per_person=(
            f"at most {counted(privacy.max_records_per_person, 'record')} of one person; "
            "further ones are left out"
            if privacy.unit == "person"
            else "not bounded: the promise is for one record; a person with several is "
            "protected less"
        ),
    )


def of_adapter(content: bytes | Hashed | None) -> ReportedStudy:
    """Returns the facts in the `cloister.json` of a bundle's adapter; empty if it is missing or
    damaged."""
    try:
        document: Any = (
            read_json(content, most_bytes=MOST_TOLD) if isinstance(content, bytes) else {}
        )
        model, kind = document["model"], document["task"]["kind"]
        base, sha256 = str(model["base"]), str(model["sha256"])
    except (ValueError, KeyError, TypeError):
        return ReportedStudy()
    return ReportedStudy(
        model=_model(one_line(base, LONGEST_SHOWN), one_line(sha256, 64)),
        task=one_line(str(kind), LONGEST_SHOWN),
    )


def title_of(study: ReportedStudy, rounds: Iterable[ChargedRound]) -> str:
    """Returns a report's title: the study's name, or its digest from the ledgers."""
    if study.name is not None:
        return f"Privacy report: {study.name}"
    digests = sorted({charged.study for charged in rounds})
    if len(digests) == 1:
        return f"Privacy report: study {digests[0][:12]}"
    return f"Privacy report: {f'{len(digests)} studies' if digests else 'no study yet'}"


def facts_table(study: ReportedStudy, sites: Mapping[str, Iterable[ChargedRound]]) -> Table:
    """Returns the table that opens a report.

    Args:
        study: The known facts.
        sites: Charged rounds of each site.
    """
    rounds = [charged for every in sites.values() for charged in every]
    times = sorted(charged.time for charged in rounds)
    dates = f"{times[0]} to {times[-1]} (first and last charge, by the sites' clocks)"
    digests = sorted({charged.study for charged in rounds})
    return Table(
        ("", "as recorded"),
        [
            ("study", study.name or UNKNOWN),
            ("digest of its recipe", ", ".join(d[:16] for d in digests) or "nothing was charged"),
            ("coordinator", study.coordinator or "not stated (--coordinator adds it)"),
            ("base model", study.model or UNKNOWN),
            ("task", study.task or UNKNOWN),
            ("purpose", study.purpose or "not stated (--purpose adds it)"),
            ("dates", dates if times else "nothing was charged"),
            ("records of a person", study.records_per_person or UNKNOWN),
            ("sites", ", ".join(sites)),
        ],
        "The study",
    )


def _model(base: str, sha256: str | None) -> str:
    return base if not sha256 else f"{base} (weights SHA-256 {sha256[:16]}…)"
