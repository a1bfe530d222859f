"""The methods change words in Chinese and English, and keep words that decide the label."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.data.augment.methods import MISTAKEN, NEIGHBOURS, dropped, mistyped, swapped
from cloister.data.augment.synonyms import Synonyms, read_synonyms
from cloister.data.augment.words import Words, may_change
from cloister.errors import DataError, UsageError
from tests.support.examples import tries

NOTE = "The patient hasn't had chest pain at rest since 2024, she said."
CHINESE = "皮肤红疹三天，不痛，有点痒。"
TEXTS = st.text(st.sampled_from("ab cd，。不痛红疹 not n't 7\nÉ😀"), max_size=30)


@settings(max_examples=tries(200), deadline=None)
@given(TEXTS)
def test_a_text_in_words_is_the_text_again(text: str) -> None:
    assert str(Words.of(text)) == text


def test_a_chinese_character_is_a_word_and_an_english_word_is_one() -> None:
    assert Words.of("用MRI查，it's ok").words == ("用", "MRI", "查", "it's", "ok")


def test_no_blank_is_left_where_a_word_was() -> None:
    text = Words.of("one two, three four.")
    assert str(text.without([1])) == "one, three four."
    assert str(text.without([0, 3])) == "two, three."
    assert str(Words.of("红疹，痛").without([0, 2])) == "疹，"


@pytest.mark.parametrize(
    ("text", "gone", "left"),
    [
        ("2008年3月来", [1], "2008 3月来"),
        ("MRI和CT都做", [1], "MRI CT都做"),
        ("查2008年3月", [0, 2], "2008 3月"),
        ("痛了三天", [1], "痛三天"),
    ],
)
def test_a_dropped_character_fuses_no_numbers_and_no_words(
    text: str, gone: list[int], left: str
) -> None:
    assert str(Words.of(text).without(gone)) == left


def test_swapped_words_fuse_with_no_other() -> None:
    text = Words.of("做MRI和CT")
    moved = Words(("做", "MRI", "CT", "和"), text.gaps)
    assert str(moved) == "做MRI CT和"


def places_that_stay(words: tuple[str, ...]) -> list[int]:
    return [place for place in range(len(words)) if not may_change(words, place)]


@pytest.mark.parametrize(
    ("text", "kept"), [(NOTE, {"hasn't", "had", "2024"}), (CHINESE, {"不", "痛"})]
)
def test_negations_with_what_follows_and_numbers_stay(text: str, kept: set[str]) -> None:
    words = Words.of(text).words
    assert {words[place] for place in places_that_stay(words)} == kept
    free = [True] * len(words)
    for seed in range(60):
        random = Random(seed)
        gone = dropped(words, free, 0.5, random)
        assert gone
        assert len(gone) < len(words)
        assert not set(gone) & set(places_that_stay(words))
        for new in (swapped(words, free[1:], 0.5, random), mistyped(words, 0.5, random)):
            assert new is not None
            assert new != list(words)
            assert all(new[place] == words[place] for place in places_that_stay(words))


def test_words_change_places_with_a_neighbour_alone() -> None:
    words = [f"w{letter}" for letter in "abcdefgh"]
    for seed in range(40):
        new = swapped(words, [True] * 7, 0.3, Random(seed))
        assert new is not None
        assert sorted(new) == words
        assert all(abs(words.index(word) - place) <= 1 for place, word in enumerate(new))


def test_a_letter_becomes_that_of_a_key_beside() -> None:
    assert set(NEIGHBOURS["g"]) >= set("fhtyvb")
    assert not set(NEIGHBOURS["g"]) & set("qpalzm")
    assert all(one in NEIGHBOURS[other] for one, others in NEIGHBOURS.items() for other in others)
    for seed in range(40):
        (new,) = mistyped(["Chest"], 0.1, Random(seed)) or [""]
        (place,) = [p for p in range(5) if new[p] != "Chest"[p]]
        assert place > 0
        assert new[place] in NEIGHBOURS["Chest"[place]]


def test_a_character_becomes_one_like_it_or_is_there_twice() -> None:
    assert all(one not in others for one, others in MISTAKEN.items())
    assert {tuple(mistyped(["在"], 0.1, Random(seed)) or []) for seed in range(9)} == {("再",)}
    assert mistyped(["疹"], 0.1, Random(1)) == ["疹疹"]
    assert mistyped(["ab", "7x5yz"], 0.1, Random(1)) is None


@pytest.fixture
def synonyms(tmp_path: Path) -> Synonyms:
    path = tmp_path / "words.txt"
    path.write_text("# ours\nheart attack, myocardial infarction, MI\n红疹，皮疹\nMI，心梗\n")
    return read_synonyms(path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A heart attack, mild", [(1, 3)]),
        ("a heart, attack", []),
        ("myocardial infarction", [(0, 2)]),
        ("有红疹mi", [(1, 3), (3, 4)]),
        ("红，疹", []),
    ],
)
def test_groups_are_found_as_words_that_follow_each_other(
    synonyms: Synonyms, text: str, found: list[tuple[int, int]]
) -> None:
    words = Words.of(text)
    joined = [words.joined(place) for place in range(len(words.words))]
    assert synonyms.found(words.words, joined) == found


def test_a_capital_stays_and_one_word_stands_for_one(synonyms: Synonyms) -> None:
    words, joined = ("Heart", "attack", "MI"), [True, True, True]
    new = {tuple(synonyms.replaced(words, joined, 1.0, Random(s)) or []) for s in range(30)}
    assert {one[0] for one in new} == {(0, 2, "Myocardial infarction"), (0, 2, "MI")}
    single = {
        tuple(synonyms.replaced(words, joined, 1.0, Random(s), single=True) or [])
        for s in range(30)
    }
    assert single == {((2, 3, "心梗"),)}
    words = ("HEART", "ATTACK", "TODAY")
    new = {tuple(synonyms.replaced(words, joined, 1.0, Random(s)) or []) for s in range(30)}
    assert {one[0] for one in new} >= {(0, 2, "MYOCARDIAL INFARCTION")}
    assert all(word == word.upper() for ((_, _, word),) in new)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (b"one\n", DataError, "line 1: two or more synonyms"),
        (b"a, ...\n", DataError, "line 1: two or more synonyms"),
        (b"# nothing\n", UsageError, "no group"),
        (b"\xff\xfe\n", DataError, "not UTF-8"),
    ],
)
def test_a_list_that_says_nothing_is_refused(
    tmp_path: Path, text: bytes, error: type[Exception], said: str
) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(text)
    with pytest.raises(error, match=said):
        read_synonyms(path)
    with pytest.raises(DataError, match="no such file"):
        read_synonyms(tmp_path / "none")
