"""`cloister model bias`: whom a finished model treats worse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def bias(
    run: Annotated[Path, typer.Argument(metavar="RUN_OR_ADAPTER", help="A run or its adapter.")],
    out: Annotated[
        Path, typer.Option(help="A new folder for index.html, bias.json and words.txt.")
    ],
    group: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="A column of the test file, whose values are groups."),
    ] = None,
    terms: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='TOML with the terms of each group, looked for in the texts: women = ["she"].',
        ),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(
            help="Measure on this file, which you declare public. Absent: the run's public test "
            "file. Never private records."
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="Another run of the same task, such as one without privacy."
        ),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="For chat models: CrowS-Pairs' CSV, or a file with its columns."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the intervals and of the permutation test.")
    ] = 0,
    base: Annotated[
        str | None,
        typer.Option(help="The base model's folder here. Absent: as the adapter names it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure scores, selection and error rates and calibration by group, with 95 % intervals.

    Example: cloister model bias runs/clinics --group sex --against runs/clinics-plain --out groups
    """
    from cloister.trust.attack.page import figure
    from cloister.trust.bias.writing import measure_bias

    done = measure_bias(
        run,
        out,
        group=group,
        terms=terms,
        test=test,
        pairs=pairs,
        against=against,
        seed=seed,
        base=base,
        on_stage=lambda stage: typer.echo(f"… {stage}", err=True),
    )
    if as_json:
        typer.echo(json.dumps(done.document, ensure_ascii=False))
        return
    from rich.table import Table

    from cloister.cli.terminal import Terminal

    console = Terminal()
    if done.found is not None:
        table = Table(box=None, header_style="bold")
        for column in (
            "group",
            "records",
            f"{done.document['metric']} (95 %)",
            "calibration error",
        ):
            table.add_column(column, justify="left" if column == "group" else "right")
        for one in done.found.groups:
            table.add_row(one.name, str(one.records), figure(one.score), figure(one.calibration))
        console.print(table)
        typer.echo(
            f"largest gap {done.found.gap:.3f}; groups drawn at random have it in "
            f"{done.found.chance:.1%} of draws",
            err=True,
        )
    for kind, share in done.pairs.items():
        console.print(f"{kind}: {figure(share)}", highlight=False)
    typer.echo(str(done.folder / "index.html"))
