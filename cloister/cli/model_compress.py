"""`cloister model compress`: a smaller model of a finished run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli.arguments import AsJson
from cloister.cli.model_arguments import BaseFolder, FinishedRun, saying


def compress(
    run: FinishedRun,
    out: Annotated[Path, typer.Option(help="A new folder.")],
    drop_layers: Annotated[
        int, typer.Option(min=0, help="Whole layers that go: those that matter least.")
    ] = 0,
    drop_heads: Annotated[
        int,
        typer.Option(
            min=0,
            help="Groups of attention heads that go from each layer. For Llama, Mistral, Qwen, "
            "Gemma and SmolLM.",
        ),
    ] = 0,
    sparsity: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Part of each weight matrix that becomes zero. Nothing runs faster for it.",
        ),
    ] = 0.0,
    distil: Annotated[
        int,
        typer.Option(
            metavar="EPOCHS",
            min=0,
            help="Teach what is left the trained model's outputs, so many times through --public.",
        ),
    ] = 0,
    student: Annotated[
        str | None,
        typer.Option(
            metavar="BASE", help="Teach another base instead: a folder, GGUF file or hub id."
        ),
    ] = None,
    public: Annotated[
        Path | None,
        typer.Option(
            help="Texts without labels, which you declare public: by them layers and heads are "
            "chosen, and a student learns. Absent: built-in sentences. Never private records."
        ),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(
            help="Score on this file, which you declare public. Absent: on the run's public test "
            "file. Never private records."
        ),
    ] = None,
    base: BaseFolder = None,
    temperature: Annotated[
        float, typer.Option(help="Of distillation: softens the trained model's outputs.")
    ] = 2.0,
    learning_rate: Annotated[
        float, typer.Option("--lr", help="Of distillation: the largest learning rate.")
    ] = 1e-4,
    seed: Annotated[int, typer.Option(help="Of distillation: the order of texts.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write a smaller model of a finished run, measured before and after.

    Layers go first, then heads, then weights; what is left learns last. No private record is read,
    so that ε stays what it was; the card says why. The folder loads with transformers, and with
    cloister predict, serve, evaluate and model export.

    Example: cloister model compress runs/bank --drop-layers 3 --distil 3 --public texts.jsonl --out
    small
    """
    from cloister.cli.terminal import Terminal
    from cloister.export.compress.writing import compress_model

    done = compress_model(
        run,
        out,
        drop_layers=drop_layers,
        drop_heads=drop_heads,
        sparsity=sparsity,
        epochs=distil,
        student=student,
        public=public,
        test=test,
        base=base,
        temperature=temperature,
        learning_rate=learning_rate,
        seed=seed,
        on_stage=saying(),
    )
    if as_json:
        document = {
            "folder": str(done.folder),
            "form": done.form,
            "steps": list(done.steps),
            "metric": done.metric,
            "scored_on": done.test,
            "models": [asdict(row) for row in done.rows],
        }
        typer.echo(json.dumps(document))
        return
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    columns = ("model", "MB", "MB as .gz", "zeros", "ms a text", done.metric, "nats apart")
    for column in columns:
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in done.rows:
        zipped = "–" if row.zipped is None else f"{row.zipped / 1e6:.2f}"
        scored = "–" if row.score is None else f"{row.score:.4f}"
        figures = (f"{row.bytes / 1e6:.2f}", zipped, f"{row.zeros:.0%}", f"{row.milliseconds:.1f}")
        table.add_row(row.model, *figures, scored, f"{row.distance:.4f}")
    Terminal().print(table)
    if done.test is None:
        typer.echo("no public test set was at hand: --test FILE scores on one", err=True)
    typer.echo(f"{done.form}: {done.folder}", err=True)
