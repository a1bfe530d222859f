"""Fills in defaults that depend on the kind of task, while a recipe is read.

A run's `recipe.toml` and the document for sites have every value, so these defaults are in the
digest, and no finished or running study changes when they change.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cloister.data.config import GENERATED, QUESTIONS, SYNTHETIC
from cloister.data.passages import read_passages
from cloister.data.synthetic_answers import HIGHEST
from cloister.data.synthetic_questions import leaflets
from cloister.tasks.registry import BUILT_IN

# Most words are not part of an entity, so a record's gradient is short: a bound of 1 clips few of
# them and needs an eighth of the noise, and a larger rate compensates for both. Found by a search
# on the validation set of ncbi_disease (simulations/disease_entities.toml): F1 0.05 at rates near
# 1, 0.31 at this one.
TASK_DEFAULTS: Mapping[str, Mapping[str, Mapping[str, object]]] = {
    "token-classification": {
        "training": {"learning_rate": 24.0},
        "privacy": {"max_grad_norm": 1.0},
    },
}


# What a generator's records need of their task.
_OF_GENERATOR: Mapping[str, Mapping[str, object]] = {
    "scoring": {"score_range": [0.0, float(HIGHEST)], "score_step": 1.0},
    "recommendation": {"items": GENERATED["items"]},
}


def with_task_defaults(tables: Mapping[str, object]) -> dict[str, object]:
    """Returns a user's sections, with the defaults of their task for values that are absent.

    Args:
        tables: The fields by section, unchecked.

    Returns:
        The sections; the user's values are kept. Without privacy nothing is filled in, because the
        defaults are for clipped and noised steps.
    """
    tables = _with_head(_with_passages(_with_generator(tables)))
    privacy = tables.get("privacy")
    if isinstance(privacy, dict) and privacy.get("enabled") is False:
        return dict(tables)
    found = dict(tables)
    for section, fields in TASK_DEFAULTS.get(_kind(tables), {}).items():
        given = found.get(section, {})
        if isinstance(given, dict):  # for any other value the reader reports the error
            found[section] = {**fields, **given}
    return found


def _kind(tables: Mapping[str, object]) -> str:
    """Returns the task's kind; empty if none is given."""
    task = tables.get("task")
    kind = task.get("kind") if isinstance(task, dict) else None
    return kind if isinstance(kind, str) else ""


def _with_generator(tables: Mapping[str, object]) -> Mapping[str, object]:
    """Returns the sections with the task's generator, if no training data are named.

    For scores the generator's scale is filled in too, and for people's items its catalogue.
    """
    task, data = tables.get("task", {}), tables.get("data", {})
    kind = _kind(tables)
    if not isinstance(task, dict) or not isinstance(data, dict) or kind not in BUILT_IN:
        return tables
    source = GENERATED.get(BUILT_IN[kind].records, SYNTHETIC)
    if kind == "retrieval":
        source = QUESTIONS
    if source == SYNTHETIC or data.get("train", source) != source:
        return tables
    return {
        **tables,
        "data": {**data, "train": source},
        "task": {**_OF_GENERATOR.get(kind, {}), **task},
    }


def _with_passages(tables: Mapping[str, object]) -> Mapping[str, object]:
    """The sections with the passages that a file of them, or the generator, has.

    Whatever else is given, the reader says that it is no table.

    Raises:
        DataError: The file cannot be read, or is none of passages.
    """
    task, data = tables.get("task"), tables.get("data", {})
    if _kind(tables) != "retrieval" or not isinstance(task, dict):
        return tables
    given = task.get("passages")
    if isinstance(given, str):
        return {**tables, "task": {**task, "passages": read_passages(Path(given))}}
    if given is None and isinstance(data, dict) and data.get("train") == QUESTIONS:
        return {**tables, "task": {**task, "passages": leaflets()}}
    return tables


def _with_head(tables: Mapping[str, object]) -> Mapping[str, object]:
    """The sections with the head of a retrieval study where none is named: where adapters train
    none, since a map has H² numbers, which take as much noise as all else; in a probe the map."""
    lora = tables.get("lora", {})
    if _kind(tables) != "retrieval" or not isinstance(lora, dict) or lora.get("head") is not None:
        return tables
    head = "linear" if lora.get("train") == "none" else "frozen"
    return {**tables, "lora": {**lora, "head": head}}
