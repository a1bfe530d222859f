"""Retrieval: the loss and the scores against slow twins, and what a recipe may not ask for."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from cloister.data.passages import read_passages
from cloister.data.records import TextRecord
from cloister.data.synthetic_questions import hospital_questions, leaflets
from cloister.errors import DataError, MisfitError, RecipeError, UsageError
from cloister.recipe import parse_recipe, sent_document
from cloister.recipe.sent import parse_document
from cloister.tasks.build import build_task
from cloister.tasks.config import MOST_PASSAGE_TEXT, TaskConfig
from cloister.tasks.lexical import lexical_scores
from cloister.tasks.ranking import ranks_of
from cloister.tasks.retrieval import Retrieval, found_scores
from tests.support.examples import tries
from tests.support.models import word_tokenizer

PASSAGES = {"rash": "itchy rash", "chest": "chest pain at rest", "knee": "swollen knee"}
NAMES = sorted(PASSAGES)


def task(**more: object) -> Retrieval:
    config = TaskConfig(
        kind="retrieval",
        max_length=12,
        passages=tuple(PASSAGES.items()),
        **more,  # type: ignore[arg-type]
    )
    built = build_task(config, (), word_tokenizer())
    assert isinstance(built, Retrieval)
    return built


cosines = st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3)


@settings(max_examples=tries(30), deadline=None)
@given(rows=st.lists(cosines, min_size=1, max_size=5), seed=st.integers(0, 2**31))
def test_loss_and_ranks_are_those_of_slow_twins(rows: list[list[float]], seed: int) -> None:
    bound = task(temperature=0.2)
    right = np.random.default_rng(seed).integers(0, 3, len(rows)).tolist()
    batch = bound.collate([bound.encode(TextRecord("fever", NAMES[at])) for at in right])
    logits = torch.tensor(rows)
    slow = [
        -row[at] / 0.2 + math.log(sum(math.exp(one / 0.2) for one in row))
        for row, at in zip(rows, right, strict=True)
    ]
    assert bound.record_losses(logits, batch).tolist() == pytest.approx(slow, rel=1e-4, abs=1e-5)
    ranks = [
        1 + sum(one > row[at] for one in row) + (row.count(row[at]) - 1) / 2
        for row, at in zip(logits.tolist(), right, strict=True)
    ]
    assert ranks_of(logits, batch.target) == ranks
    meter = bound.meter()
    meter.add(logits, batch)
    assert meter.result()["mrr"] == pytest.approx(sum(1 / rank for rank in ranks) / len(ranks))


@settings(max_examples=tries(30), deadline=None)
@given(seed=st.integers(0, 2**31), queries=st.integers(1, 6), passages=st.integers(2, 20))
def test_discounted_gain_is_sklearns(seed: int, queries: int, passages: int) -> None:
    draw = np.random.default_rng(seed)
    scores = draw.permuted(np.tile(np.arange(passages, dtype=float), (queries, 1)), axis=1)
    right = draw.integers(0, passages, queries)
    wanted = np.eye(passages)[right]
    ranks = ranks_of(torch.from_numpy(scores), torch.from_numpy(right))
    found = found_scores(ranks)
    assert found["ndcg@10"] == pytest.approx(ndcg_score(wanted, scores, k=10))
    assert found["recall@1"] == pytest.approx(float((scores.argmax(axis=1) == right).mean()))


def test_a_model_that_tells_nothing_apart_finds_nothing() -> None:
    assert ranks_of(torch.zeros(1, 3), torch.tensor([1])) == [2]
    assert ranks_of(torch.full((1, 3), math.nan), torch.tensor([1])) == [3]


def test_negatives_of_the_batch_are_refused_with_the_reason() -> None:
    with pytest.raises(RecipeError, match=r"task\.negatives: in-batch .* other records"):
        parse_recipe("", ["task.kind=retrieval", "task.negatives=in-batch"])
    with pytest.raises(UsageError, match="other records"):
        TaskConfig(kind="text-pairs", negatives="in-batch")
    assert task(negatives="public").temperature == 0.05


@pytest.mark.parametrize(
    ("passages", "told"),
    [
        (None, "at least 2"),
        ((("one", "alone"),), "at least 2"),
        ((("a", "some"), ("b", "  ")), "its text is empty"),
        (tuple((str(n), "x" * 4000) for n in range(33)), f"{MOST_PASSAGE_TEXT:,} in all"),
    ],
)
def test_passages_that_cannot_be_trained_on_are_refused(
    passages: tuple[tuple[str, str], ...] | None, told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        TaskConfig(kind="retrieval", passages=passages)


def test_a_query_of_another_passage_is_a_misfit() -> None:
    with pytest.raises(MisfitError, match="add it to"):
        task().encode(TextRecord("fever", "nowhere"))


def test_a_file_of_passages_is_part_of_the_digest(tmp_path: Path) -> None:
    """What a site agrees to holds the passages themselves, and so does a run's recipe."""
    file = tmp_path / "passages.jsonl"
    found = []
    for text in ("itchy rash", "itchy rash."):
        file.write_text(f'{{"id": "a", "text": "{text}"}}\n{{"id": 7, "text": "knee"}}\n')
        recipe = parse_recipe("", ["task.kind=retrieval", f"task.passages={file}"])
        assert recipe.task.labels == ("7", "a")
        again = parse_document(sent_document(recipe))
        assert dict(again.task.passages or ()) == {"a": text, "7": "knee"}
        assert again.digest() == recipe.digest()
        found.append(recipe.digest())
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n', "row 2: duplicate id 'a'"),
        ('{"id": "a"}\n', "row 1: text is not text"),
        ('{"id": 1.5, "text": "x"}\n', "row 1: id is not text"),
        ("", "empty"),
    ],
)
def test_a_file_that_is_none_of_passages_is_one_message(
    rows: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "passages.jsonl").write_text(rows)
    with pytest.raises(DataError, match=told):
        read_passages(tmp_path / "passages.jsonl")


def test_other_studies_say_nothing_of_passages() -> None:
    """So that their digests stay what they were."""
    assert "passages" not in parse_recipe("").document()


def test_shared_words_mislead_in_the_built_in_example() -> None:
    """A base that was never trained on it reaches a reciprocal rank of 0.50."""
    train, test = hospital_questions()
    assert hospital_questions() == (train, test)
    assert not {one.person for one in train} & {one.person for one in test}
    config = TaskConfig(kind="retrieval", passages=tuple(leaflets().items()))
    assert {one.label for one in train} == set(config.labels)
    assert lexical_scores(config, test)["mrr"] < 0.8 * 0.5


def test_words_are_characters_where_passages_have_no_blanks() -> None:
    config = TaskConfig(
        kind="retrieval", passages=(("退款", "如何申请退款。"), ("地址", "修改地址。"))
    )
    test = [TextRecord("我要退款", "退款"), TextRecord("地址写错了", "地址")]
    assert lexical_scores(config, test)["recall@1"] == 1.0
