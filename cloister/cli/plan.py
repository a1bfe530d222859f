"""`cloister plan`: what a recipe promises, before anything is trained."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cloister.privacy.plan import Plan
    from cloister.recipe import Recipe

# Rounds at which ε is shown, as shares of the study.
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
# Share of absent records that a test for presence may accuse; attacks are compared at such rates
# (Carlini et al. 2022, arXiv:2112.03570: 0.1 % and 1 %).
FALSE_POSITIVES = 0.01
# Records of one person that the price is shown for, where the unit is a record.
GROUPS = (2, 4, 8)


def plan(
    recipe: Annotated[
        Path | None, typer.Argument(help="The study's recipe (TOML). Absent: the quickstart.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a field; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Solve for the noise, and say what is promised to whom.

    Nothing is trained and no ε is spent. All of it follows from the recipe's declared constants.

    Example: cloister plan simulations/bank_intents.toml --set privacy.epsilon=3
    """
    from cloister.errors import UsageError
    from cloister.recipe import read_recipe, warnings
    from cloister.simulation.planning import plans_by_size, why_uncounted

    study = read_recipe(recipe, assignments or [])
    if not study.privacy.enabled:
        raise UsageError("privacy.enabled: false given; there is nothing to plan without privacy")
    plans = [_facts(study, count, made) for made, count in plans_by_size(study)]
    uncounted = why_uncounted(study)
    notes = [
        *warnings(study),
        *(note for facts in plans for note in facts.pop("warnings")),
        *([uncounted] if uncounted is not None else []),
    ]
    if as_json:
        document = {"recipe": study.digest(), "plans": plans, "warnings": notes}
        typer.echo(json.dumps(document))
        return
    _print(plans, notes)


def _facts(study: Recipe, sites: int, made: Plan) -> dict[str, Any]:
    from cloister.canonical import json_number
    from cloister.ledger.stated import of_plan
    from cloister.privacy import adversaries
    from cloister.privacy.accounting import cross_check, group_epsilon, true_positive_rate
    from cloister.privacy.noise_to_signal import noise_over_signal
    from cloister.simulation.planning import trained_parameters

    whole = made.event(made.num_rounds * made.local_steps)
    checked = cross_check([whole], made.delta) if made.is_private else made.epsilon_after(1)
    rounds = sorted({max(1, round(share * made.num_rounds)) for share in SHARES})
    facts: dict[str, Any] = {
        "sites": sites,
        **of_plan(made).to_json(),
        "epsilon": json_number(checked),
        "noise_multiplier": made.noise_multiplier,
        "sample_rate": made.sample_rate,
        "public_records": made.public_records,
        "expected_batch_size": made.expected_batch_size,
        "steps": whole.steps,
        "max_grad_norm": made.max_grad_norm,
        "max_update_norm": made.max_update_norm,
        "digest": made.digest(),
        "true_positive_rate": {str(FALSE_POSITIVES): true_positive_rate([whole], FALSE_POSITIVES)},
        "epsilon_over_rounds": {r: json_number(made.epsilon_after(r)) for r in rounds},
        "warnings": [],
        "against": adversaries.words([made]),
    }
    central = study.privacy.central(study.data.sites, study.federation.num_rounds)
    if central is not None:
        facts["whole_site"] = asdict(central) | {
            "epsilon": json_number(central.epsilon_after(central.rounds))
        }
    if made.sharing is not None:
        alone = made.alone()
        facts["sharing"] = asdict(made.sharing) | {
            "threshold": made.sharing.threshold,
            "epsilon_if_all_others_collude": json_number(
                alone.epsilon_after(made.num_rounds) if alone is not None else math.inf
            ),
        }
    if made.unit == "record" and made.is_private:
        facts["epsilon_of_records"] = {
            k: json_number(group_epsilon([whole], made.delta, k)) for k in GROUPS
        }
    parameters = trained_parameters(study)
    if parameters is not None:
        ratio = noise_over_signal(made, parameters, study.data.sites)
        facts |= {"parameters": parameters, "noise_over_signal": ratio}
        if ratio > 1:
            facts["warnings"].append(
                f"one step's noise is {ratio:.1f} times as long as the longest gradient can be: "
                "train fewer parameters (lora.r, lora.top_layers, lora.train), take larger "
                "batches, or allow a larger epsilon"
            )
    return facts


