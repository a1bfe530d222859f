"""Computes a study's promise before anything is trained: the noise, ε over rounds, adversary."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cloister.errors import UsageError
from cloister.ledger.stated import shown
from cloister.names import counted

if TYPE_CHECKING:
    from cloister.privacy.plan import Plan
    from cloister.recipe import Recipe

# Rounds for which ε is shown, as shares of the study.
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
# False positive rate of a test for membership, at which attacks are usually compared (Carlini et
# al. 2022, arXiv:2112.03570: 0.1 % and 1 %).
FALSE_POSITIVES = 0.01
# Numbers of records of one person for which ε is shown, if the unit is a record.
GROUPS = (2, 4, 8)
# Digits of an ε after the decimal point.
PLACES = 3


@dataclass(frozen=True)
class StudyPlan:
    """The plans of a study; `print()` shows what is promised to whom.

    Attributes:
        recipe: The study's digest.
        sites: The figures of each group of equal sites, by name.
        warnings: Settings that are allowed but probably a mistake.
    """

    recipe: str
    sites: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values for `--json`; ∞ is null."""
        return {"recipe": self.recipe, "plans": list(self.sites), "warnings": list(self.warnings)}

    def lines(self) -> list[tuple[str, str]]:
        """Returns the text's lines, each as its emphasized beginning and its rest."""
        lines: list[tuple[str, str]] = []
        for facts in self.sites:
            lines += _site_lines(facts)
        first = self.sites[0]
        reached = max(facts["true_positive_rate"][str(FALSE_POSITIVES)] for facts in self.sites)
        return [
            *lines,
            ("", ""),
            (
                "Promised",
                f": whoever sees {_seen(first)} ({first['against']})\nand tests whether any one "
                f"{first['unit']} was in the site's data: a test that wrongly accuses "
                f"{FALSE_POSITIVES:.0%} of the {first['unit']}s\nthat were not finds at most "
                f"{reached:.0%} of those that were, whatever else its maker knows.",
            ),
            (
                "Not promised",
                ": the same ε for groups of records (above); that facts about many people stay "
                "hidden; one ε for\na person with records at several sites (their ε add up); or "
                "anything about labels, test data and this recipe.",
            ),
        ]

    def __str__(self) -> str:
        text = [opening + rest for opening, rest in self.lines()]
        return "\n".join([*text, *(f"warning: {note}" for note in self.warnings)])


def plan_study(recipe: Recipe) -> StudyPlan:
    """Computes the noise and ε of a study from the recipe's declared constants alone.

    Args:
        recipe: The study: one that trains, or one of votes. If data and base of one that trains are
            on this machine, the plan also says how many parameters get noise.

    Raises:
        UsageError: Privacy is off, or the recipe's fields contradict each other.
        RefusedError: No noise meets the target, or the adapters have no gradients of single
            records.
        BudgetError: No site's stated budget covers a round.
    """
    from cloister.recipe import warnings
    from cloister.simulation.budget_check import budget_problem
    from cloister.simulation.planning import noised_parameters, plans_by_size
    from cloister.simulation.recipe_checks import simulation_problem

    if recipe.votes is not None:
        found = [_facts(recipe, count, made, None) for made, count in plans_by_size(recipe)]
        for facts in found:
            del facts["warnings"]  # both are of gradients
        return StudyPlan(recipe.digest(), tuple(found), _vote_warnings(recipe))
    if not recipe.privacy.enabled:
        raise UsageError("privacy.enabled: false given; there is nothing to plan without privacy")
    problem = simulation_problem(recipe) or budget_problem(recipe)
    # A recipe that names no data may be one for deployed sites, which this may not concern.
    if problem is not None and not recipe.has_stand_in:
        raise problem
    parameters, uncounted = noised_parameters(recipe)
    plans = [_facts(recipe, count, made, parameters) for made, count in plans_by_size(recipe)]
    notes = [
        *warnings(recipe),
        *(note for facts in plans for note in facts.pop("warnings")),
        *([uncounted] if uncounted is not None else []),
        *([f"cloister simulate would refuse it: {problem}"] if problem is not None else []),
    ]
    return StudyPlan(recipe.digest(), tuple(plans), tuple(notes))


