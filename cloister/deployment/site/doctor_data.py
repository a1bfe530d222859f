"""Checks whether a site's records can be read, which units they form, and which rows do not fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cloister.client.held_out_terms import held_out_of
from cloister.client.site_file import SiteFile
from cloister.data.census import census
from cloister.data.unit_column import UNIT
from cloister.deployment.site.checks import CheckLevel, Outcome
from cloister.deployment.site.records import Misfit, SiteRecords, left_out, read_records
from cloister.names import counted
from cloister.privacy.units import Unit

# Ratio of declared and true size from which ε or the batches differ much from the intention.
DECLARED_FACTOR = 2.0
# δ must stay well below one over the number of units: at 1/n, a mechanism that publishes one
# unit at random still meets it. A tenth of that is the usual rule (Dwork and Roth 2014, §2.3).
DELTA_SHARE = 0.1
# Most rows that a message names.
NAMED = 5


@dataclass(frozen=True)
class DataFinding:
    """An unusual property of the records.

    Attributes:
        note: What was found.
        remedy: What to do.
    """

    note: str
    remedy: str


def describe(file: SiteFile, found: SiteRecords) -> tuple[str, tuple[DataFinding, ...]]:
    """Describes the records' privacy units, and unusual properties of them.

    Args:
        file: The site's.
        found: Its records.

    Returns:
        One line and the findings, with true numbers, for the operator only.

    Raises:
        BadFileError, LedgerError: As `held_out_words`.
    """
    unit = file.policy.privacy.unit
    named = [r for r in found.records if unit is Unit.RECORD or r.person is not None]
    counts = census(named, unit)
    findings = [DataFinding(warning, "correct the identifiers") for warning in counts.warnings]
    findings += _declared(file, counts.units)
    if unit is Unit.PERSON:
        findings += _nameless(found)
    findings += _misfits(found)
    findings += _of_several(found)
    return f"{counts}{held_out_words(file, found)}", tuple(findings)


def held_out_words(file: SiteFile, found: SiteRecords) -> str:
    """Says how many of a site's records are held out of training; empty where none are.

    Args:
        file: The site's.
        found: All of its records.

    Raises:
        BadFileError: What was fixed for the data set is damaged, or `site.toml` declares another
            share (`client.held_out_terms`).
        LedgerError: The key that chooses the records is damaged.
    """
    share, held_out = file.site.held_out_share, held_out_of(file)
    if share is None:
        return ""
    if held_out is None:
        return (
            f" · about {100 * share:.3g} % will be held out of training (site.held_out_share), "
            "from the first study on"
        )
    apart = len(found.kept_apart(held_out).records)
    return f" · {counted(apart, 'record')} held out of training (site.held_out_share = {share:g})"


def _of_several(found: SiteRecords) -> Iterator[DataFinding]:
    """Finds records whose copies name different persons, so that no person's ε covers them all."""
    persons: dict[str, set[str | None]] = {}
    for record in found.records:
        if record.unit is not None:
            persons.setdefault(record.unit, set()).add(record.person)
    crossed = sum(len(names) > 1 for names in persons.values())
    if crossed:
        yield DataFinding(
            f"the rows of {counted(crossed, 'record')} ({UNIT}) name several persons",
            "give a record's copies its person: copies of one person's record belong to that "
            "person",
        )


def _declared(file: SiteFile, units: int) -> Iterator[DataFinding]:
    declared, delta = file.site.public_records, file.policy.budget.delta
    if not 1 / DECLARED_FACTOR <= declared / max(units, 1) <= DECLARED_FACTOR:
        yield DataFinding(
            f"{declared} {'is' if declared == 1 else 'are'} declared",
            "declare a round number closer to it in site.public_records: the sample rate depends "
            "on it",
        )
    if delta > DELTA_SHARE / declared:
        yield DataFinding(
            f"budget.delta = {delta:g} is above 1/(10 × site.public_records) = "
            f"{DELTA_SHARE / declared:.2g}: with so few units it allows some to be exposed",
            "before the ledger is begun, set budget.delta to at most "
            f"{10.0 ** math.floor(math.log10(DELTA_SHARE / declared)):g}",
        )


def _nameless(found: SiteRecords) -> Iterator[DataFinding]:
    for reason, misfits in _by_reason(found.nameless):
        verb = "names" if len(misfits) == 1 else "name"
        yield DataFinding(
            f"{counted(len(misfits), 'record')} {verb} no person that could be used: {reason} "
            f"({_rows(misfits)})",
            f"name one in each; without one a record is never used: {misfits[0].problem}",
        )


def _misfits(found: SiteRecords) -> Iterator[DataFinding]:
    for reason, misfits in _by_reason(found.misfits):
        yield DataFinding(
            f"{left_out(len(misfits))}: {reason} ({_rows(misfits)})",
            f"correct them: row {misfits[0].row}: {misfits[0].problem}",
        )


def _by_reason(misfits: Sequence[Misfit]) -> list[tuple[str, list[Misfit]]]:
    found: dict[str, list[Misfit]] = {}
    for misfit in misfits:
        found.setdefault(misfit.reason, []).append(misfit)
    return list(found.items())


def _rows(misfits: Sequence[Misfit]) -> str:
    rows = [str(misfit.row) for misfit in misfits[:NAMED]]
    return f"row {', '.join(rows)}{', …' if len(misfits) > NAMED else ''}"


class DataCheck:
    """Reads the records, and keeps them for the checks of a study.

    Args:
        file: The site's.

    Attributes:
        found: The records; None before they are read, and if they cannot be read.
    """

    def __init__(self, file: SiteFile) -> None:
        self._file = file
        self.found: SiteRecords | None = None

    def __call__(self) -> Outcome:
        """Reads the records and reports which units they form.

        Raises:
            CloisterError: The records cannot be read, or form no unit.
        """
        self.found = read_records(self._file)
        counts, findings = describe(self._file, self.found)
        text = f"{counts} (never sent)"
        if not findings:
            return Outcome("data", CheckLevel.PASS, text)
        return Outcome(
            "data",
            CheckLevel.WARN,
            " · ".join([text, *(f.note for f in findings)]),
            " · ".join(dict.fromkeys(f.remedy for f in findings)),
        )
