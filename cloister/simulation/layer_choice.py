"""Helps to choose the number of a base's layers, on public records that the user names for it.

A choice that is made on private records reveals something about them, and no ledger charges it. So
the file is a separate argument, files that are known to be private are refused, and the choice is
not in a ledger.
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
from cloister.recipe.private_file import refuse_private_file, refuse_private_texts

if TYPE_CHECKING:
    from cloister.training.layer_probe import LayerScores

# The note on the records, shown with every table.
MUST_BE_PUBLIC = (
    "These records must be public: a choice that is made on private ones reveals something about "
    "them, and no ledger charges it. Nothing here was private, and nothing was charged."
)


@dataclass(frozen=True, kw_only=True)
class LayerTable:
    """The scores of a probe of each layer on public records.

    Attributes:
        source: The file.
        prompt: The prompt around each text; None: there is none.
        found: The scores.
        warnings: Settings that are probably a mistake, one line each.
    """

    source: str
    prompt: str | None
    found: LayerScores
    warnings: tuple[str, ...] = ()

    @property
    def best(self) -> int:
        """Returns the first layer whose score no later one exceeds by more than its deviation.

        The deviation is over folds; fewer layers need less computation.
        """
        scores = self.found.scores
        top = max(one.accuracy for one in scores)
        return next(one.layers for one in scores if one.accuracy + one.deviation >= top)

    def to_json(self) -> dict[str, Any]:
        """Returns the scores of the layers as JSON values."""
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
        """Returns the table as text, one line per layer."""
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
            f"to use only these layers: --set model.layers={self.best}",
            MUST_BE_PUBLIC,
        ]

    def __str__(self) -> str:
        return "\n".join([*self.lines(), *(f"warning: {text}" for text in self.warnings)])


def choose_layers(
    recipe: Recipe, public: str, on_batch: Callable[[int, int], None] = lambda done, of: None
) -> LayerTable:
    """Scores a linear probe of each layer of a study's base on a public file.

    Args:
        recipe: The study: base, pooling, prompt and columns. Its records are not scored.
        public: A file of texts with labels, of the same columns.
        on_batch: Is called with the number of records read, and their total.

    Raises:
        RefusedError: The file holds the study's private records.
        UsageError: The task does not read texts with labels, or the base's layers are not one list.
        DataError: The file cannot be read, or a label has too few records.
        ModelFileError: The base cannot be found.
    """
    from cloister.training.layer_probe import probe_layers

    if recipe.task.kind != "sequence-classification":
        raise UsageError(
            f"--layers: task.kind is {recipe.task.kind}; layers are chosen for "
            "sequence-classification"
        )
    place = Path(public)
    if not place.is_file():
        raise UsageError(f"--layers: no such file: {public}; give a file of public records")
    refuse_private_file(recipe, place, "--layers")
    records = _texts(load(str(place), "test", "text", recipe.data))
    refuse_private_texts(recipe, records, "--layers")
    test = recipe.data.test
    is_test = test is not None and Path(test).is_file() and Path(test).samefile(place)
    warnings = (
        [
            "this is the study's test set, so scores on it are biased after this choice; choose on "
            "other public records, such as a validation split"
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