def _print(plans: list[dict[str, Any]], notes: list[str]) -> None:
    from rich.markup import escape

    from cloister.cli.terminal import Terminal

    console = Terminal()

    def say(text: str = "") -> None:
        console.print(text, markup=True, soft_wrap=True)

    for facts in plans:
        epsilon, delta, unit = _shown(facts["epsilon"]), facts["delta"], facts["unit"]
        say(
            f"[bold]{facts['sites']} sites of {facts['public_records']:,} declared {unit}s[/]: "
            f"ε = {epsilon}, δ = {delta:g} for one {unit} of a site, added or removed (PLD), "
            "promised for the whole plan"
        )
        say(
            f"  noise multiplier {facts['noise_multiplier']:g} on a clip bound of "
            f"{facts['max_grad_norm']:g}; {facts['steps']} steps of about "
            f"{facts['expected_batch_size']} {unit}s, each drawn with probability "
            f"{facts['sample_rate']:.4g}"
        )
        rows = facts["epsilon_over_rounds"].items()
        spent = "  ".join(f"{r}: {_shown(e)}" for r, e in rows)
        say(f"  spent after round, an indication and no promise: {spent}")
        if "epsilon_of_records" in facts:
            groups = facts["epsilon_of_records"].items()
            prices = "  ".join(f"{k}: {_shown(e)}" for k, e in groups)
            say(f"  ε for a person with so many records at the site: {prices}")
        if "parameters" in facts:
            say(
                f"  {facts['parameters']:,} noised parameters; one step's noise over the longest "
                f"possible gradient: {facts['noise_over_signal']:.2f}"
            )
        if "whole_site" in facts:
            whole = facts["whole_site"]
            say(
                f"  a whole site, against the other sites and the public: ε = "
                f"{_shown(whole['epsilon'])}, δ = {whole['delta']:g}, by noise of "
                f"{whole['noise_multiplier']:g} times the longest update at the coordinator"
            )
        if "sharing" in facts:
            for line in _sharing_words(facts["sharing"]):
                say(f"  {line}")
    first = plans[0]
    reached = max(facts["true_positive_rate"][str(FALSE_POSITIVES)] for facts in plans)
    say()
    say(
        f"[bold]Promised[/]: whoever sees {_seen(first)} ({first['against']})\nand tests whether "
        f"any one {first['unit']} was in the site's data: a test that accuses "
        f"{FALSE_POSITIVES:.0%} of those who were not\nfinds at most {reached:.0%} of those who "
        "were, whatever else its maker knows."
    )
    say(
        "[bold]Not promised[/]: that nothing is learnt about groups (above), that a fact which "
        "holds for many stays hidden,\nor anything about who holds records at several sites (their "
        "ε add up), labels, test data, and this recipe."
    )
    for note in notes:
        console.print(f"[yellow]warning:[/] {escape(note)}", markup=True, soft_wrap=True)


def _seen(facts: dict[str, Any]) -> str:
    return (
        "every sum of the sites' updates"
        if "sharing" in facts
        else ("everything that a site sends")
    )


def _sharing_words(sharing: dict[str, Any]) -> list[str]:
    alone = _shown(sharing["epsilon_if_all_others_collude"])
    return [
        f"noise shared by {sharing['sites']} sites under secure aggregation "
        f"({sharing['bits']} bits): a round needs {sharing['threshold']} of them, and ε holds "
        f"while at most {sharing['colluding']} work together, with or without the coordinator",
        f"against all other sites together: ε = {alone}",
    ]


def _shown(value: float | None) -> str:
    return "∞" if value is None else f"{value:.3f}"
