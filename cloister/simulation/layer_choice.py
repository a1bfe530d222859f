"""Which layer a base ends after: chosen on public records that are named for it, and on no others.

A choice that looks at private records tells of them, and no ledger charges it. So the file is given
by itself, what is known to be private is refused, and nothing of it enters a ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloister.data.load import load
from cloister.data.records import Record, TextRecord
from cloister.errors import UsageError
from cloister.recipe import Recipe
from cloister.recipe.private_file import refuse_private_file, refuse_private_records

if TYPE_CHECKING:
    from cloister.training.layer_probe import LayerScores

# What is said of the records, wherever the table is shown.
MUST_BE_PUBLIC = (
    "These records must be public: what is chosen on private ones tells of them, and no ledger "
    "charges it. Nothing here was private, and nothing was charged."
)


@dataclass(frozen=True, kw_only=True)
class LayerTable:
    """What a probe of each layer scores on public records.

    Attributes:
        source: The file.
        prompt: What was read around each text; None: nothing.
        found: The scores.
        warnings: What is seldom meant, one line each.
    """

    source: str
    prompt: str | None
    found: LayerScores
    warnings: tuple[str, ...] = ()

    @property
    def best(self) -> int:
        """The first layer whose score no later one exceeds by more than its own deviation over
        folds: fewer layers are less to compute."""
        scores = self.found.scores
        top = max(one.accuracy for one in scores)
        return next(one.layers for one in scores if one.accuracy + one.deviation >= top)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        found = self.found
        return {
            "source": self.source,
            "records": found.records,
            "prompt": self.prompt,
            "pooling": found.pooling,
            "majority": found.majority,
            "layers": [
                {"layers": one.layers, "accuracy": one.accuracy, "deviation": one.deviation}
                for one in found.scores
            ],
            "best": self.best,
            "warnings": list(self.warnings),
        }

    def lines(self) -> list[str]:
        """The table in words, one line a layer."""
        found = self.found
        around = "no prompt" if self.prompt is None else f"prompt {self.prompt!r}"
        rows = [
            f"{one.layers:>6}  {one.accuracy:.4f} ± {one.deviation:.4f}"
            + ("  first within its deviation of the best" * (one.layers == self.best))
            for one in found.scores
        ]
        return [
            f"A linear probe of each layer on {found.records} records of {self.source}: "
            f"{around}, pooled by {found.pooling}",
            "layers  accuracy over 5 folds",
            *rows,
            f"always the most frequent label: {found.majority:.4f}",
            f"to end the base there: --set model.layers={self.best}",
            MUST_BE_PUBLIC,
        ]

    def __str__(self) -> str:
        return "\n".join([*self.lines(), *(f"warning: {text}" for text in self.warnings)])


def choose_layers(
    recipe: Recipe, public: str, on_batch: Callable[[int, int], None] = lambda done, of: None
) -> LayerTable:
    """Scores a linear probe of each layer of a study's base on a public file.

    Args:
        recipe: The study: base, pooling, prompt and columns. Its records are not read for scores.
        public: A file of texts with labels, of the same columns.
        on_batch: Called with how many records were read, and of how many.

    Raises:
        RefusedError: The file holds the study's private records.
        UsageError: The task reads no texts with labels, or the base's layers are not one list.
        DataError: The file cannot be read, or a label has too few records.
        ModelFileError: The base cannot be had.
    """
    from cloister.training.layer_probe import probe_layers

    if recipe.task.kind != "sequence-classification":
        raise UsageError(
            f"--layers: task.kind is {recipe.task.kind}; layers are chosen for "
            "sequence-classification"
        )
    place = Path(public)
    if not place.is_file():
        raise UsageError(f"--layers: {public} is no file here; give one of public records")
    refuse_private_file(recipe, place, "--layers")
    records = _texts(load(str(place), "test", "text", recipe.data))
    refuse_private_records(recipe, records, "--layers")
    test = recipe.data.test
    is_test = test is not None and Path(test).is_file() and Path(test).samefile(place)
    warnings = (
        [
            "this is the study's test set: a score on it is then no fresh one; choose on other "
            "public records, as a validation split"
        ]
        if is_test
        else []
    )
    found = probe_layers(
        recipe.model,
        recipe.task,
        records,
        recipe.machine.plain_tokens,
        on_batch,
        device=recipe.machine.device,
    )
    return LayerTable(
        source=place.name, prompt=recipe.task.prompt, found=found, warnings=tuple(warnings)
    )


def _texts(records: list[Record]) -> list[TextRecord]:
    return [record for record in records if isinstance(record, TextRecord)]
