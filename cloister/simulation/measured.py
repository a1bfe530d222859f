"""Reads the outcome of one run from its folder alone: no base, no records, no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.errors import BadFileError, UsageError
from cloister.ledger.stated import Stated, shown
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.recipe import Recipe
from cloister.recipe.document import KEPT, tables_of
from cloister.server.run_directory import RunDirectory

# Scores by which runs are compared: the first that a run has. A smaller perplexity is better.
METRICS = ("accuracy", "f1", "perplexity")
SMALLER_IS_BETTER = frozenset({"perplexity"})
# Fields of a recipe that only tell repetitions of a setting apart.
REPETITION = frozenset({"study.seed", "study.name", "data.fold"})

Settings = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The outcome of one run.

    Attributes:
        path: Its folder.
        name: The folder's name.
        seed: The study's seed.
        settings: Every field of the study with its value, by `section.key`, except the seed, the
            name, and the sections that are not sent to sites.
        metric: The name of its score.
        score: The final adapter's score on the public test set.
        promise: The largest ε that a site was promised, with unit and δ; None: the folder has no
            ledger (those of a deployed run are at the sites).
        bytes: Bytes of all updates and global adapters, over all rounds and sites.
        seconds: Seconds of all closed rounds.
        curve: Rounds that were scored, and their scores; from round 0, the untrained adapter, if
            the run has it.
        rounds: Number of closed rounds.
        old_test: Its scores on an older test set, before round 1 and of the final adapter; None: it
            has none.
        is_finished: Whether the run finished.
    """

    path: Path
    name: str
    seed: int
    settings: Settings
    metric: str
    score: float
    promise: Stated | None
    bytes: int
    seconds: float
    curve: tuple[tuple[int, float], ...]
    rounds: int
    old_test: tuple[float, float] | None
    is_finished: bool

    @property
    def untrained(self) -> float | None:
        """Returns the score before round 1; None: the run has none."""
        return next((score for number, score in self.curve if number == 0), None)


def measure(path: Path) -> Measured:
    """Reads the outcome of a run.

    Raises:
        UsageError: The folder is not that of a run, or no round of it was scored.
        BadFileError: A file of it is damaged.
        LedgerError: A ledger of it is damaged.
    """
    run = RunDirectory.reopen(path)
    recipe, result = run.recipe(), read_result(run)
    try:
        rows = run.metrics()
        scored = [row for row in rows if row.get("test")]
        kept = dict(result["test"]) if result else dict(scored[-1]["test"]) if scored else {}
        metric = next((name for name in METRICS if kept.get(name) is not None), None)
        if metric is None and result is not None:
            raise UsageError(
                f"{path}: has no public test set, so there is no score to compare; the estimates "
                "of its private evaluations are in evaluations.jsonl"
            )
        if metric is None:
            raise UsageError(f"{path}: no round was scored yet; let the run finish")
        return Measured(
            path=run.path,
            name=run.path.name,
            seed=recipe.study.seed,
            settings=settings_of(recipe),
            metric=metric,
            score=float(kept[metric]),
            promise=_worst_promise(run),
            bytes=sum(int(row["bytes_up"]) + int(row["bytes_down"]) for row in rows),
            seconds=sum(float(row["seconds"]) for row in rows),
            curve=tuple(
                (int(row["round"]), float(row["test"][metric]))
                for row in run.scored()
                if row.get("test", {}).get(metric) is not None
            ),
            rounds=len(rows),
            old_test=_old_test(run, rows, metric),
            is_finished=is_finished(run),
        )
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise BadFileError(
            f"{path}: metrics.jsonl or result.json is damaged ({error}); run the study again"
        ) from error


def _old_test(
    run: RunDirectory, rows: Sequence[Mapping[str, Any]], metric: str
) -> tuple[float, float] | None:
    """Returns the scores on an older test set: before round 1, and of the released adapter."""
    result = read_result(run) or {}
    before = run.untrained().get("old_test", {}).get(metric)
    scored = [row["old_test"] for row in rows if row.get("old_test")]
    after = (result.get("old_test", {}).get("after") or (scored or [{}])[-1]).get(metric)
    return None if before is None or after is None else (float(before), float(after))


def read_result(run: RunDirectory) -> dict[str, Any] | None:
    """Returns a finished run's `result.json`; None: there is none.

    Raises:
        BadFileError: The file is damaged.
    """
    if not run.result_file.is_file():
        return None
    try:
        found = json.loads(run.result_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadFileError(f"{run.result_file}: not readable ({error}); run it again") from error
    if not isinstance(found, dict) or not isinstance(found.get("test"), dict):
        raise BadFileError(f"{run.result_file}: not the result of a run; run the study again")
    return found


def is_finished(run: RunDirectory) -> bool:
    """Returns whether a run finished: it has `result.json` or, if older, a card."""
    return run.result_file.is_file() or (run.adapter / "README.md").is_file()


def settings_of(recipe: Recipe) -> dict[str, object]:
    """Returns a study's settings, by `section.key`: all fields that sites get but name and seed."""
    tables = tables_of(recipe.resolved().sections())
    return {
        f"{section}.{key}": tuple(value) if isinstance(value, list) else value
        for section, table in tables.items()
        if section not in KEPT
        for key, value in table.items()
        if f"{section}.{key}" not in REPETITION
    }


def _worst_promise(run: RunDirectory) -> Stated | None:
    """Returns the largest ε that a ledger of the run promises, after checking each ledger."""
    promises = [
        verify(LedgerFile(path).entries(), str(path)).promise for path in run.ledgers().values()
    ]
    return max(promises, key=lambda one: (one.epsilon, one.delta), default=None)


def epsilon_text(promise: Stated | None) -> str:
    """Formats ε for a table's cell; unit and δ are below the table (`promise_lines`)."""
    return "not known here" if promise is None else shown(promise.epsilon, 2)


def promise_lines(promises: Sequence[Stated | None]) -> list[str]:
    """Returns lines that state unit, δ and adversary of a table's ε: one line for each kind.

    Args:
        promises: The promises of the table's rows.
    """
    kinds: dict[str, list[str]] = {}
    for one in promises:
        if one is not None and math.isfinite(one.epsilon):
            of = f"at δ = {one.delta:g}, for one {one.unit} added or removed, against {one.against}"
            kinds.setdefault(f"{of}: {one.of_what}", []).append(shown(one.epsilon, 2))
    lines = []
    for of, values in kinds.items():
        which = "ε" if len(kinds) == 1 else f"ε of {', '.join(dict.fromkeys(values))}"
        lines.append(f"{which}: the largest of a run's sites, {of}")
    if None in promises:
        lines.append("ε is not known for runs whose folder has no ledgers; the sites have them")
    return lines
