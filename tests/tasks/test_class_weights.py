"""Class weights multiply losses by label, are declared by name, and change no clip."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.data.records import TextRecord, TokenRecord
from cloister.errors import RecipeError, UsageError
from cloister.recipe import parse_recipe
from cloister.recipe.document import toml
from cloister.tasks.build import build_task
from cloister.tasks.config import TaskConfig
from tests.support.examples import tries
from tests.support.models import word_tokenizer

WEIGHTS = st.floats(0.01, 100.0)


@settings(max_examples=tries(20), deadline=None)
@given(weight=WEIGHTS, seed=st.integers(0, 2**31))
def test_a_texts_loss_is_its_labels_weight_times_the_plain_one(weight: float, seed: int) -> None:
    plain = build_task(TaskConfig(), ("a", "b", "c"), word_tokenizer())
    weighed = build_task(
        TaskConfig(class_weights={"b": weight}),  # type: ignore[arg-type]
        ("a", "b", "c"),
        word_tokenizer(),
    )
    batch = plain.collate([plain.encode(TextRecord("fever", label)) for label in "abcb"])
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
    factor = torch.tensor([1.0, weight, 1.0, weight])
    expected = plain.record_losses(logits, batch) * factor
    torch.testing.assert_close(weighed.record_losses(logits, batch), expected)


@settings(max_examples=tries(20), deadline=None)
@given(weight=WEIGHTS, seed=st.integers(0, 2**31))
def test_a_sentences_loss_weighs_each_word_by_its_type(weight: float, seed: int) -> None:
    kind = "token-classification"
    plain = build_task(TaskConfig(kind=kind), ("X", "Y"), word_tokenizer())
    weighed = build_task(
        TaskConfig(kind=kind, class_weights={"Y": weight}),  # type: ignore[arg-type]
        ("X", "Y"),
        word_tokenizer(),
    )
    record = TokenRecord(("chest", "pain", "fever"), ("B-Y", "I-Y", "B-X"))
    batch = plain.collate([plain.encode(record)])
    logits = torch.randn(*batch.target.shape, 5, generator=torch.Generator().manual_seed(seed))
    words = []
    for place in (1, 2, 3):  # behind [CLS]
        one = -logits[0, place].log_softmax(dim=0)[batch.target[0, place]]
        words.append(one * (weight if place < 3 else 1.0))
    expected = torch.stack(words).mean()[None]
    torch.testing.assert_close(weighed.record_losses(logits, batch), expected)


def test_a_weight_for_what_is_no_label_is_refused() -> None:
    with pytest.raises(UsageError, match="d given"):
        build_task(TaskConfig(class_weights={"d": 2.0}), ("a", "b"), word_tokenizer())  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="class_weights: d given"):
        parse_recipe("[task]\nlabels = ['a', 'b']\nclass_weights = { d = 2.0 }")


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ("{ a = 0 }", "a number from 0.001 to 1000 needed"),
        ("{ a = 'much' }", "for 'a'; a number"),
        ("{ a = inf }", "for 'a'; a number"),
        ("[2.0]", "a table of a number"),
        ("{}", "an empty table"),
    ],
)
def test_weights_are_numbers_by_name(given_: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_recipe(f"[task]\nclass_weights = {given_}")


def test_a_task_without_classes_has_no_weights() -> None:
    with pytest.raises(UsageError, match="have classes"):
        TaskConfig(kind="causal-lm", class_weights={"a": 2.0})  # type: ignore[arg-type]


def test_a_recipe_with_weights_reads_back_equal_whatever_their_order() -> None:
    text = "[task]\nlabels = ['a', 'b']\nclass_weights = {{ {} }}"
    one = parse_recipe(text.format("b = 3, a = 0.5"))
    other = parse_recipe(text.format("a = 0.5, b = 3.0"))
    assert one == other
    assert one.digest() == other.digest()
    assert hash(one.task) == hash(other.task)
    again = parse_recipe(toml(one.resolved().sections()))
    assert again.task == one.task
    assert again.digest() == one.digest()


def test_weights_are_part_of_the_digest_and_absent_ones_are_not_named() -> None:
    plain = parse_recipe("[task]\nlabels = ['a', 'b']")
    weighed = parse_recipe("[task]\nlabels = ['a', 'b']\nclass_weights = { a = 2.0 }")
    assert plain.digest() != weighed.digest()
    assert "class_weights" not in plain.document()
    assert "score_range" not in plain.document()
    assert '"class_weights":{"a":2.0}' in weighed.document()
