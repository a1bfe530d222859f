"""Lists all figures of a run that an experiment tracker may receive.

Scores on public sets, the promise, the sizes of messages and the norm of the global adapter's
change are public: they are in the recipe, or are computed from noised adapters that were released.
Names of sites, hashes, missing, retired or refused sites with reasons, seconds (a site's time
depends on its records), paths and labels are left out, because a tracker may be another
organization's service.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cloister.recipe import Recipe

# Public sets in a round's line; each has scores by name.
SETS = ("test", "validation", "old_test")
# Single figures in a round's line.
FIGURES = ("bytes_up", "bytes_down", "update_norm")
# Name of the largest ε that any site is promised.
EPSILON = "promised_epsilon_largest"
# Fields of a recipe that are sent, as `section.field`.
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
    """Returns a study's parameters for a tracker: the fields in `PARAMETERS`, and the digest.

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
    """Returns a round's figures for a tracker: `SETS`, `FIGURES` and `EPSILON`, and no others.

    Args:
        row: A line of metrics.jsonl.

    Returns:
        The figures by name, such as `test/accuracy`; absent or infinite ones are left out.
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
        # In Python, true and false are integers too.
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
