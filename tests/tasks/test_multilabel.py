"""Several labels a text: the loss against a slow twin, scores against hand and sklearn."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from cloister.data.records import LabelsRecord
from cloister.errors import MisfitError, UsageError
from cloister.tasks.build import build_task, labels_of
from cloister.tasks.config import TaskConfig
from cloister.tasks.multilabel import MultiLabelClassification
from cloister.tasks.task import BatchShape, Example
from tests.support.examples import tries
from tests.support.models import word_tokenizer

LABELS = ("a", "b", "c")
KIND = "multi-label-classification"


def task(**options: object) -> MultiLabelClassification:
    config = TaskConfig(kind=KIND, max_length=16, **options)  # type: ignore[arg-type]
    built = build_task(config, LABELS, word_tokenizer())
    assert isinstance(built, MultiLabelClassification)
    return built


def encoded(bound: MultiLabelClassification, sets: Sequence[Sequence[str]]) -> list[Example]:
    return [bound.encode(LabelsRecord("fever", tuple(labels))) for labels in sets]


def slow_loss(row: Sequence[float], labels: Sequence[str], weights: Sequence[float]) -> float:
    """One text's loss, a label at a time."""
    total = 0.0
    for name, z, weight in zip(LABELS, row, weights, strict=True):
        p = 1 / (1 + math.exp(-z))
        total += -weight * math.log(p if name in labels else 1 - p)
    return total / len(LABELS)


SETS = st.lists(st.sets(st.sampled_from(LABELS)).map(sorted), min_size=1, max_size=6)


@settings(max_examples=tries(30), deadline=None)
@given(sets=SETS, seed=st.integers(0, 2**31), weighted=st.booleans())
def test_the_loss_is_that_of_a_slow_twin(sets: list[list[str]], seed: int, weighted: bool) -> None:
    bound = task(class_weights={"b": 3.0}) if weighted else task()
    logits = torch.randn(len(sets), 3, generator=torch.Generator().manual_seed(seed)) * 3
    found = bound.record_losses(logits, bound.collate(encoded(bound, sets)))
    weights = (1.0, 3.0, 1.0) if weighted else (1.0, 1.0, 1.0)
    slow = [slow_loss(row, s, weights) for row, s in zip(logits.tolist(), sets, strict=True)]
    # float32 of a sum of three terms.
    assert found.tolist() == pytest.approx(slow, rel=1e-5, abs=1e-6)


@settings(max_examples=tries(20), deadline=None)
@given(sets=SETS, seed=st.integers(0, 2**31))
def test_scores_are_those_of_sklearn(sets: list[list[str]], seed: int) -> None:
    bound = task()
    logits = torch.randn(len(sets), 3, generator=torch.Generator().manual_seed(seed))
    meter = bound.meter()
    meter.add(logits, bound.collate(encoded(bound, sets)))
    found = meter.result()
    true = np.array([[name in s for name in LABELS] for s in sets])
    given_ = logits.numpy() > 0
    assert found["micro_f1"] == pytest.approx(
        f1_score(true, given_, average="micro", zero_division=0.0)
    )
    used = [c for c in range(3) if true[:, c].any() or given_[:, c].any()]
    each = f1_score(true, given_, labels=list(range(3)), average=None, zero_division=0.0)
    assert found["macro_f1"] == pytest.approx(np.mean(each[used]) if used else 0.0)
    occurring = [c for c in range(3) if true[:, c].any()]
    precisions = [average_precision_score(true[:, c], logits[:, c].numpy()) for c in occurring]
    assert found["mean_ap"] == pytest.approx(np.mean(precisions) if precisions else 0.0)
    assert found["exact_match"] == pytest.approx(np.mean((true == given_).all(axis=1)))


def test_scores_are_those_worked_by_hand() -> None:
    bound = task()
    meter = bound.meter()
    # a, b given; a true. Nothing given; nothing true. b given, before c; c true.
    logits = torch.tensor([[2.0, 1.0, -3.0], [-1.0, -1.0, -1.0], [-1.0, 1.0, -0.5]])
    meter.add(logits, bound.collate(encoded(bound, [["a"], [], ["c"]])))
    found = meter.result()
    assert found["micro_f1"] == pytest.approx(2 * 1 / (3 + 2))
    assert found["macro_f1"] == pytest.approx((1 + 0 + 0) / 3)
    assert found["exact_match"] == pytest.approx(1 / 3)
    assert found["mean_ap"] == pytest.approx(1.0)
    report = meter.report()
    assert report["a"]["f1"] == 1.0
    assert report["b"] == {
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "average_precision": 0.0,
        "support": 0.0,
    }
    assert report["c"]["average_precision"] == 1.0


def test_average_precision_falls_with_the_rank_of_what_is_right() -> None:
    bound = task()
    meter = bound.meter()
    logits = torch.tensor([[3.0, 0, 0], [2.0, 0, 0], [1.0, 0, 0]])
    meter.add(logits, bound.collate(encoded(bound, [[], ["a"], ["a"]])))
    # Right at ranks 2 and 3: (1/2 + 2/3) / 2.
    assert meter.result()["mean_ap"] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_a_probability_of_exactly_one_half_gives_no_label() -> None:
    bound = task()
    meter = bound.meter()
    meter.add(torch.zeros(1, 3), bound.collate(encoded(bound, [[]])))
    assert meter.result()["exact_match"] == 1.0


def test_a_text_may_have_no_label_and_a_dummy_row_wants_none() -> None:
    bound = task()
    batch = bound.collate(encoded(bound, [[], ["c", "a"]]), BatchShape(4, 8, (4,)))
    assert batch.target.tolist() == [[0, 0, 0], [1, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_a_label_that_the_study_does_not_have_is_a_misfit_and_not_quoted_in_its_reason() -> None:
    with pytest.raises(MisfitError) as found:
        task().encode(LabelsRecord("fever", ("a", "secret")))
    assert "secret" in str(found.value)
    assert "secret" not in found.value.reason


def test_one_label_is_enough_and_none_is_not() -> None:
    config = TaskConfig(kind=KIND)
    assert build_task(config, ("a",), word_tokenizer()).labels == ("a",)
    with pytest.raises(UsageError, match="at least 1"):
        build_task(config, (), word_tokenizer())


def test_labels_are_found_in_all_sets() -> None:
    records = [LabelsRecord("x", ("b", "a")), LabelsRecord("y", ()), LabelsRecord("z", ("c",))]
    assert labels_of(records, KIND) == LABELS
