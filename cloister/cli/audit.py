"""`cloister audit`: tests of the mechanism, and evidence that anybody can check."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloister.cli import certificates, report
from cloister.errors import CloisterError, UsageError

if TYPE_CHECKING:
    from cloister.audit.statistics import Check
    from cloister.privacy.plan import Plan
    from cloister.recipe import Recipe

app = typer.Typer(
    help="Test the privacy mechanism, and make evidence that others can check.",
    no_args_is_help=True,
)

# Number of persons at the audited site, and most records of one person: few, because the audit
# leaves out each person in turn.
PERSONS, EACH = 12, 3
# Number of persons whose membership the attack guesses.
GUESSED = 64


class Level(StrEnum):
    """How thorough an audit is."""

    CONFORMANCE = "conformance"
    EMPIRICAL = "empirical"


app.command("certificate")(certificates.certificate)
app.command("bundle")(certificates.bundle)
app.command("verify")(certificates.verify)
app.command("report")(report.report)


@app.command("run")
def run(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            help="The study's recipe, or its study of votes (TOML). Absent: the quickstart."
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a field; may be repeated."),
    ] = None,
    level: Annotated[
        Level,
        typer.Option(
            help="conformance: exact tests of the training path; empirical: attacks on it."
        ),
    ] = Level.CONFORMANCE,
    trials: Annotated[
        int,
        typer.Option(min=100, help="Runs of one attacked step, with the canary and without it."),
    ] = 5000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Test a recipe's training path, or the votes of a study of votes, with synthetic records.

    Example: cloister audit run simulations/bank_intents.toml --level conformance
    """
    from cloister.recipe import read_recipe
    from cloister.recipe.vote_study import is_vote_study

    if recipe is not None and is_vote_study(recipe):
        if assignments or level is Level.EMPIRICAL:
            raise UsageError(
                "--set, --level empirical: given with a study of votes, whose file states "
                "everything, and in which no step is trained that could be attacked; leave them out"
            )
        _conform_votes(recipe, as_json)
        return
    study = read_recipe(recipe, assignments or [])
    if level is Level.EMPIRICAL:
        _attack(study, trials, as_json)
    else:
        _conform(study, as_json)


def _attack(study: Recipe, trials: int, as_json: bool) -> None:
    from cloister.audit.attacks import attacks, illustration

    made = attacks(study, PERSONS, EACH, trials)
    plan, refuted = made.plan, [attack for attack in made.attacks if attack.refuted]
    shown = illustration(study, GUESSED)
    if as_json:
        document = {
            "level": Level.EMPIRICAL.value,
            **_audited(plan),
            "refuted": bool(refuted),
            "attacks": [attack.to_json() for attack in made.attacks],
            "illustrations": [shown.to_json()],
        }
        typer.echo(json.dumps(document))
    else:
        for attack in made.attacks:
            verdict = "REFUTED" if attack.refuted else "not refuted"
            typer.echo(
                f"{attack.name} ({attack.trials} trials): ε lower bound {attack.bound:.3f}, "
                f"claimed {attack.claimed:.3f} (δ = {plan.delta:g}): {verdict}\n    {attack.detail}"
            )
        typer.echo(f"{shown.name}: {shown.detail}")
    if refuted:
        raise CloisterError(
            f"REFUTED: {', '.join(attack.name for attack in refuted)} exceeds the bound of its "
            "epsilon claim; do not train with this implementation, and report it"
        )


def _audited(plan: Plan) -> dict[str, object]:
    """Returns the audited plan's values, which a report compares with the charged plans."""
    return {
        "plan": plan.digest(),
        "noise_multiplier": plan.noise_multiplier,
        "sample_rate": plan.sample_rate,
        "max_grad_norm": plan.max_grad_norm,
        "delta": plan.delta,
    }


def _conform(study: Recipe, as_json: bool) -> None:
    from cloister.audit.audited_site import audited_site
    from cloister.audit.banded_conformance import banded_checks
    from cloister.audit.conformance import conformance
    from cloister.audit.evaluation_conformance import evaluation_checks
    from cloister.audit.shared_evaluations import shared_evaluation_checks
    from cloister.audit.site_answers import answer_checks
    from cloister.audit.site_noise import site_noise
    from cloister.audit.unit_conformance import unit_check

    site = audited_site(study, PERSONS, EACH)
    evaluated = shared_evaluation_checks if site.plan.sharing else evaluation_checks
    plain = site.with_training_alone()
    checks = [
        unit_check(site),
        *conformance(site.workspace, site.units, plain.plan, study.training),
        *site_noise(study, plain, study.data.site_names),
        *(() if site.plan.sharing else answer_checks(study, plain)),
        *(banded_checks(study, site) if site.plan.bands else ()),
        *(evaluated(study, site) if site.plan.evaluations else ()),
    ]
    _report(checks, site.plan, as_json)


def _conform_votes(path: Path, as_json: bool) -> None:
    from cloister.audit.audited_site import audited_site
    from cloister.audit.shared_votes import shared_vote_checks
    from cloister.audit.unit_conformance import unit_check
    from cloister.audit.vote_conformance import vote_checks
    from cloister.recipe.vote_study import read_vote_study

    study = read_vote_study(path)
    site = audited_site(study.recipe, PERSONS, EACH)
    names = study.recipe.data.site_names
    plan = study.plans(names)[names[0]]
    voted = shared_vote_checks if plan.sharing else vote_checks
    _report([unit_check(site), *voted(study.recipe, site, plan)], plan, as_json)


def _report(checks: list[Check], plan: Plan, as_json: bool) -> None:
    """Prints the checks, and ends with an error if one is refuted."""
    from cloister.canonical import json_number

    refuted = [check.name for check in checks if check.refuted]
    if as_json:
        document = {
            "level": Level.CONFORMANCE.value,
            **_audited(plan),
            "refuted": bool(refuted),
            "checks": [
                {
                    "name": c.name,
                    "law": c.law,
                    "figure": json_number(c.figure),
                    "low": c.low,
                    "high": c.high,
                    "refuted": c.refuted,
                }
                for c in checks
            ],
        }
        typer.echo(json.dumps(document))
    else:
        _tell(checks, len(refuted))
    if refuted:
        raise CloisterError(
            f"REFUTED: {', '.join(refuted)}; the implementation lacks a property that its epsilon "
            "depends on: do not train with it, and report this"
        )


def _tell(checks: list[Any], refuted: int) -> None:
    from rich.markup import escape

    from cloister.audit.statistics import LEVEL, MOST_CHECKS
    from cloister.cli.terminal import Terminal

    console = Terminal()
    for check in checks:
        verdict = "[red]REFUTED[/]" if check.refuted else "not refuted"
        console.print(
            f"{check.name:<31}{check.figure:>10.4g}   {verdict} ({check.low:.4g} … "
            f"{check.high:.4g})",
            markup=True,
        )
        console.print(f"    [dim]{escape(check.law)}[/]", markup=True)
    console.print(
        f"{len(checks) - refuted} of {len(checks)} checks not refuted. A sound mechanism "
        f"fails one of them at most once in {1 / (MOST_CHECKS * LEVEL):,.0f} runs; passing proves "
        "nothing.",
        highlight=False,
    )
