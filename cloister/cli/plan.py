"""`cloister plan`: shows what a recipe promises, before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cloister.api.study_plan import StudyPlan
    from cloister.recipe import Recipe


def plan(
    recipe: Annotated[
        Path | None,
        typer.Argument(help="The recipe of a study (TOML), or of votes. Absent: the quickstart."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a field; may be repeated."),
    ] = None,
    layers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A PUBLIC file of texts with labels: show instead the score of a linear probe "
            "of each layer of the base, to choose model.layers. Never private records.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Solve for the noise, and show what is promised to whom.

    Nothing is trained and no ε is spent. The result depends on the recipe's declared constants
    only; with --layers, on the base and the named public file.

    Example: cloister plan simulations/bank_intents.toml --set privacy.epsilon=3
    """
    from cloister.api.study_plan import plan_study
    from cloister.errors import UsageError
    from cloister.recipe import read_recipe
    from cloister.recipe.vote_study import is_vote_study, read_vote_study

    if layers is not None:
        _layers(read_recipe(recipe, assignments or []), layers, as_json)
        return
    if recipe is not None and is_vote_study(recipe):
        if assignments:
            raise UsageError(
                "--set: given with a study of votes, whose file states everything; change the file"
            )
        study = read_vote_study(recipe).recipe
        typer.echo("… computing the noise", err=True)
    else:
        study = read_recipe(recipe, assignments or [])
        typer.echo("… computing the noise; reading the public data and the base", err=True)
    found = plan_study(study)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    _print(found)


def _layers(recipe: Recipe, public: Path, as_json: bool) -> None:
    """Prints the table of layers; a probe takes one pass of the base over the file."""
    from cloister.cli.terminal import Terminal
    from cloister.simulation.layer_choice import choose_layers

    table = choose_layers(recipe, str(public))
    if as_json:
        typer.echo(json.dumps(table.to_json()))
        return
    console = Terminal()
    for line in table.lines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for note in table.warnings:
        console.print(f"warning: {note}", markup=False, highlight=False, soft_wrap=True)


def _print(found: StudyPlan) -> None:
    from rich.markup import escape

    from cloister.cli.terminal import Terminal

    console = Terminal()
    for opening, rest in found.lines():
        marked = f"[bold]{escape(opening)}[/]" if opening else ""
        console.print(marked + escape(rest), markup=True, soft_wrap=True)
    for note in found.warnings:
        console.print(f"[yellow]warning:[/] {escape(note)}", markup=True, soft_wrap=True)
