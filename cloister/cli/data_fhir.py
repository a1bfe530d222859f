"""`cloister data fhir`: writes the texts of FHIR resources as a file of records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli.arguments import AsJson

if TYPE_CHECKING:
    from cloister.data.fhir.run import FhirReport


def fhir(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…",
            readable=False,  # the reader checks it, with the exit code of a bad file
            help="FHIR R4 or R5 as JSON: bundles, or resources one a line (NDJSON); also .gz.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="A new file: .jsonl, .csv or .parquet.")
    ],
    label: Annotated[
        str | None,
        typer.Option(
            metavar="ELEMENT",
            help="The path to a record's label: category, code, type.coding.display, …. Resources "
            "without one, or with several, are left out. Absent: no labels.",
        ),
    ] = None,
    label_system: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Use only codings of this system for --label."),
    ] = None,
    resource: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPE",
            help="DocumentReference or Observation; may be repeated. Absent: both.",
        ),
    ] = None,
    identifier: Annotated[
        str | None,
        typer.Option(
            metavar="SYSTEM",
            help="Persons are named by the patients' identifier of this system, such as a medical "
            "record number. Absent: by references and ids.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the texts of FHIR documents and observations as records, each with its person.

    Of a DocumentReference it reads embedded attachments of type text/plain and text/html; of an
    Observation valueString, notes and code. Nothing is fetched: attachments given by URL are left
    out and counted. A log is written beside the new file. Nothing leaves this machine.

    Example: cloister data fhir bundle.json --out notes.jsonl --label type
    """
    from cloister.cli.row_progress import row_progress
    from cloister.data.fhir.labels import LabelPath
    from cloister.data.fhir.run import FhirOptions, fhir_file
    from cloister.data.fhir.texts import KINDS
    from cloister.errors import UsageError

    if label is None and label_system is not None:
        raise UsageError("--label-system: has no effect without --label; give --label too")
    with row_progress("read") as progress:
        options = FhirOptions(
            kinds=tuple(resource or KINDS),
            label=None if label is None else LabelPath(label, label_system),
            system=identifier,
            progress=progress,
        )
        report = fhir_file(files, out, options)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
        return
    _print(report, out)


def _print(report: FhirReport, out: Path) -> None:
    from cloister.cli.terminal import Terminal
    from cloister.data.fhir.run import REASONS
    from cloister.names import counted

    console, document = Terminal(), report.to_json()
    console.print(
        f"{counted(report.rows, 'record')} of {counted(report.persons, 'person')}; "
        f"written to {out}",
        soft_wrap=True,
    )
    for written, count in document["attachments"].items():
        console.print(f"attachments in {written}: {count}", soft_wrap=True)
    if report.unknown_patients:
        console.print(
            f"{counted(report.unknown_patients, 'record')} of patients that are not in the files: "
            "known by reference only",
            soft_wrap=True,
        )
    for reason, count in document["left_out"].items():
        console.print(f"left out, {REASONS[reason]}: {count}", soft_wrap=True)
    if document["others"]:
        others = ", ".join(f"{kind} {count}" for kind, count in document["others"].items())
        console.print(f"other resources, not read: {others}", soft_wrap=True)
