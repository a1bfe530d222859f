"""`cloister model`: exports a finished model to other formats, and keeps its versions."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli import model_versions
from cloister.cli.model_attack import attack
from cloister.cli.model_bias import bias as measure_bias
from cloister.cli.model_compress import compress
from cloister.cli.model_explain import explain
from cloister.cli.model_memorize import memorize
from cloister.cli.model_watch import watch

app = typer.Typer(
    help="Export a finished model, make it smaller, and keep its versions.",
    no_args_is_help=True,
)
app.command("compress")(compress)
app.command("list")(model_versions.list_models)
app.command("show")(model_versions.show)
app.command("promote")(model_versions.promote)
app.command("rollback")(model_versions.rollback)
app.command("diff")(model_versions.diff)
app.command("rule")(model_versions.rule)
app.command("key")(model_versions.key)
app.command("explain")(explain)
app.command("attack")(attack)
app.command("bias")(measure_bias)
app.command("memorize")(memorize)
app.command("watch")(watch)


@app.command("export")
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN_OR_ADAPTER", help="A run or its adapter.")],
    formats: Annotated[
        list[str],
        typer.Option(
            "--format",
            help="merged, sentence-transformers, onnx, int8, int4, gguf or gguf-merged; may be "
            "repeated.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="A new folder; each of several formats gets its own folder inside."),
    ],
    test: Annotated[
        Path | None,
        typer.Option(
            help="Score on this file, which you declare public; never on private records. Absent: "
            "the run's public test file."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Folder of the base model. Absent: the base that the adapter names."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a finished model in formats that load without Cloister; check and measure each one.

    The folder's README.md is its card, with size, CPU latency and score of each format; card.html
    is the same as a page, export.json for programs. A format that cannot hold the study's head
    exactly is refused, and the message names the formats that can.

    Example: cloister model export runs/bank --format onnx --format int8 --out shipped
    """
    from cloister.cli.terminal import Terminal
    from cloister.export.forms.writing import export_model

    done = export_model(
        run,
        formats,
        out,
        base=base,
        test=test,
        on_stage=lambda stage: typer.echo(f"… {stage}", err=True),
    )
    if as_json:
        document = {
            "folders": {name: str(folder) for name, folder in done.folders.items()},
            "metric": done.metric,
            "scored_on": done.test,
            "forms": [asdict(row) for row in done.rows],
        }
        typer.echo(json.dumps(document))
        return
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in ("form", "MB", "ms a text", done.metric, "logits differ by"):
        table.add_column(column, justify="left" if column == "form" else "right")
    for row in done.rows:
        figures = (f"{row.bytes / 1e6:.2f}", *_cells(row.milliseconds, row.score, row.difference))
        table.add_row(row.form, *figures)
    Terminal().print(table)
    if done.test is None:
        typer.echo("no public test set was at hand: --test FILE scores on one", err=True)
    for name, folder in done.folders.items():
        typer.echo(f"{name}: {folder}", err=True)


@app.command("card")
def card(
    run: Annotated[Path, typer.Argument(metavar="RUN_OR_ADAPTER", help="A run or its adapter.")],
    statement: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SITE=FILE", help="A site's description of its records; may be repeated."
        ),
    ] = None,
    use: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The intended use of the model.")
    ] = None,
    bias: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="How results differ between groups of people."),
    ] = None,
    robustness: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Results on disturbed texts.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the card as a page to this new file."),
    ] = None,
) -> None:
    """Add statements by people to a finished model's card, as quotations; write it as a page.

    The path of the card is printed.

    Example: cloister model card runs/clinics --use use.txt --html card.html
    """
    from cloister.errors import UsageError
    from cloister.export.adapter_folder import adapter_folder
    from cloister.export.card_page import write_card_page
    from cloister.export.card_words import add_words, read_words

    statements = {}
    for one in statement or []:
        site, equals, file = one.partition("=")
        if not (equals and site and file):
            raise UsageError(f"--statement {one}: SITE=FILE is needed")
        statements[site] = read_words(Path(file))
    given = {"use": use, "bias": bias, "robustness": robustness}
    words = {place: read_words(file) for place, file in given.items() if file is not None}
    if not words and not statements and html is None:
        raise UsageError(
            "no words given; name a file by --statement, --use, --bias or --robustness, or a page "
            "by --html"
        )
    card_file = adapter_folder(run) / "README.md"
    if words or statements:
        add_words(card_file.parent, words, statements)
    if html is not None:
        write_card_page(card_file, html)
    typer.echo(card_file)


def _cells(
    milliseconds: float | None, score: float | None, difference: float | None
) -> tuple[str, ...]:
    values = ((milliseconds, ".1f"), (score, ".4f"), (difference, ".1e"))
    return tuple("–" if value is None else f"{value:{form}}" for value, form in values)
