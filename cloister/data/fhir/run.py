"""Converts FHIR files into one file of records, and counts what is left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from cloister.data.fhir.labels import LabelPath
from cloister.data.fhir.patients import LeftOutError, Patients
from cloister.data.fhir.resources import Found, resources, text
from cloister.data.fhir.texts import KINDS, text_of, time_of
from cloister.data.outputs import sha256_of
from cloister.data.step_writing import DataStep, new_logged_file, write_first_step
from cloister.data.values import Row, Value
from cloister.errors import DataError, UsageError
from cloister.files import identity_of

# The reasons why a resource is left out.
REASONS = {
    "not-current": "its status is entered-in-error, superseded or cancelled",
    "no-text": "it holds no text",
    "by-url": "its text is given by URL, and nothing is fetched",
    "other-type": "its attachments are neither text/plain nor text/html",
    "damaged": "its attachment is not base64, or not of its charset",
    "no-patient": "it names no patient",
    "not-a-patient": "its subject is no patient",
    "patient-missing": "its patient is not in the files",
    "contained-patient": "its patient is inside it and has no identifier",
    "no-identifier": "its patient has no identifier of the system asked for",
    "no-label": "it has no such label",
    "several-labels": "it has several different labels",
    "repeated": "one of the same patient and id came before",
}
# Most types of other resources that a report lists, and most characters of a name.
NAMED, SHOWN = 40, 64
# Resources between two progress messages.
TOLD_EVERY = 500


@dataclass(frozen=True, kw_only=True)
class FhirOptions:
    """The options of `fhir_file`.

    Attributes:
        kinds: The resources that are read, of `texts.KINDS`.
        label: The path to a record's label; None: records have none.
        system: The system of the identifier that names persons; None: references and ids name them.
        progress: Is called now and then with the number of resources read.
    """

    kinds: Sequence[str] = KINDS
    label: LabelPath | None = None
    system: str | None = None
    progress: Callable[[int], object] | None = None

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise UsageError(f"--resource {unknown[0]}: not supported; give {' or '.join(KINDS)}")


@dataclass
class FhirReport:
    """Counts of what was read and written: true counts of private records, for their owner only.

    Attributes:
        rows: Rows that were written.
        kinds: Rows by kind of resource.
        persons: Patients that have a row.
        unknown_patients: Rows whose patient is known by reference only, not from the files.
        written: Attachments that were used, by content type and encoding.
        left_out: Resources that were left out, by reason.
        others: Resources of other types, which are not read, by type.
    """

    rows: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    persons: int = 0
    unknown_patients: int = 0
    written: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON values."""
        return {
            "rows": self.rows,
            "by_resource": dict(self.kinds),
            "persons": self.persons,
            "rows_of_patients_not_in_the_files": self.unknown_patients,
            "attachments": dict(self.written),
            "left_out": {
                reason: self.left_out[reason] for reason in REASONS if self.left_out[reason]
            },
            "others": dict(self.others.most_common(NAMED)),
        }


def fhir_file(paths: Sequence[Path], out: Path, options: FhirOptions | None = None) -> FhirReport:
    """Writes the texts of FHIR resources as records: `text`, `label`, `person`, `id`, `time`.

    The files are read twice, for patients first, because a resource may come before its patient.

    Args:
        paths: Bundles, or one resource per line (`.json`, `.jsonl`, `.ndjson`, also with `.gz`).
        out: A new file: `.jsonl`, `.csv` or `.parquet`; its log is written beside it.
        options: The options; absent: documents and observations, without labels.

    Raises:
        UsageError: `out` exists already, or a file is named twice.
        DataError: A file is missing, damaged, not FHIR or changed while it was read, or no resource
            becomes a record; nothing is written then.

    Guarantees:
        Nothing is fetched. References are followed only to patients and inside of the resource.
        Whether a resource becomes a record, and which, depends on it and on resources of the same
        patient only.
    """
    options = options or FhirOptions()
    if len({path.absolute() for path in paths}) < len(paths):
        raise UsageError("FILE: one file is named twice; name each file once")
    with new_logged_file(out) as (writer, content):
        run = _Conversion(options)
        before = _identities(paths)
        for found in _each(paths):
            if found.kind == "Patient":
                run.patients.add(found)
        run.patients.end()
        for found in _each(paths):
            if (row := run.row(found)) is not None:
                writer.add(row, found.where)
        report = run.ended()
        if not report.rows:
            raise DataError(f"{paths[0]}: no record ({_why(report)}); give other files or options")
        writer.end()
        origin = {"files": [_origin(path) for path in paths]}
        if _identities(paths) != before:
            raise DataError(f"{paths[0]}: changed while it was read; run the command again")
        label = options.label
        settings = {
            "resources": list(options.kinds),
            "label": label.path if label else None,
            "label_system": label.system if label else None,
            "identifier": options.system,
        }
        step = DataStep("fhir", settings, report.to_json())
        write_first_step(origin, out, content, step)
    return report


def _each(paths: Sequence[Path]) -> Iterator[Found]:
    for path in paths:
        yield from resources(path)


def _identities(paths: Sequence[Path]) -> list[tuple[int, ...]]:
    return [identity_of(path) for path in paths if path.exists()]


def _origin(path: Path) -> Mapping[str, Any]:
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _why(report: FhirReport) -> str:
    if report.left_out:
        reason, count = report.left_out.most_common(1)[0]
        return f"{count} left out: {REASONS[reason]}"
    kinds = ", ".join(kind for kind, _ in report.others.most_common(3))
    return f"found: {kinds or 'no resource'}"


class _Conversion:
    """The second reading: makes rows of resources, and counts what is left out."""

    def __init__(self, options: FhirOptions) -> None:
        self._options = options
        self.patients = Patients(options.system)
        self._report = FhirReport()
        self._read = 0
        self._seen: set[bytes] = set()
        self._persons: set[str] = set()

    def row(self, found: Found) -> Row | None:
        """Returns the row of a resource; None: it is left out."""
        report, options = self._report, self._options
        self._read += 1
        if options.progress is not None and self._read % TOLD_EVERY == 0:
            options.progress(self._read)
        if found.kind not in options.kinds:
            if found.kind != "Patient":
                report.others["".join(c for c in found.kind[:SHOWN] if c.isalnum())] += 1
            return None
        try:
            row = self._row(found)
        except LeftOutError as left_out:
            report.left_out[left_out.reason] += 1
            return None
        report.rows += 1
        report.kinds[found.kind] += 1
        return row

    def _row(self, found: Found) -> Row:
        resource, label = found.resource, self._options.label
        person, is_known = self.patients.person(resource)
        read = text_of(resource, with_code=label is None or not label.is_code)
        row: dict[str, Value] = {"text": read.text}
        if label is not None:
            row["label"] = label.label(resource)
        identity = text(resource.get("id"))
        name = found.full_url or (f"{found.kind}/{identity}" if identity else None)
        if name is not None:
            # The key has the person: whether a record stays must not depend on another person's
            # records.
            digest = blake2b(f"{person}\n{name}".encode("utf-8", "surrogatepass"), digest_size=8)
            if digest.digest() in self._seen:
                raise LeftOutError("repeated")
            self._seen.add(digest.digest())
        self._report.unknown_patients += not is_known
        self._persons.add(person)
        if read.content_type:
            self._report.written[f"{read.content_type}, {read.encoding}"] += 1
        return row | {"person": person, "id": name, "time": time_of(resource)}

    def ended(self) -> FhirReport:
        """Returns the report, once all resources were read."""
        self._report.persons = len(self._persons)
        return self._report
