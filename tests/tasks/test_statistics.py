"""A unit's bounded statistics: against a twin by hand, their norm, and the scores they give."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from cloister.errors import RefusedError
from cloister.privacy.noised_ratio import estimate
from cloister.tasks.build import build_task
from cloister.tasks.calibration import BINS
from cloister.tasks.tally.chosen import statistics_of, tally_of
from cloister.tasks.tally.tallies import TaskTally
from cloister.tasks.tally.unit_statistics import MOST_LOSS, Statistics
from tests.support.models import word_tokenizer
from tests.tasks.test_tally import cases

EVALUATED = ["sequence", "many labels", "pairs", "labels", "tokens", "chat"]


def opened(name: str, folder: Path) -> tuple[TaskTally, Statistics, np.ndarray]:
    """A task's tally and statistics, and each record's row of the tally."""
    config, labels, records = cases(folder)[name]
    task = build_task(config, labels, word_tokenizer())
    examples = [task.encode(record) for record in records]
    rng = np.random.default_rng(1)
    rows = []
    tally = tally_of(task)
    for example in examples:
        batch = task.collate([example])
        if name == "chat":
            learnt = batch.target[:, 1:] != -100
            values = rng.exponential(2.0, tuple(learnt.shape)) * learnt.numpy()
        else:
            shape = (1, len(task.labels))
            if name == "tokens":
                shape = (1, batch.target.shape[1], len(task.labels))
            values = rng.normal(0, 3, shape)
        outputs = torch.tensor(values, dtype=torch.float32)
        rows.append(tally.rows(outputs, batch)[0])
    return tally, statistics_of(tally), np.array(rows)


def by_hand(tally: TaskTally, row: Mapping[str, float]) -> dict[str, float]:
    """The slow twin: a unit's statistics from the named values of its row."""
    if "tokens" in row:
        return {"units": 1, "tokens": row["tokens"], "token losses": row["token losses"]}
    found = {"loss": min(row["loss"], MOST_LOSS)}
    if "correct" in row:
        found |= {"right": row["correct"], "wrong": row["records"] - row["correct"]}
        for name, value in row.items():
            if name.startswith("true ") and ", given" in name:
                found[name] = value
            elif name.startswith("right ") and "in bin" not in name:
                label = name[6:]
                found[f"right of {label}"] = value
                found[f"wrong of {label}"] = row[f"true {label}"] - value
        for n in range(1, BINS + 1):
            found[f"right in bin {n}"] = row[f"right in bin {n}"]
            found[f"wrong in bin {n}"] = row[f"count in bin {n}"] - row[f"right in bin {n}"]
        return found
    kinds = [name[6:] for name in row if name.startswith("right ")]
    for kind in kinds:
        right, given, true = (row[f"{what} {kind}"] for what in ("right", "given", "true"))
        found |= {f"right {kind}": right, f"wrong {kind}": given - right}
        found[f"missed {kind}"] = true - right
    for what in ("right", "wrong", "missed"):
        found[what] = sum(found[f"{what} {kind}"] for kind in kinds)
    exact = row["exact"]
    return {**found, "units": 1, "exact": exact, "inexact": 1 - exact}


@pytest.mark.parametrize("name", EVALUATED)
def test_each_statistic_is_what_the_twin_counts(name: str, tmp_path: Path) -> None:
    tally, statistics, rows = opened(name, tmp_path)
    vectors = statistics.vectors(rows)
    assert vectors.shape == (len(rows), len(statistics.names)) == (12, len(statistics.scales))
    for row, vector in zip(rows, vectors, strict=True):
        expected = by_hand(tally, dict(zip(tally.names, row, strict=True)))
        assert dict(zip(statistics.names, vector, strict=True)) == pytest.approx(expected)
    # Each row alone gives the same bits as among others.
    alone = np.concatenate([statistics.vectors(rows[n : n + 1]) for n in range(len(rows))])
    assert alone.tobytes() == vectors.tobytes()


@pytest.mark.parametrize("name", EVALUATED)
def test_usual_units_are_not_clipped_and_no_label_ever_is(name: str, tmp_path: Path) -> None:
    _, statistics, rows = opened(name, tmp_path)
    norms = np.linalg.norm(statistics.vectors(rows) * statistics.scales, axis=1)
    # The tags of a random sentence are mostly wrong, so some have more than the usual four things.
    assert np.median(norms) <= 1 if name == "tokens" else norms.max() <= 1 + 1e-9
    if name in ("sequence", "many labels", "pairs"):
        # A wrong record with the largest loss: right or wrong, loss, class and bin.
        worst = rows[:1].copy()
        worst[:, 2] = 1e6
        assert np.linalg.norm(statistics.vectors(worst) * statistics.scales) == pytest.approx(1.0)
        person = rows.mean(axis=0, keepdims=True)  # a person's vector is a mean of vectors
        assert np.linalg.norm(statistics.vectors(person) * statistics.scales) <= 1 + 1e-9


@pytest.mark.parametrize("name", EVALUATED)
def test_without_noise_the_estimates_are_the_tally_s_scores(name: str, tmp_path: Path) -> None:
    tally, statistics, rows = opened(name, tmp_path)
    rows[:, tally.names.index("loss")] = np.minimum(rows[:, tally.names.index("loss")], MOST_LOSS)
    scores, sums = tally.scores(rows.sum(axis=0)), statistics.vectors(rows).sum(axis=0)
    quiet = np.full(len(sums), 1e-12)
    first = next(iter(scores))
    assert next(iter(statistics.ratios)) == first
    for score, ratio in statistics.ratios.items():
        if score not in scores:
            continue
        assert estimate(ratio, sums, quiet).value == pytest.approx(float(scores[score]), abs=1e-5)
    for label, ratios in statistics.by_class.items():
        for score, ratio in ratios.items():
            found = estimate(ratio, sums, quiet).value
            exact = float(tally.by_class(rows.sum(axis=0))[label][score])
            assert found is None or found == pytest.approx(exact, abs=1e-5)
    assert statistics.tables(sums)


@pytest.mark.parametrize("name", ["grades", "retrieval", "items"])
def test_scores_without_a_public_bound_are_refused(name: str, tmp_path: Path) -> None:
    config, labels, _ = cases(tmp_path)[name]
    with pytest.raises(RefusedError, match="no statistics with a public bound"):
        statistics_of(tally_of(build_task(config, labels, word_tokenizer())))
