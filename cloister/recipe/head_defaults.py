"""Fills in clip bound and rate of a private linear head, alone or beside adapters, from the size of
its noise, and the form of the vectors for which they are meant.

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
is that of the longest steps tried. Read off the recorded searches of heads on the fourth and on the
last layer of the default base (ncbi_disease; own, shared and central noise, ε from 0.5 to 8, 30 and
120 rounds), it is within 1.4 points of F1 of the best that was tried in each
(simulations/utility/token_rate.py). For words of other bases nothing was recorded, and nothing is
filled in.

Beside a head for texts a study may train adapters that start at zero (`lora.train = "b"`). Head and
adapters are clipped and noised as one vector, and `lora.alpha / lora.r` is the public constant by
which an adapter's gradients count beside the head's. The same rate fits: the head's logits have the
larger part of the noise. No longer steps are made than were tried. Momentum is filled in for a head
alone.

It is a function of declared constants, so it costs no privacy; the value is written into the run's
recipe and the sites' document, as every default is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from cloister.data.guess import is_spaceless
from cloister.models.config import DEFAULT_BASE, ModelConfig
from cloister.recipe.rate_by_noise import AVERAGES, last_noise, momentum_way, states, with_rate
from cloister.recipe.schema import Recipe
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
# Most of η C / (1 − β) where adapters train beside the head: the longest that was tried and learnt
# (bank intents at ε = 8); 120 lost 3.5 points on movie reviews.
LONGEST_BESIDE = 50.0
# Coordinates of the default base's vectors. Longer vectors have more noise in a logit: for 1,536
# coordinates twice as much, which cost 0.3 points on average and 1.0 at most.
HIDDEN = 384


def with_head_defaults(recipe: Recipe, stated: Mapping[str, object]) -> Recipe:
    """Returns a user's recipe with the values above, if it trains such a head and states none.

    Args:
        recipe: As it was read, with the defaults of its task.
        stated: The user's own sections, without those defaults; one that states a rate or a clip
            bound keeps both.

    Returns:
        The recipe itself for other tasks, other modes and strategies, or without noise.
    """
    kind, is_alone = recipe.task.kind, recipe.lora.train == "none"
    if kind not in HEADS or not (is_alone or _has_adapters(recipe)):
        return recipe
    is_of_words = kind == "token-classification"
    if is_of_words and recipe.model.base != DEFAULT_BASE:
        return recipe
    found = with_rate(
        recipe,
        stated,
        head_rate,
        clip=HEADS[kind].clip,
        momentum=MOMENTUM if is_alone else None,
        strategies=("fedavgm",) if is_of_words else AVERAGES,  # with which it was recorded
    )
    return recipe if found is None else replace(found, model=_with_fitting_vectors(recipe, stated))


def _has_adapters(recipe: Recipe) -> bool:
    """Whether adapters that start at zero train beside a head of full rank for texts."""
    lora = recipe.lora
    is_plain = lora.train == "b" and lora.is_lora and not lora.use_dora
    is_of_texts = recipe.task.kind == "sequence-classification"
    return is_of_texts and is_plain and lora.head in (None, "linear")


def _with_fitting_vectors(recipe: Recipe, stated: Mapping[str, object]) -> ModelConfig:
    """The `[model]` section with vectors for which the rate is meant, where none are stated."""
    model = recipe.model
    if model.base == DEFAULT_BASE:
        return model
    if not states(stated, "model", "normalize"):
        model = replace(model, normalize=True)
    # A head of label words answers as the language model would, which a centre would change.
    if not states(stated, "model", "center") and recipe.lora.head != "label-words":
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
    rule, way = HEADS[recipe.task.kind], momentum_way(recipe)
    by_noise = rule.logit_noise / (last_noise(recipe, deviation) * math.sqrt(HIDDEN))
    longest = rule.longest_step if recipe.lora.train == "none" else LONGEST_BESIDE
    return float(f"{min(by_noise, longest / (rule.clip * way)):.2g}")
