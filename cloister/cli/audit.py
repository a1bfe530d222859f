"""`cloister audit`: evidence that a stranger can check."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cloister.errors import CloisterError

app = typer.Typer(help="Put what the mechanism claims to the test.", no_args_is_help=True)

# Persons in the site that is audited, and most records of one: enough to be ragged, few enough to
# leave each out in turn.
PERSONS, EACH = 12, 3


class Level(StrEnum):
    """How deep an audit goes."""

    CONFORMANCE = "conformance"


@app.callback()
def _group() -> None:
    """Verbs of their own."""


@app.command("run")
def run(
    recipe: Annotated[
        Path | None, typer.Argument(help="The study's recipe (TOML). Absent: the quickstart.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a field; may be repeated."),
    ] = None,
    level: Annotated[
        Level, typer.Option(help="conformance: exact tests of the path that trains.")
    ] = Level.CONFORMANCE,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Test the path that a recipe trains on, with records that are nobody's.

    Example: cloister audit run simulations/bank_intents.toml --level conformance
    """
    from rich.console import Console

    from cloister.recipe import read_recipe
    from cloister.simulation.audit import audited_site
    from cloister.training.conformance import conformance

    study = read_recipe(recipe, assignments or [])
    site = audited_site(study, PERSONS, EACH)
    checks = conformance(site.workspace, site.units, site.plan, study.training)
    refuted = [check.name for check in checks if check.refuted]
    if as_json:
        document = {
            "level": level.value,
            "plan": site.plan.digest(),
            "refuted": bool(refuted),
            "checks": [
                {"name": c.name, "law": c.law, "figure": c.figure, "low": c.low, "high": c.high,
                 "refuted": c.refuted}
                for c in checks
            ],
        }  # fmt: skip
        typer.echo(json.dumps(document))
    else:
        console = Console()
        for check in checks:
            verdict = "[red]REFUTED[/]" if check.refuted else "not refuted"
            console.print(
                f"{check.name:<26}{check.figure:>10.4g}   {verdict} ({check.low:.4g} … "
                f"{check.high:.4g})",
                highlight=False,
            )
            console.print(f"    [dim]{check.law}[/]", highlight=False)
        console.print(
            f"{len(checks) - len(refuted)} of {len(checks)} checks not refuted. A sound mechanism "
            "passes each with probability 1 − 10⁻⁶; passing proves nothing.",
            highlight=False,
        )
    if refuted:
        raise CloisterError(
            f"REFUTED: {', '.join(refuted)}; the implementation does not do what its epsilon "
            "rests on: train nothing with it, and report this"
        )
