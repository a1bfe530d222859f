"""Whether a site's records can be read, what units they are of, and which rows do not fit."""

from __future__ import annotations

from cloister.client.checks import Level, Outcome
from cloister.client.records import SiteRecords, read_records
from cloister.client.site_file import SiteFile
from cloister.data.census import census
from cloister.privacy.units import Unit

# A declared size so far from the true one makes ε or the batches another than meant.
DECLARED_FACTOR = 2.0
# Rows that a message names; the operator finds the rest once these are mended.
NAMED = 5


class DataCheck:
    """Reads the records; what it found is kept for the checks of a study.

    Args:
        file: The site's.

    Attributes:
        found: The records; None before they were read, and where they cannot be.
    """

    def __init__(self, file: SiteFile) -> None:
        self._file = file
        self.found: SiteRecords | None = None

    def __call__(self) -> Outcome:
        """Makes the check.

        Raises:
            CloisterError: The records cannot be read.
        """
        found = self.found = read_records(self._file)
        unit, declared = self._file.policy.privacy.unit, self._file.site.public_records
        named = [r for r in found.records if unit is Unit.RECORD or r.person is not None]
        counted = census(named, unit)
        notes = list(counted.warnings)
        remedies = ["correct the identifiers"] if notes else []
        if not 1 / DECLARED_FACTOR <= declared / max(counted.units, 1) <= DECLARED_FACTOR:
            notes.append(f"{declared} are declared")
            remedies.append(
                "declare a round number nearer to it in site.public_records: the sample rate "
                "follows it"
            )
        if len(named) < len(found.records):
            notes.append(f"{len(found.records) - len(named)} records name no person")
            remedies.append("name one in each; without one a record is never used")
        for reason, count in found.reasons.items():
            rows = [str(m.row) for m in found.misfits if m.reason == reason]
            more = ", …" if count > NAMED else ""
            notes.append(
                f"{count} rows are left out: {reason} (row {', '.join(rows[:NAMED])}{more})"
            )
        if found.misfits:
            remedies.append(f"correct them: row {found.misfits[0].row}: {found.misfits[0].problem}")
        told = f"{counted} (told to nobody)"
        if notes:
            return Outcome("data", Level.WARN, " · ".join([told, *notes]), " · ".join(remedies))
        return Outcome("data", Level.PASS, told)
