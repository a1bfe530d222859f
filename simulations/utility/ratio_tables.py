"""The tables of entities and of simulated LoRA, of their raw rows; scores beside one another are
ratios, as the goals for F1 and perplexity are."""

from __future__ import annotations

import base64
import statistics
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from grid_store import OUTCOMES, SEEDS, Row, score, where
from grid_table import NOT_RUN, SHOWN
from numpy.typing import NDArray
from sets import SETS, DataSet

ENTITY_TITLES = {
    "no entity": "no entity at all",
    "words": "words and their neighbours + linear SVM, pooled, tuned",
    "without privacy": "without privacy, tuned",
    "central, tuned": "central DP, tuned",
    "own, tuned": "own noise, tuned",
    "shared, defaults": "shared noise, C = 1 and a rate of 24",
    "shared, tuned": "shared noise, tuned",
    "levers": "shared noise, levers",
}
NOT_PRIVATE = ("no entity", "words", "without privacy")
# Rows of shared noise that the best private setting is chosen from.
PRIVATE = ("shared, defaults", "shared, tuned", "levers")
LORA_TITLES = {
    "without privacy": "without privacy, best of the rates tried",
    "without privacy, larger batches": "the same, batches twice as large",
    "own noise": "own noise",
    "shared noise": "shared noise",
    "shared noise, larger batches": "shared noise, batches twice as large",
}
# Only the chat study has larger batches; the others' tables leave the rows out.
LARGER = "larger batches"
# The sets of `lora.py`, and what is scored.
LORA_SETS = {
    "sgd_customer_service": "perplexity",
    "rt_polarity": "accuracy",
    "banking77": "accuracy",
    "product_sentiment": "accuracy",
}
# What a ratio to training without privacy must reach: 15 % of F1, 10 % of perplexity.
F1_GOAL, PERPLEXITY_GOAL = 0.85, 1.10


class Ratio(NamedTuple):
    """One method's score over another's, on the same test records.

    Attributes:
        value: The mean over seeds.
        deviation: Of the seeds' ratios.
        error: The standard error over test records; None: they were not kept.
    """

    value: float
    deviation: float
    error: float | None = None

    def __str__(self) -> str:
        error = "" if self.error is None else f" ({self.error:.3f})"
        return f"{self.value:.3f} ± {self.deviation:.3f}{error}"


def ratio(one: Sequence[Row], other: Sequence[Row]) -> Ratio | None:
    """Compares test runs, seed by seed; a method without seeds has one run for all.

    Returns:
        None if a side was not run.
    """
    if not one or not other:
        return None
    sides = [{row["seed"]: row for row in side} for side in (one, other)]
    found, apart = [], []
    for seed in sorted(max(sides, key=len)):
        ours, theirs = (
            next(iter(side.values())) if len(side) == 1 else side[seed] for side in sides
        )
        found.append(abs(score(ours)) / abs(score(theirs)))
        if "counts" in ours and "counts" in theirs:
            apart.append(found[-1] * (influences(ours) - influences(theirs)))
    error = None
    if apart:
        by_record = np.mean(apart, axis=0)
        error = float(by_record.std(ddof=1)) / len(by_record) ** 0.5
    return Ratio(statistics.mean(found), statistics.stdev(found) if len(found) > 1 else 0.0, error)


def influences(row: Row) -> NDArray[np.float64]:
    """How far each sentence moves the logarithm of a run's F1, times their number, [n].

    F1 = 2 B / (F + T) of sums over sentences (found and true, found, true), so the logarithm moves
    by b / B - (f + t) / (F + T).
    """
    packed = np.frombuffer(zlib.decompress(base64.b64decode(row["counts"])), np.uint8)
    both, found, true = packed.reshape(-1, 3).astype(np.float64).T
    shares = both / max(both.sum(), 1) - (found + true) / max((found + true).sum(), 1)
    return np.asarray(len(both) * shares)


def tested(rows: Sequence[Row], **wanted: object) -> list[Row]:
    """The test runs with these values, if all seeds are there.

    Raises:
        RuntimeError: Two settings were reported, since what is chosen from has changed.
    """
    found = where(rows, **wanted, split="test")
    if len({run["seed"] for run in found}) < len(found):
        raise RuntimeError(f"{wanted}: two settings were reported; take these rows out of the file")
    return found


def cell(runs: Sequence[Row]) -> str:
    """Mean and spread over seeds; how many, if not all ran."""
    if not runs:
        return NOT_RUN
    scores = [abs(score(run)) for run in runs]
    spread = f" ± {statistics.stdev(scores):.3f}" if len(scores) > 1 else ""
    is_whole = "epsilon" not in runs[0] or len(runs) == len(SEEDS)
    seeds = "" if is_whole else f" ({len(runs)} of {len(SEEDS)} seeds)"
    return f"{statistics.mean(scores):.3f}{spread}{seeds}"


def best(rows: Sequence[Row], among: Iterable[str], **wanted: object) -> list[Row]:
    """The test runs of the row whose setting has the highest validation mean."""
    sides = [tested(rows, row=row, **wanted) for row in among]
    return max(
        (runs for runs in sides if runs), key=lambda runs: chosen_by(rows, runs[0]), default=[]
    )


def chosen_by(rows: Sequence[Row], run: Row) -> float:
    """The validation mean of a test run's setting; of a row of one setting, which has none, -∞."""
    about = {name: value for name, value in run.items() if name not in ("seed", "split", *OUTCOMES)}
    scores = [score(row) for row in where(rows, **about, split="validation")]
    return statistics.mean(scores) if scores else float("-inf")


