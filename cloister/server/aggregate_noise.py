"""Computes the variance of the noise in a round's mean update, from declared numbers only.

Math:
    η_t: the learning rate of round t; B: expected batch; C: clip bound; d: values of an update;
    S: the bound on an update's norm.

    own noise      φ = Σ_k w_k² min((η_t σ_k C / B)², S²/d) / (Σ_k w_k)²
    shared noise   φ = min((η_t γ s / (B n))² n, S²/d)

    The sum is over the sites k that count. n of them are in a secure sum, each with a share of the
    noise, of deviation s steps of the grid γ.

    An update whose norm is above S is scaled down to it, and so is its noise. What is left has at
    most S²/d a value, and nearly that where noise is most of it; this is the minimum above.

Rounding of updates to fewer bits (`training.update_dtype`) adds at most a thousandth to φ, which is
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from cloister.errors import RefusedError
from cloister.privacy.plan import Plan
from cloister.recipe import Recipe
from cloister.recipe.plan_of import plan_of
from cloister.strategies.config import own_strategy
from cloister.training.adam_bc import noise_variance
from cloister.training.optimizer import learning_rate_at

# Computes φ from the round (from 1), the sites that count, and the number of values of an update.
AggregateNoise = Callable[[int, Collection[str], int], float]


def unknown_noise(number: int, sites: Collection[str], values: int) -> float:
    """Returns 0, for studies without noise and for those that do not need to know it."""
    return 0.0


def aggregate_noise(recipe: Recipe, names: Sequence[str]) -> AggregateNoise:
    """Returns the function that computes the noise variance of each value of a round's mean.

    Args:
        recipe: The study's recipe; its `data.public_records` are in the order of the sites' names.
        names: The sites' names, in order.

    Returns:
        `unknown_noise` without privacy; also with local steps, whose noise passes through an
        optimizer, and with noise of the coordinator's own: `strategy_rules` refuses what needs it.
    """
    privacy = recipe.privacy
    has_known = recipe.training.mode == "gradient-rounds" and privacy.site_epsilon is None
    if not privacy.enabled or not has_known:
        return unknown_noise
    plans = _plans(recipe, names)
    declared = own_strategy(recipe.strategy).weights
    weights = {**dict.fromkeys(names, 1.0), **dict(zip(names, declared, strict=False))}

    def variance(number: int, sites: Collection[str], values: int) -> float:
        if not sites or not values:
            return 0.0
        training, rounds = recipe.training, recipe.federation.num_rounds
        is_probe = training.is_probe(number)
        rate = learning_rate_at(training, number - 1, rounds, is_probe=is_probe)
        most = privacy.max_update_norm**2 / values
        if privacy.noise == "shared":
            plan = next(iter(plans.values()))
            return min(rate**2 * shared_variance(plan, len(sites), values), most)
        total = sum(weights[site] for site in sites)
        return sum(
            (weights[site] / total) ** 2 * min(rate**2 * own_variance(plans[site]), most)
            for site in sites
        )

    return variance


def own_variance(plan: Plan) -> float:
    """Returns (σC / B)², the noise variance of each value of one site's mean gradient."""
    return noise_variance(plan.step_noise, plan.max_grad_norm, plan.expected_batch_size)


def shared_variance(plan: Plan, sites: int, values: int) -> float:
    """Returns (γ s / (B n))² n, for each value of the mean gradient of n sites; 0 without noise."""
    try:
        noise = plan.shared_noise(values)
    except RefusedError:
        return 0.0
    return (noise.grid * noise.share / (plan.expected_batch_size * sites)) ** 2 * sites


def _plans(recipe: Recipe, names: Sequence[str]) -> dict[str, Plan]:
    """Returns each site's plan, as the coordinator proposes it to the site."""
    declared = recipe.data.public_records
    by_site = declared if isinstance(declared, tuple) else (declared,) * len(names)
    return {name: plan_of(recipe, records) for name, records in zip(names, by_site, strict=True)}