def _vote_warnings(recipe: Recipe) -> tuple[str, ...]:
    if not recipe.has_stand_in:
        return ()
    return (
        f"data.train: missing; shown for {recipe.data.sites} sites of the sizes above. Connected "
        "sites declare their own: cloister run start FILE states the figures for them",
    )


def _facts(study: Recipe, sites: int, made: Plan, parameters: int | None) -> dict[str, Any]:
    from cloister.canonical import json_number
    from cloister.ledger.stated import of_plan
    from cloister.privacy import adversaries
    from cloister.privacy.accounting import (
        cross_check,
        epsilon,
        group_epsilon,
        true_positive_rate,
    )
    from cloister.privacy.noise_to_signal import noise_over_signal

    whole = made.releases
    checked = cross_check(whole, made.delta) if made.is_private else made.epsilon_after(1)
    rounds = sorted({max(1, round(share * made.num_rounds)) for share in SHARES})
    facts: dict[str, Any] = {
        "sites": sites,
        **of_plan(made).to_json(),
        "epsilon": json_number(checked),
        "noise_multiplier": made.noise_multiplier,
        "sample_rate": made.sample_rate,
        "public_records": made.public_records,
        "expected_batch_size": made.expected_batch_size,
        "steps": made.num_rounds * made.local_steps,
        "max_grad_norm": made.max_grad_norm,
        "max_update_norm": made.max_update_norm,
        "digest": made.digest(),
        "true_positive_rate": {str(FALSE_POSITIVES): true_positive_rate(whole, FALSE_POSITIVES)},
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
    if made.evaluations is not None:
        facts["evaluations"] = asdict(made.evaluations) | {
            "epsilon_alone": json_number(epsilon([made.evaluations.event()], made.delta))
        }
    if made.unit == "record" and made.is_private:
        facts["epsilon_of_records"] = {
            k: json_number(group_epsilon(whole, made.delta, k)) for k in GROUPS
        }
    if made.votes is not None:
        from cloister.api.vote_plan_facts import vote_facts

        return facts | {"votes": vote_facts(study, made)}
    facts |= _band_facts(study, made, parameters)
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


def _band_facts(study: Recipe, made: Plan, parameters: int | None) -> dict[str, Any]:
    """What correlated noise gains, or would gain; empty where it is not possible."""
    from cloister.client.banding import state_bytes
    from cloister.privacy.bands_gain import gains, recommended

    privacy, target = study.privacy, study.privacy.target_epsilon
    is_own = made.sharing is None and made.evaluations is None
    if not made.is_private or not is_own or made.local_steps != 1 or target is None:
        return {}
    batch, records = made.expected_batch_size, made.public_records
    found = gains(batch, records, made.num_rounds, target, made.delta)
    best = recommended(found)
    shown_bands = made.groups if made.bands else best
    size = None
    if parameters is not None and shown_bands is not None:
        size = state_bytes(shown_bands, parameters)
    return {
        "noise_bands": {
            "set": privacy.noise_bands,
            "recommended": best,
            "error": {bands: round(ratio, 3) for bands, ratio in found},
            "state_bytes": size,
        }
    }


def _band_words(bands: dict[str, Any]) -> str:
    best, errors, size = bands["recommended"], bands["error"], bands["state_bytes"]
    advice = (
        f"recommended: privacy.noise_bands = {best}" if best is not None else "none is recommended"
    )
    kept = "" if size is None else f"; a site keeps {size:,} bytes of secret noise"
    if not errors:
        return f"correlated noise: no number of bands fits this study{kept}"
    told = "  ".join(f"{b}: {ratio:.2f}" for b, ratio in errors.items())
    return (
        f"error of the summed gradients with correlated noise, over that without, by "
        f"privacy.noise_bands: {told}; {advice}{kept}"
    )


def _site_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns the lines of a group of sites: promise, noise, and ε over rounds and persons."""
    epsilon, delta, unit = shown(facts["epsilon"], PLACES), facts["delta"], facts["unit"]
    opening = f"{counted(facts['sites'], 'site')} of {facts['public_records']:,} declared {unit}s"
    promise = (
        f": ε = {epsilon}, δ = {delta:g} for one {unit} of a site, added or removed (PLD), "
        "promised for the whole plan"
    )
    spent = "  ".join(f"{r}: {shown(e, PLACES)}" for r, e in facts["epsilon_over_rounds"].items())
    mechanism = [
        f"noise multiplier {facts['noise_multiplier']:g} on a clip bound of "
        f"{facts['max_grad_norm']:g}; {facts['steps']} steps of about "
        f"{facts['expected_batch_size']} {unit}s, each drawn {_turn(facts)}with probability "
        f"{facts['sample_rate']:.4g}"
    ]
    if "votes" in facts:
        from cloister.api.vote_plan_facts import vote_words

        mechanism = vote_words(facts["votes"], unit)
    lines = [
        *mechanism,
        f"spent after round, an indication and no promise: {spent}",
    ]
    if "epsilon_of_records" in facts:
        groups = facts["epsilon_of_records"].items()
        prices = "  ".join(f"{k}: {shown(e, PLACES)}" for k, e in groups)
        lines.append(f"ε for a person, by how many records they have at the site: {prices}")
    if "evaluations" in facts:
        lines.append(_evaluation_words(facts["evaluations"], facts["delta"]))
    if "parameters" in facts:
        lines.append(
            f"{facts['parameters']:,} noised parameters; one step's noise over the longest "
            f"possible gradient: {facts['noise_over_signal']:.2f}"
        )
    if facts.get("noise_bands"):
        lines.append(_band_words(facts["noise_bands"]))
    if "whole_site" in facts:
        whole = facts["whole_site"]
        lines.append(
            f"a whole site, against the other sites and the public: ε = "
            f"{shown(whole['epsilon'], PLACES)}, δ = {whole['delta']:g}, by noise of "
            f"{whole['noise_multiplier']:g} times the longest update at the coordinator"
        )
    if "sharing" in facts:
        lines += _sharing_words(facts["sharing"])
    return [(opening, promise), *(("", f"  {line}") for line in lines)]


def _evaluation_words(evaluations: dict[str, Any], delta: float) -> str:
    rounds = ", ".join(map(str, evaluations["rounds"]))
    return (
        f"private evaluations on held-out units after round {rounds}, with noise multiplier "
        f"{evaluations['noise_multiplier']:.4g}; counted in ε (alone they would cost "
        f"{shown(evaluations['epsilon_alone'], PLACES)} at δ = {delta:g})"
    )


def _turn(facts: dict[str, Any]) -> str:
    """Says in which rounds a unit may be drawn, with correlated noise."""
    bands = facts.get("noise_bands", {}).get("set")
    return f"in one of {bands} rounds " if bands else ""


def _seen(facts: dict[str, Any]) -> str:
    sums = "votes" if "votes" in facts else "updates"
    return (
        f"every sum of the sites' {sums}"
        if "sharing" in facts
        else ("everything that a site sends")
    )


def _sharing_words(sharing: dict[str, Any]) -> list[str]:
    alone = shown(sharing["epsilon_if_all_others_collude"], PLACES)
    return [
        f"noise shared by {sharing['sites']} sites under secure aggregation "
        f"({sharing['bits']} bits): a round needs {sharing['threshold']} of them, and ε holds "
        f"while at most {sharing['colluding']} work together, with or without the coordinator",
        f"against all other sites together: ε = {alone}",
    ]
