"""Next items: what is read, what is learnt and what is ranked, against slow twins."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.data.records import ItemsRecord
from cloister.errors import DataError, MisfitError, UsageError
from cloister.tasks.build import build_task, labels_of
from cloister.tasks.config import TaskConfig
from cloister.tasks.cut import MOST_ITEMS
from cloister.tasks.items_hash import with_items_sha256
from cloister.tasks.popularity import popular_scores
from cloister.tasks.ranking import rank_scores, ranks_of, without_seen
from cloister.tasks.recommendation import Recommendation
from tests.support.examples import tries
from tests.support.models import WORDS, word_tokenizer

IDS = ("i1", "i2", "i3", "i4", "i5", "i6")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shelf") / "items.jsonl"
    rows = [{"item": item, "text": WORDS[n]} for n, item in enumerate(IDS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def task(shelf: Path) -> Recommendation:
    return bound(shelf)


def bound(shelf: Path, last: int = 3, length: int = 16) -> Recommendation:
    config = TaskConfig(kind="recommendation", items=str(shelf), last_items=last, max_length=length)
    built = build_task(config, (), word_tokenizer())
    assert isinstance(built, Recommendation)
    return built


def test_the_last_item_is_learnt_from_the_texts_of_those_before_the_latest_first(
    task: Recommendation,
) -> None:
    example = task.encode(ItemsRecord(("i1", "i2", "i3", "i4", "i5")))
    read = word_tokenizer()(f"{WORDS[3]}; {WORDS[2]}; {WORDS[1]}")["input_ids"]  # three are read
    assert list(example.input_ids) == read
    assert (IDS[example.target], example.seen) == ("i5", (0, 1, 2, 3))


def test_an_item_that_comes_again_counts_where_it_came_first(task: Recommendation) -> None:
    twice = task.encode(ItemsRecord(("i1", "i2", "i1", "i3", "i2")))
    assert twice == task.encode(ItemsRecord(("i1", "i2", "i3")))


@pytest.mark.parametrize(
    ("items", "why"),
    [(("i1",), "fewer than two"), (("i2", "i2"), "fewer than two"), (("i1", "x"), "not in task")],
)
def test_a_record_without_a_next_item_or_with_an_unknown_one_does_not_fit(
    task: Recommendation, items: tuple[str, ...], why: str
) -> None:
    with pytest.raises(MisfitError, match=why) as found:
        task.encode(ItemsRecord(items))
    assert "x" not in found.value.reason.split()


def test_of_a_long_life_the_end_is_read(task: Recommendation) -> None:
    end = ("i2", "i3")
    assert task.encode(ItemsRecord(("i1", *end * MOST_ITEMS))) == task.encode(ItemsRecord(end))


@settings(max_examples=tries(30), deadline=None)
@given(order=st.permutations(range(6)), size=st.integers(2, 6), seed=st.integers(0, 2**31))
def test_the_loss_is_that_of_a_slow_twin(
    task: Recommendation, order: list[int], size: int, seed: int
) -> None:
    items = [IDS[place] for place in order[:size]]
    batch = task.collate([task.encode(ItemsRecord(tuple(items)))])
    logits = torch.randn(1, 6, generator=torch.Generator().manual_seed(seed)) * 5
    new = [place for place in range(6) if place not in order[: size - 1]]
    scores = [float(logits[0, place]) for place in new]
    slow = math.log(sum(map(math.exp, scores))) - float(logits[0, order[size - 1]])
    assert task.record_losses(logits, batch).tolist() == pytest.approx([slow], rel=1e-4, abs=1e-5)


@settings(max_examples=tries(30), deadline=None)
@given(scores=st.lists(st.integers(-3, 3), min_size=2, max_size=8), data=st.data())
def test_a_rank_is_the_mean_place_among_equals(scores: list[int], data: st.DataObject) -> None:
    target = data.draw(st.integers(0, len(scores) - 1))
    row = torch.tensor([scores], dtype=torch.float64)
    places = [n for n, s in enumerate(sorted(scores, reverse=True), 1) if s == scores[target]]
    assert ranks_of(row, torch.tensor([target])) == [sum(places) / len(places)]


def test_scores_are_those_worked_by_hand(task: Recommendation) -> None:
    found = rank_scores([1.0, 3.0, 11.0, 2.0])
    assert found["hit@10"] == 0.75
    assert found["ndcg@10"] == pytest.approx((1 + 1 / 2 + 0 + 1 / math.log2(3)) / 4)
    assert found["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 11 + 1 / 2) / 4)
    meter = task.meter()
    assert next(iter(found)) == task.primary_metric
    records = [ItemsRecord(("i1", "i2", "i3")), ItemsRecord(("i6", "i1"))]
    batch = task.collate([task.encode(record) for record in records])
    # Of the first, two items that score more are the person's already: rank 1. Of the second two
    # others are above: rank 3.
    meter.add(torch.tensor([[9.0, 8, 7, 1, 1, 1], [5.0, 6, 7, 1, 1, 9]]), batch)
    assert meter.result()["mrr"] == pytest.approx((1 + 1 / 3) / 2)
    assert meter.report() == {}


def test_popularity_ranks_what_came_next_often_without_what_each_person_has() -> None:
    # Next: x twice, y and z once. Who has x already finds y first; z and y are equal for the last.
    persons = [("a", "x"), ("b", "x"), ("x", "y"), ("a", "z")]
    found = popular_scores([ItemsRecord(items) for items in persons])
    # Ranks 1, 1; of y, where x is the person's own, z alone is equal: 1.5; of z, x is above: 2.5.
    assert found["mrr"] == pytest.approx((1 + 1 + 1 / 1.5 + 1 / 2.5) / 4)


def test_what_a_person_has_is_no_candidate_and_other_rows_keep_theirs() -> None:
    scores = without_seen(torch.ones(3, 4), [(0, 3), ()])
    assert scores[0].tolist() == [-math.inf, 1, 1, -math.inf]
    assert torch.isfinite(scores[1:]).all()


def test_items_have_no_labels_that_a_study_takes_from_records(task: Recommendation) -> None:
    assert labels_of([ItemsRecord(IDS)], "recommendation") == ()
    assert task.labels == IDS


def test_the_hash_of_the_items_is_the_file_s_and_another_file_is_refused(shelf: Path) -> None:
    plain = TaskConfig(kind="recommendation", items=str(shelf))
    stated = with_items_sha256(plain)
    assert stated.items_sha256 is not None
    assert with_items_sha256(stated) == stated
    other = shelf.with_name("other.jsonl")
    other.write_text(shelf.read_text() + '{"item": "i7", "text": "fever"}\n')
    with pytest.raises(DataError, match=r"task\.items: .*the study needs"):
        with_items_sha256(
            TaskConfig(kind="recommendation", items=str(other), items_sha256=stated.items_sha256)
        )
    with pytest.raises(DataError, match="the study needs"):
        build_task(
            TaskConfig(kind="recommendation", items=str(other), items_sha256=stated.items_sha256),
            (),
            word_tokenizer(),
        )


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"kind": "recommendation"}, "items: none given"),
        ({"kind": "recommendation", "items": "a", "labels": ("x",)}, "leave them out"),
        ({"kind": "recommendation", "items": "a", "items_sha256": "AB"}, "64 lower-case"),
        ({"items": "a"}, "only recommendation has it"),
        ({"last_items": 3}, "only recommendation has it"),
    ],
)
def test_a_section_that_does_not_fit_is_refused(options: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        TaskConfig(**options)  # type: ignore[arg-type]
