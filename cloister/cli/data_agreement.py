"""`cloister data agreement`: measures how far annotators agree, and merges their answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli.arguments import AsJson

if TYPE_CHECKING:
    from cloister.labelling.agreement import AgreementReport


def agreement(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE FILE…",
            readable=False,
            help="Two or more annotators' files, as `cloister data label` writes them.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a new file of the majority's answers (of scores, the median): .jsonl, "
            ".csv or .parquet.",
        ),
    ] = None,
    disputed: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a new file of the records that annotators answered differently, with "
            "each annotator's answer.",
        ),
    ] = None,
    decided: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="Decisions on those records, labelled like any file: they replace the majority.",
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of answers. Absent: the one in the first file's log.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the intervals' resamples.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure how far annotators agree on the same records, and merge their answers.

    Prints raw agreement, Cohen's kappa (two annotators) or Fleiss' kappa (more), and Krippendorff's
    alpha, for whole answers and for each label, with 95% intervals from 1,000 resamples of the
    records. The output is private: it has true figures of private records.

    Example: cloister data agreement ann.jsonl bo.jsonl --out merged.jsonl --disputed disputed.jsonl
    """
    from cloister.data.outputs import check_new
    from cloister.data.step_log import log_of
    from cloister.errors import UsageError
    from cloister.labelling.agreement import agreement as computed
    from cloister.labelling.annotated import read_annotated
    from cloister.labelling.merge import merge, read_decided, write_disputed, write_merged

    if out is not None and out == disputed:
        raise UsageError(f"--disputed: {disputed} is the same as --out; give two files")
    for new in (out, disputed):
        if new is not None:
            check_new(new)
    annotated = read_annotated(files, column)
    report = computed(annotated, seed)
    final = None if decided is None else read_decided(decided, annotated)
    merged = merge(annotated, final)
    written = {}
    if out is not None:
        written[str(out)] = write_merged(annotated, merged, out, files)
    if disputed is not None:
        try:
            written[str(disputed)] = write_disputed(annotated, merged, disputed)
        except BaseException:  # write both files or none
            if out is not None:
                for made in (out, log_of(out)):
                    made.unlink(missing_ok=True)
            raise
    if as_json:
        typer.echo(json.dumps({**report.to_json(), "written": written}))
        return
    _print(report, len(merged.disputed), written)


def _print(report: AgreementReport, disputed: int, written: dict[str, int]) -> None:
    from rich.table import Table

    from cloister.cli.terminal import Terminal
    from cloister.labelling.table import table_of

    console = Terminal()
    console.print(f"annotators: {', '.join(report.annotators)}", soft_wrap=True)
    console.print(
        f"{report.records} records answered by two or more, {report.by_all} by all; "
        f"{report.unanimous} unanimous, {disputed} disputed",
        soft_wrap=True,
    )
    table = Table(box=None, header_style="bold")
    for heading in ("agreement", "value", "95% interval"):
        table.add_column(heading, justify="left" if heading == "agreement" else "right")
    for name, value, low, high in table_of(report):
        interval = "–" if low is None or high is None else f"{low:.3f} to {high:.3f}"
        table.add_row(name, "not defined" if value is None else f"{value:.3f}", interval)
    console.print(table)
    for path, rows in written.items():
        line = f"{rows} records written to {path}" if rows else f"none for {path}: not written"
        console.print(line, soft_wrap=True)
    console.print("These figures are about private records: for this institution only.")
