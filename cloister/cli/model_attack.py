"""`cloister model attack`: what breaks a finished model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli.arguments import AsJson
from cloister.cli.model_arguments import BaseFolder, FinishedRun, saying


def attack(
    run: FinishedRun,
    out: Annotated[
        Path, typer.Option(help="A new folder for index.html, attack.json and words.txt.")
    ],
    test: Annotated[
        Path | None,
        typer.Option(
            help="Disturb this file, which you declare public. Absent: the run's public test file. "
            "Never private records."
        ),
    ] = None,
    disturbance: Annotated[
        list[str] | None,
        typer.Option(
            help="typos, homoglyphs, full-width, synonyms, lower-case, upper-case, truncation, "
            "distractor, negation, 'prompt injection'; may be repeated. Absent: all that apply."
        ),
    ] = None,
    suite: Annotated[
        list[Path] | None,
        typer.Option(
            help="Disturbed texts from elsewhere: columns text, disturbed, label; HateCheck's CSV; "
            "AdversarialGLUE's JSON. May be repeated."
        ),
    ] = None,
    most: Annotated[
        int, typer.Option(min=1, help="Records that are used, drawn where there are more.")
    ] = 500,
    seed: Annotated[
        int, typer.Option(min=0, help="Of what is drawn and changed, and of the intervals.")
    ] = 0,
    base: BaseFolder = None,
    as_json: AsJson = False,
) -> None:
    """Measure how far a model's score falls on disturbed public texts, with 95 % intervals.

    A person still reads each disturbed text as before; only a negation should change the answer.

    Example: cloister model attack runs/bank --out attacked
    """
    from cloister.trust.attack.page import figure
    from cloister.trust.attack.writing import attack_model

    done = attack_model(
        run,
        out,
        test=test,
        disturbances=disturbance,
        suites=suite or (),
        most=most,
        seed=seed,
        base=base,
        on_stage=saying(),
    )
    if as_json:
        typer.echo(json.dumps(done.document, ensure_ascii=False))
        return
    from rich.table import Table

    from cloister.cli.terminal import Terminal

    table = Table(box=None, header_style="bold")
    metric = done.document["metric"]
    for column in ("disturbance", "records", f"{metric} before", "after (95 %)", "changed answers"):
        table.add_column(column, justify="left" if column == "disturbance" else "right")
    for row in done.rows:
        figures = (figure(row.clean), figure(row.disturbed), figure(row.flipped))
        table.add_row(row.name, str(row.records), *(figures if not row.why else ("–",) * 3))
    Terminal().print(table)
    for row in done.rows:
        if row.why:
            typer.echo(f"{row.name} does not apply: {row.why}", err=True)
    typer.echo(str(done.folder / "index.html"))
