"""Entity tags and their scores against numbers worked by hand."""

import pytest
import torch
from tokenizers import normalizers

from cloister.data.records import TokenRecord
from cloister.errors import DataError, UsageError
from cloister.tasks.build import build_task, labels_of, record_kind
from cloister.tasks.config import TaskConfig
from cloister.tasks.task import IGNORE, Meter
from cloister.tasks.token import TokenClassification, bio_tags
from tests.support.models import word_tokenizer

KIND = "token-classification"


def task(max_length: int = 16) -> TokenClassification:
    built = build_task(TaskConfig(kind=KIND, max_length=max_length), ("X", "Y"), word_tokenizer())
    assert isinstance(built, TokenClassification)
    return built


def scored(bound: TokenClassification, true: list[str], predicted: list[str]) -> Meter:
    """A meter after sentences of the words "fever", predictions of one tag for each word."""
    meter = bound.meter()
    for gold, found in zip(true, predicted, strict=True):
        record = TokenRecord(("fever",) * len(gold.split()), tuple(gold.split()))
        batch = bound.collate([bound.encode(record)])
        logits = torch.zeros(*batch.input_ids.shape, len(bound.labels))
        for place, tag in enumerate(found.split()):
            if 1 + place < logits.shape[1]:  # after [CLS]
                logits[0, 1 + place, bound.labels.index(tag)] = 1.0
        meter.add(logits, batch)
    return meter


def test_tags_are_o_then_beginning_and_inside_of_each_type() -> None:
    assert bio_tags(("X", "Y")) == ("O", "B-X", "I-X", "B-Y", "I-Y")
    assert task().labels == bio_tags(("X", "Y"))


def test_the_first_piece_of_a_word_carries_its_tag() -> None:
    # "knee-rash" is cut into three pieces: knee, - and rash.
    record = TokenRecord(("mild", "knee-rash", "fever"), ("O", "B-Y", "I-Y"))
    example = task().encode(record)
    assert example.input_ids == (2, 24, 10, 1, 12, 8, 3)
    assert example.target == (IGNORE, 0, 3, IGNORE, IGNORE, 4, IGNORE)
    assert example.words == (0, 1, 2)
    assert example.reference == record.tags


def test_scores_are_of_whole_entities() -> None:
    meter = scored(
        task(),
        ["B-X I-X O B-Y", "B-X O O", "O O"],
        # An entity cut short, one right, one right, one invented.
        ["B-X O O B-Y", "B-X O O", "O B-Y"],
    )
    found = meter.result()
    # 4 predicted (X of one word, Y, X, Y), 3 in truth, 2 of them equal.
    assert found["precision"] == pytest.approx(2 / 4)
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx(2 * 2 / (4 + 3))
    assert {kind: dict(scores) for kind, scores in meter.report().items()} == {
        "X": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2.0},
        "Y": {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1.0},
    }


def test_an_inside_tag_without_a_beginning_opens_an_entity_as_conll_has_it() -> None:
    assert scored(task(), ["B-X I-X"], ["I-X I-X"]).result()["f1"] == 1.0


def test_words_beyond_max_length_count_as_predicted_o() -> None:
    # [CLS] and [SEP] leave two words of four; the entity in the third is missed, though the
    # "prediction" there is right.
    tags = "B-X O B-Y O"
    meter = scored(task(4), [tags], [tags])
    found = meter.result()
    assert (found["precision"], found["recall"]) == (1.0, 0.5)
    assert meter.report()["Y"]["support"] == 1.0


def test_a_word_of_which_nothing_is_left_does_not_shift_the_others() -> None:
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("severe", "")
    bound = TokenClassification(bio_tags(("X",)), tokenizer, 16, 0)
    record = TokenRecord(("fever", "severe", "cough", "rash"), ("O", "O", "B-X", "I-X"))
    example = bound.encode(record)
    assert example.words == (0, 2, 3)
    batch = bound.collate([example])
    meter = bound.meter()
    right = batch.target.clamp_min(0)
    meter.add(torch.nn.functional.one_hot(right, len(bound.labels)).float(), batch)
    assert meter.result()["f1"] == 1.0


def test_a_sentence_without_any_token_still_has_one_and_loss_zero() -> None:
    tokenizer = word_tokenizer(frame=False)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("severe", "")
    bound = TokenClassification(bio_tags(("X",)), tokenizer, 16, 0)
    batch = bound.collate([bound.encode(TokenRecord(("severe",), ("B-X",)))])
    assert batch.input_ids.tolist() == [[0]]
    logits = torch.zeros(1, 1, len(bound.labels))
    assert bound.record_losses(logits, batch).tolist() == [0.0]
    meter = bound.meter()
    meter.add(logits, batch)
    # The entity is there, though nothing of it could be seen.
    assert meter.report()["X"]["support"] == 1.0


def test_without_any_entity_scores_are_zero_and_the_report_empty() -> None:
    meter = scored(task(), ["O O"], ["O O"])
    assert meter.result()["f1"] == 0.0
    assert meter.report() == {}


def test_each_sentence_counts_alike_in_the_loss() -> None:
    # Zero logits cost log 5 a word: the mean within each sentence, and over both, is log 5.
    assert scored(task(), ["O", "O O O O"], ["", ""]).result()["loss"] == pytest.approx(
        float(torch.tensor(5.0).log())
    )


def test_an_unknown_tag_is_refused() -> None:
    with pytest.raises(DataError, match=r"tag B-Z is not among the study's 5 \(O, B-X"):
        task().encode(TokenRecord(("fever",), ("B-Z",)))


def test_a_study_without_types_is_refused() -> None:
    with pytest.raises(UsageError, match="no entity type"):
        build_task(TaskConfig(kind=KIND), (), word_tokenizer())


def test_types_are_found_in_records_without_their_prefix() -> None:
    records = [TokenRecord(("a", "b", "c"), ("B-Y", "I-Y", "O")), TokenRecord(("a",), ("B-X",))]
    assert labels_of(records, record_kind(KIND)) == ("X", "Y")
