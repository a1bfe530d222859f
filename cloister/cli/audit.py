"""`cloister audit`: evidence that a stranger can check."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli import certificates
from cloister.errors import CloisterError

if TYPE_CHECKING:
    from cloister.simulation.audit import AuditedSite
    from cloister.training.config import TrainingConfig

app = typer.Typer(help="Put what the mechanism claims to the test.", no_args_is_help=True)

# Persons in the site that is audited, and most records of one: enough to be ragged, few enough to
# leave each out in turn.
PERSONS, EACH = 12, 3


class Level(StrEnum):
    """How deep an audit goes."""

    CONFORMANCE = "conformance"
    EMPIRICAL = "empirical"


app.command("certificate")(certificates.certificate)
app.command("bundle")(certificates.bundle)
app.command("verify")(certificates.verify)


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
        Level,
        typer.Option(
            help="conformance: exact tests of the path that trains; empirical: an attack on it."
        ),
    ] = Level.CONFORMANCE,
    trials: Annotated[
        int, typer.Option(min=100, help="Runs of the attack with the canary, and without.")
    ] = 5000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Test the path that a recipe trains on, with records that are nobody's.

    Example: cloister audit run simulations/bank_intents.toml --level conformance
    """
    from cloister.recipe import read_recipe
    from cloister.simulation.audit import audited_site

    study = read_recipe(recipe, assignments or [])
    site = audited_site(study, PERSONS, EACH)
    if level is Level.EMPIRICAL:
        _attack(site, trials, as_json)
    else:
        _conform(site, study.training, as_json)


def _attack(site: AuditedSite, trials: int, as_json: bool) -> None:
    from cloister.privacy.accounting import epsilon
    from cloister.privacy.empirical import epsilon_bound
    from cloister.training.frozen_step import audit_step

    plan, one = site.plan, site.plan.event(1)
    finding = audit_step(plan, site.workspace.start.size, trials)
    bound, claimed = epsilon_bound(finding, one, plan.delta), epsilon([one], plan.delta)
    if as_json:
        document = {
            "level": Level.EMPIRICAL.value,
            "plan": plan.digest(),
            "refuted": finding.refuted,
            "trials": trials,
            "false_positives": finding.false_positives,
            "false_negatives": finding.false_negatives,
            "least_false_negatives": finding.least,
            "epsilon_lower_bound": bound,
            "epsilon_claimed": claimed,
            "delta": plan.delta,
        }
        typer.echo(json.dumps(document))
    else:
        verdict = "REFUTED" if finding.refuted else "not refuted"
        typer.echo(
            f"one step, attacked {trials} times with a canary and {trials} times without:\n"
            f"ε lower bound {bound:.3f}, claimed {claimed:.3f} (δ = {plan.delta:g}): {verdict}.\n"
            f"The attack accuses at most {finding.false_positives:.2%} wrongly and misses at most "
            f"{finding.false_negatives:.2%}; the claim allows it to miss no less than "
            f"{finding.least:.2%}."
        )
    if finding.refuted:
        raise CloisterError(
            "REFUTED: an attack on one step does better than its epsilon allows; train nothing "
            "with this implementation, and report it"
        )


def _conform(site: AuditedSite, training: TrainingConfig, as_json: bool) -> None:
    from rich.console import Console

    from cloister.training.conformance import conformance

    checks = conformance(site.workspace, site.units, site.plan, training)
    refuted = [check.name for check in checks if check.refuted]
    if as_json:
        document = {
            "level": Level.CONFORMANCE.value,
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
