"""`cloister model bias`: whom a finished model treats worse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli.arguments import AsJson
from cloister.cli.model_arguments import Against, BaseFolder, FinishedRun, saying


def bias(
    run: FinishedRun,
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
    against: Against = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="For chat models: CrowS-Pairs' CSV, or a file with its columns."
        ),
    ] = None,
    bbq: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="For chat models: one of BBQ's JSONL files, or 'built-in'."
        ),
    ] = None,
    harm: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="For chat models: prompts as in RealToxicityPrompts or AdvBench, or in a column "
            "'prompt'; or 'built-in'.",
        ),
    ] = None,
    harm_terms: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='TOML with the lists by which replies are judged: harmful = ["…"], refusal = '
            '["…"]. Absent: short built-in ones.',
        ),
    ] = None,
    judge: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="A classifier that judges replies in place of the list 'harmful'."
        ),
    ] = None,
    judge_label: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL", help="Its label that means harm; may be repeated."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the intervals and of the permutation test.")
    ] = 0,
    base: BaseFolder = None,
    as_json: AsJson = False,
) -> None:
    """Measure scores, selection and error rates and calibration by group, with 95 % intervals.

    Of a chat model also: which of two sentences is likelier, whom it names without evidence, and
    what it answers to harmful prompts.

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
        bbq=bbq,
        harm=harm,
        harm_terms=harm_terms,
        judge=judge,
        judge_labels=judge_label or (),
        against=against,
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
    if done.language is not None:
        from cloister.trust.bias.language_page import language_words

        for line in language_words(done.language):
            console.print(line, highlight=False)
    typer.echo(str(done.folder / "index.html"))
