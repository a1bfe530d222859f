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
from cloister.errors import RefusedError, UsageError
from cloister.files import stamp_of
from cloister.recipe import Recipe

if TYPE_CHECKING:
    from cloister.training.layer_probe import LayerScores

# Part of the records that may be among the training data's too: public collections repeat short
# texts. A file with more of them is private records with others beside them.
MOST_SHARED = 0.1

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
    _refuse_private_file(recipe, place)
    records = _texts(load(str(place), "test", "text", recipe.data))
    _refuse_private_records(recipe, records)
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


def _private_file(recipe: Recipe) -> Path | None:
    """The study's training data, where they are a file of this machine."""
    train = Path(recipe.data.train)
    return train if train.is_file() else None


def _refuse_private_file(recipe: Recipe, place: Path) -> None:
    """Refuses the training file under any name: its path, a link to it, or a copy."""
    private = _private_file(recipe)
    if private is None:
        return
    if place.samefile(private) or stamp_of(place).sha256 == stamp_of(private).sha256:
        raise _private(place, recipe.data.train)


def _refuse_private_records(recipe: Recipe, records: list[TextRecord]) -> None:
    """Refuses records of which more than `MOST_SHARED` are among the training data's: one site's
    own would be, with or without others beside them."""
    private = _private_file(recipe)
    if private is None:
        return
    data = recipe.data
    known = _texts(load(str(private), "train", "text", data, sites=data.partition == "column"))
    pairs = {(record.text, record.label) for record in known}
    shared = sum((record.text, record.label) in pairs for record in records)
    if shared > MOST_SHARED * len(records):
        raise _private(Path("these records"), recipe.data.train)


def _private(place: Path, train: str) -> RefusedError:
    return RefusedError(
        f"--layers: {place} are the study's private records (data.train, {train}); what is chosen "
        "on them tells of them, and no ledger charges it: give a public file"
    )


def _texts(records: list[Record]) -> list[TextRecord]:
    return [record for record in records if isinstance(record, TextRecord)]
