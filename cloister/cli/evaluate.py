"""`cloister evaluate`: scores a finished run's adapter on any file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

# The only ending of --plot.
PICTURE = ".png"


def evaluate(
    adapter: Annotated[
        Path, typer.Argument(metavar="RUN_OR_ADAPTER", help="A run or its adapter.")
    ],
    data: Annotated[str | None, typer.Option(help="Records to score: a file or a hub id.")] = None,
    held_out: Annotated[
        bool,
        typer.Option(
            "--held-out",
            help="Score on what each site of this simulation held out (data.held_out_share).",
        ),
    ] = False,
    plugin: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Allow this adapter's task plug-in to run its code here."
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a picture (PNG) of precision, recall and F1 of each class."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score an adapter on records that you may look at.

    Example: cloister evaluate runs/bank --data test.jsonl
    """
    from rich.table import Table

    from cloister.canonical import json_number
    from cloister.cli.terminal import Terminal
    from cloister.data.load import load
    from cloister.data.outputs import check_place
    from cloister.data.source import RELEASED
    from cloister.errors import UsageError
    from cloister.export.adapter_folder import adapter_folder, load_released, read_released
    from cloister.server.class_plot import plot_classes
    from cloister.tasks.chat import CausalChat
    from cloister.tasks.plugins import check_trusted
    from cloister.training.evaluation import evaluate
    from cloister.training.generation import reply_score
    from cloister.training.machine import MachineConfig

    if (data is None) is not held_out:
        raise UsageError("give either --data FILE or --held-out")
    if held_out:
        if plot is not None:
            raise UsageError("--plot: not possible with --held-out; leave it out")
        _held_out(adapter, plugin, as_json)
        return
    assert data is not None
    if plot is not None:
        if plot.suffix.lower() != PICTURE:
            raise UsageError(f"--plot: {plot} given; the picture is a PNG: end it in {PICTURE}")
        check_place(plot, "--plot")
    folder = adapter_folder(adapter)
    check_trusted(read_released(folder).task, plugin, "--plugin")
    about, workspace = load_released(folder)
    columns = dataclasses.replace(about.data, person=None)
    records = load(data, "test", workspace.task.record_kind, columns, asker=RELEASED)
    examples = workspace.encode(records)
    tokens = MachineConfig().plain_tokens
    scores = evaluate(workspace.network, workspace.task, examples, tokens)
    metrics = dict(scores.metrics)
    if isinstance(workspace.task, CausalChat):
        metrics["rouge_l"] = reply_score(
            workspace.network, workspace.task, workspace.tokenizer, records
        )
    if plot is not None and not plot_classes(scores.report, Path(data).name, plot):
        raise UsageError(
            f"--plot: {workspace.task.kind} has no F1 of classes on these records; leave it out"
        )
    if as_json:
        document = {
            "adapter": str(folder),
            "data": data,
            "records": len(records),
            "metrics": {name: json_number(value) for name, value in metrics.items()},
            "report": {name: dict(values) for name, values in scores.report.items()},
        }
        typer.echo(json.dumps(document))
        return
    console = Terminal()
    for name, value in metrics.items():
        console.print(f"{name:12} {value:.4f}", highlight=False)
    if scores.report:
        table = Table(box=None, header_style="bold")
        for column in ("", *next(iter(scores.report.values()))):
            table.add_column(column, justify="right" if column else "left")
        for label, values in scores.report.items():
            table.add_row(label, *(f"{value:.3f}" for value in values.values()))
        console.print(table)


def _held_out(run: Path, plugin: str | None, as_json: bool) -> None:
    """Prints the scores on what each site of a simulation held out."""
    from rich.table import Table

    from cloister.cli.model_arguments import saying
    from cloister.cli.terminal import Terminal
    from cloister.trust.held_out.simulated import evaluate_held_out

    found = evaluate_held_out(run, plugin, saying())
    if as_json:
        sites = {
            name: {**one.scores.to_json(), "left_out": dict(one.left_out)}
            for name, one in found.items()
        }
        typer.echo(json.dumps({"run": str(run), "sites": sites}))
        return
    # A row for each score: a column for each is wider than a terminal.
    table = Table(box=None, header_style="bold")
    for column in ("site", "units", "score", "value", "95 % interval"):
        table.add_column(column, justify="left" if column in ("site", "score") else "right")
    for site, one in found.items():
        shown = (site, str(one.scores.units))
        for name, x in one.scores.scores.items():
            table.add_row(*shown, name, f"{x.value:.3f}", f"{x.low:.3f} to {x.high:.3f}")
            shown = ("", "")
    Terminal().print(table)
    typer.echo("no ε covers these scores", err=True)
