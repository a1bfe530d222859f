"""Runs the attacks of an empirical audit on a recipe, with synthetic records."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cloister.audit.audited_site import AuditedSite, audited_site
from cloister.audit.canaries import audit_run
from cloister.audit.frozen_step import audit_step
from cloister.audit.lower_bounds import Finding, epsilon_bound, judge
from cloister.audit.membership_inference import FALSE_POSITIVES, attack_adapters
from cloister.audit.one_run import guess, one_run_bound, refutes
from cloister.canonical import json_number
from cloister.privacy.accounting import epsilon, true_positive_rate
from cloister.privacy.plan import Plan
from cloister.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Attack:
    """The result of one attack on one plan.

    Attributes:
        name: The attack's name.
        refuted: Whether it does better than the claim allows, which refutes the claim.
        trials: Number of runs, or of canaries.
        bound: Lower bound on ε.
        claimed: The claimed ε of the attacked step or run.
        detail: The result in words.
    """

    name: str
    refuted: bool
    trials: int
    bound: float
    claimed: float
    detail: str

    def to_json(self) -> dict[str, Any]:
        """Returns the result as JSON values, for `--json` and reports."""
        return {
            "attack": self.name,
            "refuted": self.refuted,
            "trials": self.trials,
            "epsilon_lower_bound": self.bound,
            "epsilon_claimed": json_number(self.claimed),
            "detail": self.detail,
        }


@dataclass(frozen=True)
class Attacks:
    """The results of all attacks on one plan."""

    plan: Plan
    attacks: tuple[Attack, ...]


@dataclass(frozen=True)
class Illustration:
    """An attack that is too weak to refute anything."""

    name: str
    detail: str

    def to_json(self) -> dict[str, Any]:
        """Returns the result as JSON values, for `--json` and reports."""
        return {"attack": self.name, "detail": self.detail}


def attacks(recipe: Recipe, persons: int, each: int, trials: int) -> Attacks:
    """Attacks one step, one whole run, and one run of canaries alone.

    Args:
        recipe: The study.
        persons: Number of persons at the attacked site.
        each: Most records of one person.
        trials: Trials of the attacked step, with and without the canary.

    Raises:
        CloisterError: The base cannot be loaded, or no plan can be made.
    """
    site = _as_accounted(audited_site(recipe, persons, each))
    made = (_one_step(site, trials), _one_run(site, recipe), _canaries_alone(site, recipe))
    return Attacks(site.plan, made)


def illustration(recipe: Recipe, persons: int) -> Illustration:
    """Guesses from final adapters alone which records were in the training data."""
    site = _as_accounted(audited_site(recipe, persons, 1))
    # With shared noise only the sum is visible: attack it as one site that adds all of the noise.
    plan = replace(site.plan, sharing=None)
    found = attack_adapters(site.workspace, site.units, plan, recipe.training)
    allowed = true_positive_rate(plan.releases, FALSE_POSITIVES)
    return Illustration(
        "membership inference by loss, from the final adapter (weak; an illustration that refutes "
        "nothing)",
        f"AUC {found.auc:.3f} over {found.guesses} guesses (0.5 is guessing); at "
        f"{FALSE_POSITIVES:.0%} wrongly accused it finds {found.true_positives:.0%} of the "
        f"members; the claim allows {allowed:.0%} to an adversary who sees every release.",
    )


def _as_accounted(site: AuditedSite) -> AuditedSite:
    """With correlated noise, the site with the steps that the accountant counts: attacks are on
    independent noise at the rate of a group, and conformance tests the correlation."""
    return replace(site, plan=site.plan.independent())


def _one_step(site: AuditedSite, trials: int) -> Attack:
    plan, event = site.plan, site.plan.event(1)
    finding = audit_step(plan, site.workspace.start.size, trials)
    return Attack(
        name="one step, frozen",
        refuted=finding.refuted,
        trials=trials,
        bound=epsilon_bound(finding, event, plan.delta),
        claimed=epsilon([event], plan.delta),
        detail=_rates(finding),
    )


def _one_run(site: AuditedSite, recipe: Recipe) -> Attack:
    plan = site.plan
    whole = plan.event(plan.local_steps * plan.num_rounds)
    run = audit_run(site.workspace, site.units, plan, recipe.training)
    guesses = guess(run.scores, run.is_in)
    made, right = guesses.counts[0]
    return Attack(
        name="one run with gradient canaries",
        refuted=refutes(guesses, whole),
        trials=guesses.canaries,
        bound=one_run_bound(guesses, whole, plan.delta),
        claimed=epsilon([whole], plan.delta),
        detail=f"of the {made} canaries that it is surest of, {right} were in",
    )


def _canaries_alone(site: AuditedSite, recipe: Recipe) -> Attack:
    plan = site.plan
    whole = plan.event(plan.local_steps * plan.num_rounds)
    run = audit_run(site.workspace, (), plan, recipe.training)
    finding = judge(run.scores[~run.is_in], run.scores[run.is_in], whole)
    return Attack(
        name="one run of canaries alone",
        refuted=finding.refuted,
        trials=len(run.scores),
        bound=epsilon_bound(finding, whole, plan.delta),
        claimed=epsilon([whole], plan.delta),
        detail=_rates(finding),
    )


def _rates(finding: Finding) -> str:
    return (
        f"accuses at most {finding.false_positives:.2%} wrongly and misses at most "
        f"{finding.false_negatives:.2%}; the claim allows it to miss no less than "
        f"{finding.least:.2%}"
    )
