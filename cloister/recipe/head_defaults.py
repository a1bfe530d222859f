"""Fills in clip bound, rate and momentum of a private linear head, from the size of its noise, and
the form of the vectors for which they are meant.

    C = 1,   β = 0.5,   η = 1.5 (1 − β) / (s √(κ T) √384)            a head for texts
    C = 0.3, β = 0.5,   η = 8 (1 − β) / (s √(κ T) √384), at most 30 (1 − β) / C     for words

s is the standard deviation of the noise in a value of the sites' mean gradient, T the rounds, κ the
mean of (η_t / η)² over the schedule. A clip of 1 is below the gradients of a head on vectors of
norm √H, so every record has the same weight, and the best rate no longer depends on the base's
scale but on the noise: with the rate above, a class's logit has noise of deviation 1.5 in the end,
for vectors of norm √384. Emulated on three data sets at ε = 1 and 8 with own and with shared noise,
it is within about a point of the best of 24 clip bounds, rates and momenta in all twelve cases,
where one rate for all loses up to seven (docs/utility.md).

The rate is meant for vectors of length √H that have little in common. Those of the default base are
so; for every other base `model.normalize` becomes true, and `model.center` the built-in sentences,
if the recipe states nothing of them. On two language models the rule is then within a point of the
best of 32 settings in all eight cases, and 0.5 to 11.3 points below it without a centre
(docs/utility-tables.md).

A sentence's gradient is a mean over its words, most of which are no entity: it is shorter, so the
clip bound is smaller, and what is learnt stands more noise in a logit. With little noise the rate
is that of the longest steps tried. Read off the recorded searches of heads on the fourth layer of
the default base (ncbi_disease; own, shared and central noise, ε from 0.5 to 8, 30 and 120 rounds),
it is within 1.0 points of F1 of the best that was tried in each
(simulations/utility/token_rate.py). For words of other bases nothing was recorded, and nothing is
filled in.

It is a function of declared constants, so it costs no privacy; the value is written into the run's
recipe and the sites' document, as every default is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from cloister.data.guess import is_spaceless
from cloister.errors import CloisterError
from cloister.models.config import DEFAULT_BASE, ModelConfig
from cloister.privacy.bands import sum_error
from cloister.privacy.plan import Plan, make_plan
from cloister.recipe.schema import Recipe
from cloister.strategies.config import StrategyConfig
from cloister.tasks.config import TaskKind

CLIP, MOMENTUM = 1.0, 0.5
# Of 0.75, 1.5 and 3 the best on average over the twelve cases above.
LOGIT_NOISE = 1.5


@dataclass(frozen=True, kw_only=True)
class HeadRule:
    """What the heads of a task get.

    Attributes:
        clip: C.
        logit_noise: The deviation of the noise in a logit after the last round, for vectors of norm
            √384.
        longest_step: Most of η C / (1 − β), the way that momentum makes of a clipped gradient.
    """

    clip: float
    logit_noise: float
    longest_step: float = math.inf


# The clip bound of words was tried in every recorded search; of 5 to 10 for their noise, 8 loses
# least at most, and no search tried longer steps than 30 in 120 rounds.
HEADS: Mapping[TaskKind, HeadRule] = {
    "sequence-classification": HeadRule(clip=CLIP, logit_noise=LOGIT_NOISE),
    "token-classification": HeadRule(clip=0.3, logit_noise=8.0, longest_step=30.0),
}
# Coordinates of the default base's vectors. Longer vectors have more noise in a logit: for 1,536
# coordinates twice as much, which cost 0.3 points on average and 1.0 at most.
HIDDEN = 384
# κ of each schedule, without its warm-up: ∫(1 − t)² = 1/3, and ∫((1 + cos πt) / 2)² = 3/8.
SCHEDULES = {"constant": 1.0, "warmup-linear": 1 / 3, "warmup-cosine": 3 / 8}


def with_head_defaults(recipe: Recipe, stated: Mapping[str, object]) -> Recipe:
    """Returns a user's recipe with the values above, if it trains a head alone and states none.

    Args:
        recipe: As it was read, with the defaults of its task.
        stated: The user's own sections, without those defaults; one that states a rate or a clip
            bound keeps both.

    Returns:
        The recipe itself for other tasks, other modes and strategies, or without noise.
    """
    training, privacy, strategy = recipe.training, recipe.privacy, recipe.strategy
    is_head = recipe.lora.train == "none" and recipe.task.kind in HEADS
    if not is_head or not privacy.enabled or training.mode != "gradient-rounds":
        return recipe
    is_of_words = recipe.task.kind == "token-classification"
    if is_of_words and recipe.model.base != DEFAULT_BASE:
        return recipe
    if _states(stated, "training", "learning_rate") or _states(stated, "privacy", "max_grad_norm"):
        return recipe
    if "strategy" not in stated:
        strategy = StrategyConfig(name="fedavgm", momentum=MOMENTUM)
    known = ("fedavgm",) if is_of_words else ("fedavg", "fedavgm")  # with which it was recorded
    if not isinstance(strategy, StrategyConfig) or strategy.name not in known:
        return recipe
    clip = HEADS[recipe.task.kind].clip
    clipped = replace(recipe, privacy=replace(privacy, max_grad_norm=clip), strategy=strategy)
    try:
        deviation = mean_noise(clipped)
    except CloisterError:  # what is wrong is reported where it is checked
        return recipe
    if deviation == 0:
        return recipe
    rate = head_rate(clipped, deviation)
    return replace(
        clipped,
        model=_with_fitting_vectors(recipe, stated),
        training=replace(training, learning_rate=rate),
    )


def _with_fitting_vectors(recipe: Recipe, stated: Mapping[str, object]) -> ModelConfig:
    """The `[model]` section with vectors for which the rate is meant, where none are stated."""
    model = recipe.model
    if model.base == DEFAULT_BASE:
        return model
    if not _states(stated, "model", "normalize"):
        model = replace(model, normalize=True)
    # A head of label words answers as the language model would, which a centre would change.
    if not _states(stated, "model", "center") and recipe.lora.head != "label-words":
        model = replace(model, center=_language(recipe))
    return model


def _language(recipe: Recipe) -> Literal["english", "chinese"]:
    """The language of the built-in sentences: Chinese if a label or the prompt is Chinese."""
    words = [*recipe.task.labels, (recipe.task.prompt or "").replace("{text}", "")]
    return "chinese" if any(is_spaceless([text]) for text in words) else "english"


def head_rate(recipe: Recipe, deviation: float) -> float:
    """Returns η of the formula above, rounded to two digits.

    Args:
        recipe: With the strategy that runs.
        deviation: s, at the recipe's clip bound.
    """
    strategy, rule = recipe.strategy, HEADS[recipe.task.kind]
    is_momentum = isinstance(strategy, StrategyConfig) and strategy.name == "fedavgm"
    momentum = 0.9 if strategy.momentum is None else strategy.momentum  # type: ignore[union-attr]
    left = 1 - momentum if is_momentum else 1.0
    rounds = SCHEDULES[recipe.training.schedule] * recipe.federation.num_rounds
    by_noise = rule.logit_noise / (deviation * math.sqrt(rounds * HIDDEN))
    return float(f"{left * min(by_noise, rule.longest_step / rule.clip):.2g}")


def mean_noise(recipe: Recipe) -> float:
    """Returns s, the deviation of the noise in each value of the sites' mean gradient.

    Raises:
        CloisterError: No noise meets the target.
    """
    declared, sites = recipe.data.public_records, recipe.data.sites
    by_site = declared if isinstance(declared, tuple) else (declared,) * sites
    plans = {records: _plan(recipe, records) for records in set(by_site)}
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


def _plan(recipe: Recipe, records: int) -> Plan:
    return make_plan(
        recipe.privacy,
        public_records=records,
        expected_batch_size=recipe.training.expected_batch_size,
        local_steps=recipe.training.local_steps,
        num_rounds=recipe.federation.num_rounds,
        sites=recipe.data.sites,
    )


def _states(stated: Mapping[str, object], section: str, key: str) -> bool:
    table = stated.get(section)
    return isinstance(table, dict) and key in table
