"""The grid's raw rows: one run each, appended to a file as it ends, and what is chosen of them."""

from __future__ import annotations

import base64
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from methods import Classes
from numpy.typing import NDArray

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = Mapping[str, Any]
Key = tuple[Any, ...]
SEEDS = (0, 1, 2)
# Of a search, this many at least are run at all seeds.
LEAST_FINALISTS = 3
# What comes of a run; all other values of a row say what was run.
OUTCOMES = ("accuracy", "records", "correct", "f1", "counts", "perplexity", "untrained", "minutes")
Chosen = TypeVar("Chosen", bound="DataclassInstance")


def seeds(method: DataclassInstance) -> tuple[int, ...]:
    """The seeds that a method is run at: only what has an ε, or none by its setting, draws."""
    return SEEDS if hasattr(method, "epsilon") else SEEDS[:1]


def settings(method: DataclassInstance) -> dict[str, Any]:
    """A method by name, and its settings, as they are in a row."""
    return {"method": type(method).__name__, **asdict(method)}


def score(row: Row) -> float:
    """What came of a run, the more the better: accuracy, F1, or perplexity below 0."""
    return float(-row["perplexity"] if "perplexity" in row else row.get("accuracy", row.get("f1")))


def key(row: Row) -> Key:
    """What tells a run from every other: all values but what came of it."""
    return tuple((name, value) for name, value in sorted(row.items()) if name not in OUTCOMES)


class Store:
    """The rows of a file.

    Args:
        file: JSON lines; it need not exist. A last line that an interruption cut off is dropped.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        whole = _whole_lines(file)
        self.rows: list[Row] = [json.loads(line) for line in whole]
        self._known = {key(row) for row in self.rows}

    def has(self, about: Row) -> bool:
        """Whether this run is there."""
        return key(about) in self._known

    def add(self, about: Row, found: Classes, labels: NDArray[np.int64], *, whole: bool) -> None:
        """Appends a run.

        Args:
            about: What was run.
            found: Class numbers, [n].
            labels: The true ones, [n].
            whole: Whether to keep which records were right, which differences need.
        """
        right = found == labels
        outcome: dict[str, Any] = {"accuracy": round(float(right.mean()), 6)}
        if whole:
            outcome["records"] = len(right)
            outcome["correct"] = base64.b64encode(np.packbits(right).tobytes()).decode()
        self.append(about, outcome)

    def append(self, about: Row, outcome: Row) -> None:
        """Appends a run: what was run, and what came of it, by the names in `OUTCOMES`."""
        row = {**about, **outcome}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.rows.append(row)
        self._known.add(key(row))


def _whole_lines(file: Path) -> list[str]:
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        file.write_text(text, encoding="utf-8")
    return text.splitlines()


def right_ones(row: Row) -> NDArray[np.bool_]:
    """Which test records a run had right, [records]."""
    packed = np.frombuffer(base64.b64decode(row["correct"]), np.uint8)
    return np.unpackbits(packed, count=row["records"]).astype(bool)


def where(rows: Iterable[Row], **wanted: object) -> list[Row]:
    """The rows with these values."""
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]


def finalists(methods: Sequence[Chosen], searched: Sequence[Row]) -> list[Chosen]:
    """The best quarter of the methods at the first seed, three at least, in their order.

    Args:
        methods: What is chosen from.
        searched: Rows of the validation split, of one data set, base, row and ε.

    Raises:
        RuntimeError: A method has no run at the first seed.
    """
    scores = [_scores(method, where(searched, seed=SEEDS[0]), 1)[0] for method in methods]
    kept = max(LEAST_FINALISTS, len(methods) // 4)
    order = sorted(range(len(methods)), key=lambda at: -scores[at])  # of equal ones the first
    return [methods[at] for at in sorted(order[:kept])]


def chosen(methods: Sequence[Chosen], searched: Sequence[Row]) -> Chosen:
    """The finalist with the highest mean over the seeds; of equal ones the first.

    Args:
        methods: As above; one alone needs no search.
        searched: As above.

    Raises:
        RuntimeError: A run is missing.
    """
    if len(methods) == 1:
        return methods[0]
    best = finalists(methods, searched)
    means = [statistics.mean(_scores(method, searched, len(seeds(method)))) for method in best]
    return best[means.index(max(means))]


def _scores(method: DataclassInstance, searched: Sequence[Row], least: int) -> list[float]:
    found = [score(row) for row in where(searched, **settings(method))]
    if len(found) < least:
        raise RuntimeError(f"{settings(method)}: {len(found)} of {least} runs; run the grid again")
    return found
