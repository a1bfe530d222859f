"""The front matter of a card in the schema of Hugging Face's hub."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from huggingface_hub import EvalResult, ModelCardData

from cloister.tasks.config import TaskKind

# The hub's name of a task, for `pipeline_tag`; of a plug-in's task there is none.
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
        library: What loads the folder, in the hub's words.
        kind: The task.
        tags: Words to be found by.
        name: The study; of a card with scores.
        scores: On the public test set, by metric; what is not finite is left out.
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
    """A card's text behind its front matter."""
    if not card.startswith("---\n"):
        return card
    return card.partition("\n---\n")[2].lstrip("\n")
