"""Sections of a card: what a model is for, what limits it, and what was not measured.

People can add what the program cannot know (an intended use, a bias that they looked for, a
site's description of its records): `cloister model card` puts their words into these sections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cloister.privacy.plan import Plan
from cloister.tasks.config import TaskKind

USE, BIAS, ROBUSTNESS, DATA = "Intended use", "Bias", "Robustness", "Data, by site"

# What the model outputs, by task.
_GIVES: Mapping[TaskKind, str] = {
    "sequence-classification": "one of its labels to a text",
    "multi-label-classification": "any number of its labels to a text",
    "text-pairs": "one of its labels to two texts",
    "scoring": "a score to a text",
    "recommendation": "a rank to each public item, of what a person may take next",
    "token-classification": "the entities in a sentence",
    "causal-lm": "a reply to a conversation",
}


def intended_use(kind: TaskKind, labels: Sequence[str]) -> str:
    """Returns the section on what the model was trained for, and what it was not trained for.

    Args:
        kind: The task.
        labels: Names of its outputs; empty if it has none.
    """
    gives = _GIVES.get(kind, f"the outputs that the task `{kind}` defines")
    among = f" ({', '.join(f'`{label}`' for label in labels)})" if labels else ""
    return (
        f"## {USE}\n\nIt was trained to give {gives}{among}, on records like those of the sites "
        "below. The study names no other use. Before you use it, score it on records of your own "
        "that you may look at (`cloister evaluate`). No decision about a person should rest on it "
        "alone.\n"
    )


def limits(kind: TaskKind, max_length: int, *, is_private: bool, has_test: bool) -> str:
    """Returns the section on the model's known limits.

    Args:
        kind: The task.
        max_length: Longest record in tokens.
        is_private: Whether noise was added at every site.
        has_test: Whether the adapter was scored on a public test set.
    """
    lines = [f"- It reads {max_length} tokens of a record; the rest is cut."]
    if has_test:
        lines.append("- Scores are of one public test set, whose records may differ from yours.")
    if kind == "causal-lm":
        lines.append("- It may state what is false, in the same tone as what is true.")
    else:
        lines.append("- It has no answer but its own: a text of another kind gets one of them too.")
    if is_private:
        lines.append(
            "- Noise hides patterns that few records have: rare labels and rare wordings are "
            "learnt least."
        )
    lines.append("- It keeps what its base learnt before, including false and unfair statements.")
    return "## Limits\n\n" + "\n".join(lines) + "\n"


def unexamined() -> str:
    """Returns the sections on bias and robustness, which a study does not measure by itself."""
    return (
        f"## {BIAS}\n\nNot measured. Records that say whom a text is about are private, and no "
        "score by group was computed.\n\n"
        f"## {ROBUSTNESS}\n\nNot measured: typing errors, other wordings, other languages, and "
        "texts that are written to mislead it.\n"
    )


def data_by_site(sites: Mapping[str, str]) -> str:
    """Returns the section on the training data, with one part for each site.

    Args:
        sites: By site, what its certificate says about its records.
    """
    parts = [f"### {site}\n\n{known}\n\n{NO_WORDS}\n" for site, known in sites.items()]
    return (
        f"## {DATA}\n\nThe sites kept their records: no message of the study holds one.\n\n"
        + "\n".join(parts)
    )


NO_WORDS = "The site gave no account of its records in its own words."


def not_measured(
    test: Mapping[str, float],
    *,
    has_untrained: bool,
    has_twin: bool,
    is_private: bool,
    is_evaluated: bool = False,
) -> str:
    """Returns the section that lists what was not measured.

    Args:
        test: Scores on the public test set.
        has_untrained: Whether the adapter before round 1 was scored.
        has_twin: Whether the same study was run without privacy.
        is_private: Whether every site is promised a finite ε.
        is_evaluated: Whether sites released noised statistics of held-out units.
    """
    own = "scores on the sites' own records: nothing computed on them leaves a site uncharged"
    lines = [
        "bias and robustness, unless their sections say otherwise",
        *([] if is_evaluated else [own]),
        "scores of other seeds: this is one run",
        "whether it repeats what it was trained on (`cloister audit` attacks the mechanism)",
        "energy and emissions",
    ]
    if not test:
        lines.append(
            "scores on public records: there was no public test set"
            if is_evaluated
            else "any score: there was no public test set"
        )
    if "ece" not in test:
        lines.append("calibration")
    if not has_untrained:
        lines.append("what it scored before training")
    if is_private and not has_twin:
        lines.append("what privacy cost")
    return "## Never measured\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"


def balance(labels: Sequence[str], test_counts: Mapping[str, int]) -> str:
    """Describes how unequal the test set's classes are; labels with no test record count too.

    Args:
        labels: Names of the outputs.
        test_counts: How many records of the test set have each label; not empty.
    """
    counts = {**dict.fromkeys(labels, 0), **test_counts}
    most = max(counts, key=lambda label: counts[label])
    least = min(counts, key=lambda label: counts[label])
    told = f"Of the test set's labels `{most}` is the commonest ({counts[most]:,} records) and "
    told += f"`{least}` the rarest ({counts[least]:,})"
    if counts[least] == 0:
        return f"{told}: nothing here says how well that one is told."
    return f"{told}, a ratio of {counts[most] / counts[least]:.1f}."


def drawn(plan: Plan) -> str:
    """States which steps drew a unit."""
    if not plan.bands:
        return "a step drew each"
    return (
        f"noise was correlated over {plan.groups} rounds, and every {plan.groups}th round drew each"
    )


def evaluated(plans: Iterable[Plan]) -> list[str]:
    """States the private evaluations that the promises cover besides training; empty: none."""
    found = dict.fromkeys(plan.evaluations for plan in plans if plan.evaluations is not None)
    return [
        f"\nε also covers private evaluations of the adapter on held-out units, after round "
        f"{', '.join(map(str, one.rounds))}, with noise multiplier {one.noise_multiplier:.4g}."
        for one in found
    ]
