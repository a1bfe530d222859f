"""The rate of a private study by its noise: what the defaults of heads and of adapters share.

After the last of T rounds each trained value has noise of deviation η s √(κ T) / (1 − β): s is the
deviation of the noise in a value of the sites' mean gradient, κ the mean of (η_t / η)² over the
schedule, and β the server's momentum. A rate by noise is one at which this has a stated size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from cloister.errors import CloisterError
from cloister.privacy.bands import sum_error
from cloister.privacy.plan import Plan
from cloister.recipe.plan_of import plan_of
from cloister.recipe.schema import Recipe
from cloister.strategies.config import StrategyConfig

# κ of each schedule, without its warm-up: ∫(1 − t)² = 1/3, and ∫((1 + cos πt) / 2)² = 3/8.
SCHEDULES = {"constant": 1.0, "warmup-linear": 1 / 3, "warmup-cosine": 3 / 8}
# Strategies whose result is the sum of the rounds' means, so that their noise is known.
AVERAGES = ("fedavg", "fedavgm")


def with_rate(
    recipe: Recipe,
    stated: Mapping[str, object],
    rate: Callable[[Recipe, float], float],
    *,
    clip: float,
    momentum: float | None = None,
    strategies: Sequence[str] = AVERAGES,
) -> Recipe | None:
    """Returns a user's recipe with a clip bound and the rate that fits its noise.

    Args:
        recipe: As it was read.
        stated: The user's own sections; one that states a rate or a clip bound keeps both.
        rate: The rate of a recipe with the clip bound, and the deviation of its noise.
        clip: The bound.
        momentum: The server's, where the user states no strategy; None: their default stays.
        strategies: Those for which the rate is meant, of `AVERAGES`.

    Returns:
        None for other modes and strategies, without noise, or where the user states a value.
    """
    training, privacy, strategy = recipe.training, recipe.privacy, recipe.strategy
    if not privacy.enabled or training.mode != "gradient-rounds":
        return None
    if states(stated, "training", "learning_rate") or states(stated, "privacy", "max_grad_norm"):
        return None
    if momentum is not None and "strategy" not in stated:
        strategy = StrategyConfig(name="fedavgm", momentum=momentum)
    if not isinstance(strategy, StrategyConfig) or strategy.name not in strategies:
        return None
    clipped = replace(recipe, privacy=replace(privacy, max_grad_norm=clip), strategy=strategy)
    try:
        deviation = mean_noise(clipped)
    except CloisterError:  # what is wrong is reported where it is checked
        return None
    if deviation == 0:
        return None
    found = rate(clipped, deviation)
    return replace(clipped, training=replace(training, learning_rate=found))


def last_noise(recipe: Recipe, deviation: float) -> float:
    """Returns s √(κT) / (1 − β): the noise in a value after the last round, at a rate of 1.

    Args:
        recipe: With the strategy that runs.
        deviation: s, at the recipe's clip bound.
    """
    rounds = SCHEDULES[recipe.training.schedule] * recipe.federation.num_rounds
    return deviation * math.sqrt(rounds) * momentum_way(recipe)


def momentum_way(recipe: Recipe) -> float:
    """Returns 1 / (1 − β), the way that the server's momentum makes of a step; 1 without it.

    Args:
        recipe: With the strategy that runs, of `AVERAGES`.
    """
    strategy = recipe.strategy
    if not isinstance(strategy, StrategyConfig) or strategy.name != "fedavgm":
        return 1.0
    return 1 / (1 - (0.9 if strategy.momentum is None else strategy.momentum))


def mean_noise(recipe: Recipe) -> float:
    """Returns s, the deviation of the noise in each value of the sites' mean gradient.

    Raises:
        CloisterError: No noise meets the target.
    """
    declared, sites = recipe.data.public_records, recipe.data.sites
    by_site = declared if isinstance(declared, tuple) else (declared,) * sites
    plans = {records: plan_of(recipe, records) for records in set(by_site)}
    variances = [_variance(plans[records]) for records in by_site]
    return math.sqrt(sum(variances)) / len(by_site)


def _variance(plan: Plan) -> float:
    """(σC / B)², or a site's part of a shared noise, which the honest sites alone must make up."""
    # Of correlated noise, the independent noise with the same error in the sums of all steps.
    rounds = plan.num_rounds
    cancelled = sum_error(plan.bands, rounds) / sum_error((), rounds) if plan.bands else 1.0
    alone = (
        cancelled * plan.noise_multiplier * (plan.max_grad_norm or 0.0) / plan.expected_batch_size
    )
    return alone**2 if plan.sharing is None else alone**2 / plan.sharing.honest


def states(stated: Mapping[str, object], section: str, key: str) -> bool:
    """Whether a user's sections have a value for a field."""
    table = stated.get(section)
    return isinstance(table, dict) and key in table
