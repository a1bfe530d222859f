"""Writes the front matter of a card (YAML between dashes) in the schema of Hugging Face's hub."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from huggingface_hub import EvalResult, ModelCardData

from cloister.tasks.config import TaskKind

# The hub's name of each task, for `pipeline_tag`; a task from a plug-in has none.
PIPELINES: Mapping[TaskKind, str] = {
    "sequence-classification": "text-classification",
    "multi-label-classification": "text-classification",
    "text-pairs": "text-classification",
    "scoring": "text-classification",
    "recommendation": "text-classification",
    "token-classification": "token-classification",
    "causal-lm": "text-generation",
}


def front_matter(
    *,
    base: str,
    library: str,
    kind: TaskKind,
    tags: Sequence[str],
    name: str = "",
    scores: Mapping[str, float] | None = None,
) -> str:
    """Renders the block that the hub reads, between two lines of dashes.

    The license is left out: neither the base's nor the sites' terms are known here.

    Args:
        base: The base, as the recipe names it.
        library: The library that loads the folder, by its name on the hub.
        kind: The task.
        tags: The hub's search words.
        name: The study's name, for a card with scores.
        scores: Scores on the public test set, by metric; infinite and NaN ones are left out.
    """
    pipeline = PIPELINES.get(kind)
    finite = {metric: value for metric, value in (scores or {}).items() if math.isfinite(value)}
    results = [
        EvalResult(
            task_type=pipeline or "other",
            task_name=kind,
            dataset_type="public-test-set",
            dataset_name="the study's public test set",
            metric_type=metric,
            metric_name=metric,
            metric_value=round(value, 4),
        )
        for metric, value in finite.items()
    ]
    data = ModelCardData(
        base_model=base,
        library_name=library,
        pipeline_tag=pipeline,
        tags=list(tags),
        metrics=list(finite) or None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml(line_break=None)}\n---\n"


def without_front_matter(card: str) -> str:
    """Returns a card's text without its front matter."""
    if not card.startswith("---\n"):
        return card
    return card.partition("\n---\n")[2].lstrip("\n")
