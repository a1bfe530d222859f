"""Classification scores against numbers worked by hand."""

import math

import pytest
import torch

from cloister.data.records import TextRecord
from cloister.errors import DataError, UsageError
from cloister.tasks.build import build_task, labels_of, record_kind
from cloister.tasks.config import TaskConfig
from cloister.tasks.sequence import SequenceClassification
from tests.support.models import word_tokenizer

LABELS = ("a", "b", "c")


def task(max_length: int = 16) -> SequenceClassification:
    built = build_task(TaskConfig(max_length=max_length), LABELS, word_tokenizer())
    assert isinstance(built, SequenceClassification)
    return built


def one_hot(classes: list[int], score: float = 1.0) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(classes), len(LABELS)).float() * score


def test_a_text_becomes_its_tokens_and_the_place_of_its_label() -> None:
    example = task().encode(TextRecord("chest pain", "b"))
    assert example.input_ids == (2, 4, 5, 3)  # [CLS] chest pain [SEP]
    assert example.target == 1


def test_a_long_text_is_cut_and_keeps_its_frame() -> None:
    assert task(4).encode(TextRecord("chest pain at rest", "a")).input_ids == (2, 4, 5, 3)


def test_a_text_without_any_token_still_has_one() -> None:
    tokenizer = word_tokenizer(frame=False)
    bare = build_task(TaskConfig(), LABELS, tokenizer)
    assert bare.encode(TextRecord("\u200b ", "a")).input_ids


def test_scores_are_those_worked_by_hand() -> None:
    meter = task().meter()
    true, predicted = [0, 0, 0, 1, 1], [0, 0, 1, 1, 0]
    examples = [task().encode(TextRecord("fever", LABELS[i])) for i in true]
    meter.add(one_hot(predicted), task().collate(examples))
    found = meter.result()
    assert found["accuracy"] == pytest.approx(3 / 5)
    # a: 2 of 3 predicted right, 2 of 3 found: F1 = 2/3. b: 1 of 2 and 1 of 2: 1/2. c occurs
    # nowhere and does not count.
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    # Cross-entropy with a score of 1 for one class: log(e + 2) − 1 where right, log(e + 2) else.
    assert found["loss"] == pytest.approx(math.log(math.e + 2) - 3 / 5)


def test_a_class_that_is_only_predicted_counts_for_macro_f1() -> None:
    meter = task().meter()
    meter.add(one_hot([0, 2]), task().collate([task().encode(TextRecord("fever", "a"))] * 2))
    # a: precision 1, recall 1/2, F1 2/3. c: predicted once and never right, F1 0.
    assert meter.result()["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_the_report_has_every_class_of_the_study() -> None:
    meter = task().meter()
    examples = [task().encode(TextRecord("fever", label)) for label in ("a", "a", "b")]
    meter.add(one_hot([0, 1, 1]), task().collate(examples))
    assert {k: dict(v) for k, v in meter.report().items()} == {
        "a": {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2.0},
        "b": {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1.0},
        "c": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0.0},
    }


def test_an_unknown_label_is_refused_with_the_labels_that_are_known() -> None:
    with pytest.raises(DataError, match=r"'d' is not among the study's 3 \(a, b, c\)"):
        task().encode(TextRecord("fever", "d"))


@pytest.mark.parametrize("labels", [(), ("only",)])
def test_fewer_than_two_labels_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=f"{len(labels)} given or found; at least 2"):
        build_task(TaskConfig(), labels, word_tokenizer())


def test_labels_are_found_in_records_in_sorted_order() -> None:
    records = [TextRecord("x", label) for label in ("b", "a", "b")]
    assert labels_of(records, record_kind("sequence-classification")) == ("a", "b")


def test_a_label_named_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="once"):
        TaskConfig(labels=("a", "a"))


def test_a_length_of_one_token_is_refused() -> None:
    with pytest.raises(UsageError, match="max_length: 1 given"):
        TaskConfig(max_length=1)