def entity_tables(rows: Sequence[Row]) -> str:
    """F1 by ε for each base, and the goals at ε = 8, as Markdown."""
    bases = list(dict.fromkeys(row["base"] for row in rows if row["base"] is not None))
    parts = [_f1(rows, base) for base in bases]
    lines = [
        "**Entities at ε = 8: F1 as a part of another's F1**",
        "",
        "| base | best setting with shared noise | F1 | of the head without privacy "
        "| of central DP, both tuned | of words and neighbours |",
        "|---|---|---|---|---|---|",
    ]
    for base in bases:
        runs = best(rows, PRIVATE, base=base, epsilon=8.0)
        plain = tested(rows, row="without privacy", base=base)
        central, tuned = (
            tested(rows, row=row, base=base, epsilon=8.0)
            for row in ("central, tuned", "shared, tuned")
        )
        cells = [
            said(runs[0]) if runs else NOT_RUN,
            cell(runs),
            verdict(ratio(runs, plain), F1_GOAL, higher=True),
            str(ratio(tuned, central) or NOT_RUN),
            str(ratio(runs, tested(rows, row="words")) or NOT_RUN),
        ]
        lines.append(f"| {base} | {' | '.join(cells)} |")
    return "\n\n".join([*parts, "\n".join(lines)])


def _f1(rows: Sequence[Row], base: str) -> str:
    lines = [
        f"**ncbi_disease, {base}, 5 sites: F1 of entities**",
        "",
        "| what | ε = 0.5 | ε = 1 | ε = 3 | ε = 8 | ε = ∞ |",
        "|---|---|---|---|---|---|",
    ]
    for row, title in ENTITY_TITLES.items():
        of_base = base if where(rows, row=row, base=base) else None
        found = {epsilon: tested(rows, row=row, base=of_base, epsilon=epsilon) for epsilon in SHOWN}
        lines.append(f"| {title} | {' | '.join(_cells(row, found))} |")
    return "\n".join(lines)


def _cells(row: str, found: Mapping[float | None, Sequence[Row]]) -> list[str]:
    """Of each ε; a dash where a row has none: rows without privacy have ∞ alone, others not."""
    is_private = row.removesuffix(f", {LARGER}") not in NOT_PRIVATE
    return [
        "–" if (epsilon is None) == is_private else cell(runs) for epsilon, runs in found.items()
    ]


def lora_tables(rows: Sequence[Row]) -> str:
    """Scores of simulated LoRA by ε, and the ratio to training without privacy, as Markdown."""
    parts = []
    for data in dict.fromkeys([*LORA_SETS, *(row["data"] for row in rows)]):
        of_data = where(rows, data=data)
        metric = LORA_SETS.get(data, "perplexity")
        plain = chosen_runs(of_data, row="without privacy", epsilon=None)
        larger = chosen_runs(of_data, row=f"without privacy, {LARGER}", epsilon=None)
        if larger and chosen_by(of_data, larger[0]) > chosen_by(of_data, plain[0]):
            plain = larger  # the better twin is the one to compare with
        sites = SETS.get(data, DataSet()).sites
        lines = [
            f"**{data}, LoRA simulated, {sites} sites: {metric}**",
            "",
            "| what | ε = 1 | ε = 8 | ε = ∞ | at ε = 8, of the run without privacy |",
            "|---|---|---|---|---|",
        ]
        if plain:
            before = f"{plain[0]['untrained']:.3f}"
            lines.append(f"| before training | – | – | {before} | – |")
        for row, title in LORA_TITLES.items():
            if row.endswith(LARGER) and not where(of_data, row=row):
                continue
            found = {
                epsilon: chosen_runs(of_data, row=row, epsilon=epsilon)
                for epsilon in (1.0, 8.0, None)
            }
            last = "–"
            if not row.startswith("without privacy"):
                compared = ratio(found[8.0], plain)
                # A goal is against a twin with equal batches.
                has_twin = bool(larger) or not row.endswith(LARGER)
                is_goal = metric == "perplexity" and row.startswith("shared") and has_twin
                last = (
                    verdict(compared, PERPLEXITY_GOAL, higher=False)
                    if is_goal
                    else str(compared or NOT_RUN)
                )
            lines.append(f"| {title} | {' | '.join([*_cells(row, found), last])} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def chosen_runs(rows: Sequence[Row], **wanted: object) -> list[Row]:
    """The test runs of the setting with the best validation score: others may have been tested."""
    found = where(rows, **wanted, split="test")
    if not found:
        return []
    first = max(found, key=lambda run: chosen_by(rows, run))
    setting = {name: first[name] for name in ("rate", "optimizer")}
    return where(found, **setting)


def verdict(found: Ratio | None, goal: float, *, higher: bool) -> str:
    """A ratio, and whether it reaches a goal, from which side it may be."""
    if found is None:
        return NOT_RUN
    short = goal - found.value if higher else found.value - goal
    return f"{found}: " + ("met" if short <= 0 else f"missed by {short:.3f}")


def said(run: Row) -> str:
    """The setting of a run, in words."""
    words = [f"C = {run['clip']:g}", f"rate {run['product'] / run['clip']:.3g}"]
    words += [f"momentum {run['momentum']:g}"]
    return ", ".join([*words, f"{run['rounds']} rounds at q = {run['sample_rate']:g}"])
