"""`cloister model explain`: why a finished model answered so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli.arguments import AsJson
from cloister.cli.model_arguments import BaseFolder, FinishedRun, SiteFileOf, saying
from cloister.errors import UsageError
from cloister.names import counted


def explain(
    run: FinishedRun,
    out: Annotated[Path, typer.Option(help="A new folder for index.html and explanations.json.")],
    text: Annotated[
        list[str] | None, typer.Option(help="A text to explain; may be repeated.")
    ] = None,
    text_b: Annotated[
        list[str] | None,
        typer.Option("--text-b", help="For text pairs: the second text, one for each --text."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="A file of inputs. The study's private records are explained below their own "
            "folder alone."
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="integrated-gradients, occlusion, attention-rollout or edits; may be repeated. "
            "Absent: all."
        ),
    ] = None,
    most: Annotated[
        int, typer.Option(min=1, help="Inputs of --data that are explained, from the first on.")
    ] = 50,
    site: SiteFileOf = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the random orders that methods are compared with.")
    ] = 0,
    base: BaseFolder = None,
    as_json: AsJson = False,
) -> None:
    """Explain a model's answers: heat maps, what they are worth, and edits that flip an answer.

    Each method stands beside its faithfulness: how much sooner the answer falls when words are
    blanked in its order than in random ones.

    Example: cloister model explain runs/bank --text "my card was stolen" --out why
    """
    from cloister.trust.explain.page import gain_text
    from cloister.trust.explain.writing import explain_model

    texts: list[str] | list[tuple[str, str]] = text or []
    if text_b:
        if len(text_b) != len(texts):
            raise UsageError(
                f"--text given {len(texts)} times and --text-b {len(text_b)}; give one for each"
            )
        texts = list(zip(text or [], text_b, strict=True))
    done = explain_model(
        run,
        out,
        texts=texts,
        data=data,
        methods=method,
        most=most,
        seed=seed,
        site=site,
        base=base,
        on_stage=saying(),
    )
    if as_json:
        typer.echo(json.dumps(done.document, ensure_ascii=False))
        return
    from rich.table import Table

    from cloister.cli.terminal import Terminal

    console = Terminal()
    table = Table(box=None, header_style="bold")
    for column in ("method", "answers", "deletion", "insertion", "gain over random (95 %)"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in done.scores:
        areas = (f"{row.deletion:.3f}", f"{row.insertion:.3f}")
        table.add_row(row.method, str(row.answers), *areas, gain_text(row))
    console.print(table)
    flips = sum(len(one["edits"]["flips"]) for one in done.document["explanations"] if one["edits"])
    inputs, edits = counted(done.document["explained"], "input"), counted(flips, "edit")
    verb = "flips" if flips == 1 else "flip"
    typer.echo(f"{inputs}, {edits} that {verb} an answer", err=True)
    if done.private is not None:
        typer.echo(f"quotes {done.private}: it stays where these records are", err=True)
    typer.echo(str(done.folder / "index.html"))
