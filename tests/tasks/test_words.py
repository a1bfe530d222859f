"""Every class of tokenizer reads words as running text, and finds them in its tokens."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from cloister.data.records import TokenRecord
from cloister.errors import UsageError
from cloister.models.base import load_tokenizer
from cloister.tasks.build import build_task
from cloister.tasks.config import TaskConfig
from cloister.tasks.task import IGNORE
from cloister.tasks.token import TokenClassification
from cloister.tasks.words import as_text, check_offsets, encode_words
from tests.support.tokenizers import TOKENIZERS, with_added_token

WORDS = ("the", "patients", "of", "the", "film", "have", "a", "severe", "fever")
KIND = "token-classification"


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> PreTrainedTokenizerBase:
    """As it is read from a base's folder."""
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    TOKENIZERS[request.param]().save_pretrained(folder)
    return load_tokenizer(folder)


def text_of(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()


def test_words_have_the_spaces_of_running_text(tokenizer: PreTrainedTokenizerBase) -> None:
    ids, _ = encode_words(tokenizer, WORDS, 64)
    assert text_of(tokenizer, ids) == "the patients of the film have a severe fever"
    assert ids == tokenizer("the patients of the film have a severe fever")["input_ids"]


def test_each_word_s_first_token_is_where_the_word_begins(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    ids, firsts = encode_words(tokenizer, WORDS, 64)
    assert [word for word in firsts if word is not None] == list(range(len(WORDS)))
    bounds = [place for place, word in enumerate(firsts) if word is not None] + [len(ids)]
    for word, (begin, end) in zip(WORDS, pairwise(bounds), strict=True):
        pieces = [p for p in ids[begin:end] if p not in tokenizer.all_special_ids]
        # A piece of spaces alone may stand before the next word.
        assert text_of(tokenizer, pieces).rstrip() == word


def test_a_task_learns_each_word_s_tag_at_its_first_token(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    task = build_task(TaskConfig(kind=KIND, max_length=64), ("X",), tokenizer)
    assert isinstance(task, TokenClassification)
    tags = ("O", "B-X", "I-X", "O", "B-X", "O", "O", "O", "B-X")
    example = task.encode(TokenRecord(WORDS, tags))
    assert example.words == tuple(range(len(WORDS)))
    assert isinstance(example.target, tuple)
    learnt = [task.labels[t] for t in example.target if t != IGNORE]
    assert tuple(learnt) == tags


def test_what_is_too_long_is_cut_at_its_end_and_its_words_are_nobody_s(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    whole, _ = encode_words(tokenizer, WORDS, 64)
    ids, firsts = encode_words(tokenizer, WORDS, 6)
    assert len(ids) == len(firsts) == 6
    known = [word for word in firsts if word is not None]
    assert known == list(range(len(known)))
    assert text_of(tokenizer, whole).startswith(text_of(tokenizer, ids))


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(words=st.lists(st.text(max_size=6), max_size=8))
def test_whatever_the_words_are_their_tokens_are_told_apart_in_order(
    tokenizer: PreTrainedTokenizerBase, words: list[str]
) -> None:
    ids, firsts = encode_words(tokenizer, words, 32)
    assert len(ids) == len(firsts)
    known = [word for word in firsts if word is not None]
    assert known == sorted(set(known))
    assert all(0 <= word < len(words) for word in known)


def test_a_text_s_words_lie_where_they_are_said_to() -> None:
    text, spans = as_text(["a", "", "bc", "d e"])
    assert text == "a  bc d e"
    assert [text[start:end] for start, end in spans] == ["a", "", "bc", "d e"]


def test_a_token_of_several_words_is_the_first_s_alone() -> None:
    """As of a tokenizer whose vocabulary holds whole phrases."""
    vocabulary = {"<unk>": 0, "of the": 1, "film": 2}
    phrases = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    phrases.pre_tokenizer = pre_tokenizers.Split("of the", "isolated")
    made = PreTrainedTokenizerFast(tokenizer_object=phrases, unk_token="<unk>")
    ids, firsts = encode_words(made, ["of", "the", "film"], 8)
    assert ids == [1, 0]  # "of the" and " film", which is unknown
    assert firsts == [0, 2]


def test_an_added_token_that_takes_the_space_before_it_is_its_word_s() -> None:
    made = with_added_token()
    ids, firsts = encode_words(made, ["a", "severe", "fever", "since"], 32)
    assert firsts[ids.index(made.convert_tokens_to_ids("fever"))] == 2
    assert [word for word in firsts if word is not None] == [0, 1, 2, 3]


def test_a_tokenizer_without_places_is_refused() -> None:
    tokenizer = TOKENIZERS["WordPiece"]()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("patient", "")
    with pytest.raises(UsageError, match=r"finds 3 of the 4 words.*choose another base"):
        check_offsets(tokenizer)
