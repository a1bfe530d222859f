"""Which figures of a run may leave the coordinator for an experiment tracker: a list, in full.

Public are scores on public sets, the promise, the sizes of messages and the norm of the global
adapter's change: all are of the recipe, or computed from noised adapters that were released. Left
out are names of sites, hashes, who was missing, retired or refused and why, seconds (a site's time
depends on its records), paths and labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cloister.recipe import Recipe

# Public sets of a round's line; each has its scores by name.
SETS = ("test", "validation", "old_test")
# Single figures of a round's line.
FIGURES = ("bytes_up", "bytes_down", "update_norm")
# The largest ε that a site is promised, of all sites.
EPSILON = "promised_epsilon_largest"
# Fields of a recipe that are told, as `section.field`.
PARAMETERS = (
    "study.name",
    "task.kind",
    "lora.method",
    "lora.r",
    "strategy.name",
    "federation.num_rounds",
    "training.mode",
    "training.local_steps",
    "training.learning_rate",
    "training.expected_batch_size",
    "privacy.enabled",
    "privacy.unit",
    "privacy.epsilon",
    "privacy.delta",
    "privacy.noise",
    "privacy.max_grad_norm",
)


def public_parameters(recipe: Recipe) -> dict[str, str]:
    """What a tracker is told of a study: the fields in `PARAMETERS`, and the recipe's digest.

    Args:
        recipe: The study.
    """
    sections = recipe.sections()
    found = {}
    for path in PARAMETERS:
        section, _, key = path.partition(".")
        value = getattr(sections[section], key, None)
        if value is not None:
            found[path] = str(value)
    return {**found, "recipe_sha256": recipe.digest()}


def public_figures(row: Mapping[str, Any]) -> dict[str, float]:
    """What a tracker is told of a round: `SETS`, `FIGURES` and `EPSILON`, and nothing else.

    Args:
        row: A line of metrics.jsonl.

    Returns:
        By name, such as `test/accuracy`; what is absent or not finite is left out.
    """
    found: dict[str, object] = {}
    for name in SETS:
        scores = row.get(name)
        if isinstance(scores, Mapping):
            found |= {f"{name}/{metric}": value for metric, value in scores.items()}
    found |= {name: row.get(name) for name in FIGURES}
    epsilon = row.get("epsilon")
    if isinstance(epsilon, Mapping) and epsilon and None not in epsilon.values():
        found[EPSILON] = max(epsilon.values())  # null is ∞, which no site's finite ε bounds
    return {
        name: float(value)
        for name, value in found.items()
        # Of Python's whole numbers true and false are some.
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
