"""The quickstart, which `cloister simulate` runs without a recipe: four synthetic hospitals.

The defaults of a recipe fit most studies, and take twice as long here for the same accuracy:
there adapters train in every round. Here the head alone trains first, on cached vectors, where a
round takes a tenth of the time, and then the adapters with it. The values were found on the
synthetic hospitals, which are public, and on their test set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# Rounds of the head alone, and of head and adapters together.
HEAD_ROUNDS, ADAPTER_ROUNDS = 24, 2

TABLES: Mapping[str, Mapping[str, object]] = {
    # Five of the 5,210 notes are longer, by at most 6 tokens.
    "task": {"max_length": 64},
    "training": {
        "probe_rounds": HEAD_ROUNDS,
        "probe_learning_rate": 1.8,
        "learning_rate": 5.0,
        # 98 % of the notes have 17 to 56 tokens; fewer lengths make the machine's proof shorter.
        "padded_lengths": [24, 32, 40, 48, 64],
    },
    "privacy": {"max_grad_norm": 4.0},
    "strategy": {"name": "fedavgm", "momentum": 0.5},
    "federation": {
        "num_rounds": HEAD_ROUNDS + ADAPTER_ROUNDS,
        "evaluate_every": 5,
    },
    # Passes of 512 tokens are as fast per token as larger ones, and quicker to prove
    # (`training.room`).
    "machine": {"physical_batch_tokens": 512},
}
# Changes that keep the quickstart: of the promise, and of where and how it runs.
FREE = ("study.", "machine.", "tracking.", "privacy.epsilon", "privacy.delta")


def quickstart_tables(assignments: Iterable[str]) -> dict[str, object]:
    """Returns the quickstart's sections, to which the command line's changes are then made.

    Args:
        assignments: `section.key=value` each. One that is not of `FREE` describes a study of the
            user's own, for which these rounds and rates were not found.

    Returns:
        Empty for a study of the user's own: it has the defaults of every recipe.
    """
    if not all(assignment.strip().startswith(FREE) for assignment in assignments):
        return {}
    return {section: dict(fields) for section, fields in TABLES.items()}
