"""Scores of texts: the scale, the loss against a slow twin, agreement against sklearn."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import cohen_kappa_score

from cloister.data.records import ScoreRecord
from cloister.errors import MisfitError, UsageError
from cloister.tasks.build import build_task, labels_of
from cloister.tasks.config import TaskConfig
from cloister.tasks.score_scale import ScoreScale
from cloister.tasks.scoring import Scoring, pearson, quadratic_weighted_kappa
from tests.support.examples import tries
from tests.support.models import word_tokenizer


def task(step: float | None = 1.0, ends: tuple[float, float] = (0.0, 6.0)) -> Scoring:
    config = TaskConfig(kind="scoring", max_length=16, score_range=ends, score_step=step)
    built = build_task(config, (), word_tokenizer())
    assert isinstance(built, Scoring)
    return built


def logits_of(*scores: float, high: float = 6.0) -> torch.Tensor:
    """Logits of which these scores, within the range, are read off."""
    return torch.tensor([[math.log(s / (high - s))] for s in scores])


@settings(max_examples=tries(30), deadline=None)
@given(
    scores=st.lists(st.floats(-2, 5, allow_nan=False), min_size=1, max_size=6),
    seed=st.integers(0, 2**31),
)
def test_the_loss_is_that_of_a_slow_twin(scores: list[float], seed: int) -> None:
    bound = task(None, (-2.0, 5.0))
    batch = bound.collate([bound.encode(ScoreRecord("fever", score)) for score in scores])
    logits = torch.randn(len(scores), 1, generator=torch.Generator().manual_seed(seed)) * 3
    slow = []
    for (z,), score in zip(logits.tolist(), scores, strict=True):
        p, y = 1 / (1 + math.exp(-z)), (score + 2) / 7
        slow.append(-y * math.log(p) - (1 - y) * math.log(1 - p))
    assert bound.record_losses(logits, batch).tolist() == pytest.approx(slow, rel=1e-4, abs=1e-5)


@settings(max_examples=tries(20), deadline=None)
@given(y=st.floats(0.2, 5.8))
def test_the_loss_is_least_at_the_score_itself(y: float) -> None:
    bound = task(None)
    batch = bound.collate([bound.encode(ScoreRecord("fever", y))] * 3)
    z = float(logits_of(y)[0, 0])
    losses = bound.record_losses(torch.tensor([[z - 0.5], [z], [z + 0.5]]), batch)
    assert losses[1] < losses[0]
    assert losses[1] < losses[2]


GRADES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30)


@settings(max_examples=tries(40), deadline=None)
@given(pairs=GRADES)
def test_kappa_is_that_of_sklearn(pairs: list[tuple[int, int]]) -> None:
    one, other = np.array(pairs, dtype=float).T
    found = quadratic_weighted_kappa(one, other)
    if len({*one, *other}) == 1:  # where sklearn divides 0 by 0
        assert found == 0.0
        return
    expected = cohen_kappa_score(
        one.astype(int), other.astype(int), weights="quadratic", labels=list(range(7))
    )
    assert found == pytest.approx(expected, abs=1e-9)


@settings(max_examples=tries(20), deadline=None)
@given(pairs=GRADES)
def test_correlation_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    one, other = np.array(pairs, dtype=float).T
    if len(set(one)) == 1 or len(set(other)) == 1:
        assert pearson(one, other) == 0.0
    else:
        assert pearson(one, other) == pytest.approx(pearsonr(one, other)[0], abs=1e-9)


def test_scores_are_those_worked_by_hand() -> None:
    bound = task()
    meter = bound.meter()
    records = [ScoreRecord("fever", score) for score in (1.0, 3.0, 5.0)]
    batch = bound.collate([bound.encode(record) for record in records])
    meter.add(logits_of(1.4, 3.0, 4.2), batch)
    found = meter.result()
    assert next(iter(found)) == bound.primary_metric == "qwk"
    assert found["mae"] == pytest.approx((0.4 + 0 + 0.8) / 3, abs=1e-5)
    assert found["rmse"] == pytest.approx(math.sqrt((0.16 + 0.64) / 3), abs=1e-5)
    # Grades 1, 3, 4 for 1, 3, 5: mean squared distance 1/3; by chance var 8/3 + 14/9 + (1/3)².
    assert found["qwk"] == pytest.approx(1 - (1 / 3) / (8 / 3 + 14 / 9 + 1 / 9), abs=1e-6)
    report = meter.report()
    assert list(report) == ["1", "3", "5"]
    assert report["5"] == pytest.approx({"mean_prediction": 4.2, "mae": 0.8, "support": 1.0})


def test_a_scale_without_steps_has_no_kappa_and_no_grades() -> None:
    bound = task(None)
    meter = bound.meter()
    meter.add(logits_of(2.0), bound.collate([bound.encode(ScoreRecord("fever", 2.5))]))
    assert bound.primary_metric == next(iter(meter.result())) == "pearson"
    assert "qwk" not in meter.result()
    assert meter.report() == {}


@pytest.mark.parametrize("score", [-0.5, 6.5, math.inf, math.nan, 2.5])
def test_a_score_that_is_not_on_the_scale_is_a_misfit_and_not_quoted(score: float) -> None:
    with pytest.raises(MisfitError) as found:
        task().encode(ScoreRecord("fever", score))
    assert f"{score:g}" not in found.value.reason


@settings(max_examples=tries(30), deadline=None)
@given(steps=st.integers(1, 1000), step=st.sampled_from([0.1, 0.5, 1.0, 3.0]))
def test_every_grade_is_on_its_scale_and_is_read_back(steps: int, step: float) -> None:
    scale = ScoreScale(-1.0, -1.0 + steps * step, step)
    assert scale.fault() is None
    for grade in {0, 1, steps // 2, steps}:
        score = min(scale.of_grade(grade), scale.high)
        assert scale.problem(score) is None
        assert scale.grade(scale.score(scale.share(score))) == grade


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "two numbers"),
        ({"score_range": (1.0,)}, "two numbers"),
        ({"score_range": (3.0, 1.0)}, "lower end"),
        ({"score_range": (0.0, 1.0), "score_step": 0.3}, "equal steps"),
        ({"score_range": (0.0, 1.0), "score_step": 1e-5}, "equal steps"),
        ({"score_range": (0.0, 1.0), "labels": ("a",)}, "leave them out"),
    ],
)
def test_a_scale_that_is_none_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        TaskConfig(kind="scoring", **fields)  # type: ignore[arg-type]


def test_a_scale_is_of_scoring_alone() -> None:
    with pytest.raises(UsageError, match="only scoring has it"):
        TaskConfig(score_range=(0.0, 1.0))


def test_scored_texts_have_no_labels() -> None:
    assert labels_of([ScoreRecord("x", 1.0)], "scoring") == ()
