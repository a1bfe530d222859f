"""`cloister model memorize`: measures what a finished model memorized."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli.arguments import AsJson
from cloister.cli.model_arguments import Against, BaseFolder, FinishedRun, SiteFileOf, saying


def memorize(
    run: FinishedRun,
    out: Annotated[Path, typer.Option(help="A new folder for index.html and memorization.json.")],
    canaries: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The secrets of `cloister data plant`, which made the study's records.",
        ),
    ] = None,
    records: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="For chat models: records of its training, whose replies it must continue. A "
            "report on private records must be below their own folder.",
        ),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(
            help="Public records that it continues as a control. Absent: the run's public test "
            "file. Never private records."
        ),
    ] = None,
    against: Against = None,
    site: SiteFileOf = None,
    others: Annotated[
        int, typer.Option(min=1, help="Other numbers among which each secret is ranked.")
    ] = 1000,
    tokens: Annotated[
        int, typer.Option(min=1, help="Last tokens of a reply that the model must produce.")
    ] = 16,
    samples: Annotated[
        int, typer.Option(min=0, help="Samples per reply, in addition to greedy decoding.")
    ] = 0,
    most: Annotated[
        int, typer.Option(min=1, help="Most records that are used; if there are more, drawn.")
    ] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")] = 0,
    base: BaseFolder = None,
    as_json: AsJson = False,
) -> None:
    """Measure memorization: exposure of planted canaries, and private replies that are continued.

    Exposures are compared with the most that the promised ε allows. The control is the base without
    its adapter, public records, and canaries that were not planted.

    Example: cloister model memorize runs/bank --canaries canaries.json --out memorized
    """
    from cloister.trust.attack.page import figure
    from cloister.trust.memorize.writing import measure_memorization

    done = measure_memorization(
        run,
        out,
        canaries=canaries,
        records=records,
        test=test,
        against=against,
        site=site,
        others=others,
        tokens=tokens,
        samples=samples,
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

    console = Terminal()
    for name, found in done.canaries.items():
        table = Table(box=None, header_style="bold")
        for column in ("secret is among", "planted (95 %)", "kept out", "chance", "ε allows"):
            table.add_column(column, justify="left" if column.startswith("secret") else "right")
        for one in found.shares:
            most_found = "–" if one.most is None else f"{one.most:.3f}"
            cells = (figure(one.planted), figure(one.kept_out), f"{one.share:.3f}", most_found)
            table.add_row(f"likeliest {one.share:.0%}", *cells)
        console.print(table)
        allowed = "" if found.most_exposure is None else f"; ε allows {found.most_exposure:.2f}"
        typer.echo(
            f"{name}: mean exposure {figure(found.planted)} bits planted, {figure(found.kept_out)} "
            f"kept out, {found.chance:.2f} by chance{allowed}",
            err=True,
        )
    for row in done.extraction:
        console.print(
            f"{row.model}, {row.records} records: {figure(row.greedy)} of {row.count} replies "
            "continued word for word",
            highlight=False,
        )
    if done.private is not None:
        typer.echo(f"quotes {done.private}: keep it where these records are", err=True)
    typer.echo(str(done.folder / "index.html"))
