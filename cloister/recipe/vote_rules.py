"""Checks that a study of votes trains nothing, and that its records can vote.

A site checks the same rules, so that a document with `[votes]` means one thing everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from cloister.bounds import shortened
from cloister.models.config import LoraConfig
from cloister.privacy.votes import COUNT_BITS
from cloister.recipe.schema import Recipe
from cloister.training.config import TrainingConfig

# The task whose records may vote.
VOTING = "sequence-classification"
# Fields of other sections that have no meaning without training, by section.
UNUSED = {
    "study": ("start", "former"),
    "privacy": ("max_grad_norm", "max_update_norm"),
    "data": ("test", "validation", "old_test", "fold", "public", "held_out_share"),
}
# The sections that a recipe has besides: no adapters on the base, and the smallest batch.
NOT_TRAINED: Mapping[str, Mapping[str, Any]] = {
    "lora": {"train": "none", "head": "linear"},
    "training": {"expected_batch_size": 1, "local_steps": 1},
}
NO_CODE_BOOK = (
    "task.labels: missing; name every label of the code book, as in "
    'labels = ["negative", "positive"]: labels never come from private records'
)


def vote_rules(recipe: Recipe) -> list[tuple[bool, str]]:
    """Returns whether each rule on votes is broken, and its message; empty without votes."""
    votes, task = recipe.votes, recipe.task
    if votes is None:
        return []
    rules = [
        (
            task.kind != VOTING,
            f"task.kind: {shortened(task.kind)[1:-1]} given; records that vote are texts with one "
            f"label each: leave it out ({VOTING})",
        ),
        (not task.labels, NO_CODE_BOOK),
        (
            0 < votes.candidates < len(task.labels),
            f"votes.candidates: {votes.candidates} given for {len(task.labels)} labels; at least "
            "one for each label is needed",
        ),
        (
            recipe.federation.num_rounds != votes.rounds,
            f"federation.num_rounds: {recipe.federation.num_rounds} for {votes.rounds} rounds of "
            "votes; both must be the same",
        ),
        (
            recipe.privacy.noise == "shared" and recipe.privacy.secure_bits != COUNT_BITS,
            f"privacy.secure_bits: {recipe.privacy.secure_bits} given, with which counts of units "
            f"would be cut; set {COUNT_BITS}",
        ),
    ]
    plain = Recipe(
        lora=LoraConfig(**NOT_TRAINED["lora"]), training=TrainingConfig(**NOT_TRAINED["training"])
    )
    own: Mapping[str, Any] = recipe.resolved().sections()
    usual: Mapping[str, Any] = plain.resolved().sections()
    unused = {name: [field.name for field in fields(own[name])] for name in NOT_TRAINED}
    for section, names in {**UNUSED, **unused}.items():
        for name in names:
            differs = getattr(own[section], name) != getattr(usual[section], name)
            rules.append((differs, f"{section}.{name}: votes do not use it; leave it out"))
    return rules
