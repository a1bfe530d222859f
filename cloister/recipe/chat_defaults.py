"""Fills in clip bound, rate and momentum of a private language model's adapters, from the noise.

    C = 0.1,   β = 0.9,   η = K (1 − β) / (s √(κ T) c √(r/3)), at most 20 (1 − β) / C

s, κ and T are those of `rate_by_noise`, c is `lora.alpha / r` (or / √r), by which an adapter is
scaled. B starts at zero and gets all of the noise; A is uniform on ±1/√d (peft), so for an input of
d coordinates near 1 the norm of A x is near √(r/3), and after the last round every output of an
adapted layer has noise of deviation K. A bound of 0.1 is below the gradients of the bases at hand,
so every record has the same weight, and the rate does not depend on their size. With little noise
the rate is that of the longest steps that were tried and learnt.

It is a function of declared constants, so it costs no privacy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from cloister.recipe.rate_by_noise import last_noise, momentum_way, with_rate
from cloister.recipe.schema import Recipe
from cloister.tasks.config import TaskKind

CHATS: TaskKind = "causal-lm"
CLIP, MOMENTUM = 0.1, 0.9
# K. The best of 0.1, 0.3, 1 and 3 for a base of 260,000 values at ε = 1 and 8, which a larger one
# ruins. SmolLM2 could take three times as much, and loses 4 to 5 % of perplexity by it
# (docs/utility.md).
OUTPUT_NOISE = 0.3
# Most of η C / (1 − β), the way that momentum makes of a clipped gradient: 20 gave the best result
# on that base at ε = 8, 60 ruined it, and SmolLM2 was tried up to 20.
LONGEST_STEP = 20.0


def with_chat_defaults(recipe: Recipe, stated: Mapping[str, object]) -> Recipe:
    """Returns a user's recipe with the values above, if it adapts a language model and states none.

    Args:
        recipe: As it was read.
        stated: The user's own sections; one that states a rate or a clip bound keeps both.

    Returns:
        The recipe itself for other tasks, adapters, modes and strategies, or without noise.
    """
    lora = recipe.lora
    is_plain = lora.train == "b" and lora.is_lora and not lora.use_dora
    if recipe.task.kind != CHATS or not is_plain:
        return recipe
    return with_rate(recipe, stated, adapter_rate, clip=CLIP, momentum=MOMENTUM) or recipe


def adapter_rate(recipe: Recipe, deviation: float) -> float:
    """Returns η of the formula above, rounded to two digits.

    Args:
        recipe: With the strategy that runs.
        deviation: s, at the recipe's clip bound.
    """
    lora = recipe.lora
    scale = lora.alpha / (math.sqrt(lora.r) if lora.rslora else lora.r)
    output = last_noise(recipe, deviation) * scale * math.sqrt(lora.r / 3)
    longest = LONGEST_STEP / (CLIP * momentum_way(recipe))
    return float(f"{min(OUTPUT_NOISE / output, longest):.2g}")
