"""Disturbances of texts and records of every task, and suites from files."""

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.data.records import (
    ChatRecord,
    Message,
    PairRecord,
    Record,
    ScoreRecord,
    TextRecord,
    TokenRecord,
)
from cloister.errors import DataError, UsageError
from cloister.trust.attack.disturbances import DISTRACTORS, DISTURBANCES
from cloister.trust.attack.look_alikes import CHINESE, LATIN, WIDE, full_width, homoglyphs
from cloister.trust.attack.records import disturbed
from cloister.trust.attack.suites import read_suite
from cloister.trust.attack.synonym_list import own_synonyms
from tests.support.examples import tries

ENGLISH = "The doctor said the pain is severe, but it was really a good film."
# Letters, marks, blanks, Chinese, and a character beyond the first plane.
ALPHABET = "abeoTX'n’.,-1 \n\t没不是好大未価😀é"
CHINESE_TEXT = "价格很贵，质量不好，我不喜欢这个商品"


def one(name: str, text: str, seed: int = 0) -> str | None:
    return DISTURBANCES[name].apply(text, Random(seed))


@pytest.mark.parametrize("name", DISTURBANCES)
@settings(max_examples=tries(40))
@given(text=st.text(alphabet=ALPHABET, max_size=40), seed=st.integers(0, 99))
def test_a_disturbance_changes_the_text_or_says_that_it_cannot(
    name: str, text: str, seed: int
) -> None:
    new = one(name, text, seed)
    assert new is None or new != text or name in ("typos", "synonyms")
    assert new == one(name, text, seed)


def test_each_does_what_it_says() -> None:
    assert one("upper-case", "ab") == "AB"
    assert one("lower-case", "ab") is None
    assert one("truncation", "one two three four.") == "one two"
    assert one("truncation", CHINESE_TEXT) == "价格很贵，质量不好"
    assert full_width("a1 好", Random(0)) == "ａ１ 好"
    distracted = one("distractor", "good") or ""
    assert distracted.removeprefix("good ") in DISTRACTORS[False]
    assert (one("distractor", "好") or "").removeprefix("好") in DISTRACTORS[True]
    assert one("negation", "it is good") == "it is not good"
    assert DISTURBANCES["negation"].is_reversing
    assert sum(way.is_reversing for way in DISTURBANCES.values()) == 1


def test_typos_and_synonyms_change_words_and_keep_their_number() -> None:
    for name in ("typos", "synonyms"):
        new = one(name, ENGLISH) or ""
        pairs = list(zip(ENGLISH.split(), new.split(), strict=True))
        assert 1 <= sum(a != b for a, b in pairs) <= 3
    assert one("synonyms", "xyzzy") is None
    synonyms = {new for seed in range(20) if (new := one("synonyms", "good film", seed))}
    assert synonyms <= {"fine film", "good movie", "fine movie"}
    changed = {one("synonyms", "价格贵", seed) for seed in range(20)}
    assert changed & {"价钱贵", "价格昂贵"}


def test_homoglyphs_look_alike_and_are_other_characters() -> None:
    assert not set(LATIN) & set(LATIN.values())
    assert all(ord(new) > 0x36F for new in LATIN.values())
    assert all(CHINESE[CHINESE[letter]] == letter for letter in ("未", "土", "日"))
    assert all(a != b for a, b in CHINESE.items())
    assert len(WIDE) == 94
    new = homoglyphs(ENGLISH, Random(0)) or ""
    assert len(new) == len(ENGLISH)
    changed = [(a, b) for a, b in zip(ENGLISH, new, strict=True) if a != b]
    assert set(changed) <= set(LATIN.items())
    assert len(changed) == round(0.25 * sum(letter in LATIN for letter in ENGLISH))
    assert homoglyphs("未", Random(0)) == "末"
    assert homoglyphs("1 2", Random(0)) is None


def test_the_list_of_synonyms_is_read_both_ways() -> None:
    others = own_synonyms().others
    assert others[("film",)] == ("movie",)
    assert others[("movie",)] == ("film",)


def upper(text: str, random: Random) -> str | None:
    return None if text == text.upper() else text.upper()


def test_records_keep_what_is_to_be_learnt() -> None:
    random = Random(0)
    records: list[tuple[Record, Record | None]] = [
        (TextRecord("a b", "x"), TextRecord("A B", "x")),
        (TextRecord("A", "x"), None),
        (ScoreRecord("a", 2.0), ScoreRecord("A", 2.0)),
        (PairRecord("a", "x", text_b="B"), PairRecord("A", "x", text_b="B")),
        (TokenRecord(("a", "b"), ("O", "B-S")), TokenRecord(("A", "B"), ("O", "B-S"))),
        (
            ChatRecord((Message("user", "a"), Message("assistant", "b"))),
            ChatRecord((Message("user", "A"), Message("assistant", "b"))),
        ),
    ]
    for record, expected in records:
        assert disturbed(record, upper, random) == expected


def test_words_keep_their_tags_where_a_sentence_grows_shrinks_or_falls_apart() -> None:
    record = TokenRecord(("a", "b"), ("B-S", "I-S"))
    random = Random(0)
    assert disturbed(record, lambda text, r: text + " c d", random) == TokenRecord(
        ("a", "b", "c", "d"), ("B-S", "I-S", "O", "O")
    )
    assert disturbed(record, lambda text, r: "a", random) == TokenRecord(("a",), ("B-S",))
    assert disturbed(record, lambda text, r: "a c b", random) is None


class Task:
    """What a suite asks of a task."""

    def __init__(self, kind: str, *labels: str) -> None:
        self.kind, self.labels = kind, labels


def test_published_suites_are_read_where_their_labels_fit(tmp_path: Path) -> None:
    glue = tmp_path / "dev.json"
    pair = {"premise": "p", "hypothesis": "h", "label": 2}
    glue.write_text(json.dumps({"sst2": [{"sentence": "s", "label": 1}], "mnli": [pair]}))
    (case,) = read_suite(glue, Task("sequence-classification", "Negative", "Positive", "Neutral"))  # type: ignore[arg-type]
    assert (case.group, case.record, case.clean) == ("sst2", TextRecord("s", "Positive"), None)
    (case,) = read_suite(glue, Task("text-pairs", "entailment", "neutral", "contradiction"))  # type: ignore[arg-type]
    assert case.record == PairRecord("p", "contradiction", text_b="h")
    hate = tmp_path / "hatecheck.csv"
    hate.write_text(",functionality,case_id,test_case,label_gold\n0,slur_h,1,text,non-hateful\n")
    (case,) = read_suite(hate, Task("sequence-classification", "hateful", "non_hateful"))  # type: ignore[arg-type]
    assert (case.group, case.record) == ("slur_h", TextRecord("text", "non_hateful"))
    own = tmp_path / "own.jsonl"
    own.write_text('{"text": "good", "disturbed": "g00d", "label": "a"}\n')
    (case,) = read_suite(own, Task("sequence-classification", "a", "b"))  # type: ignore[arg-type]
    assert case.clean == TextRecord("good", "a")
    assert case.record == TextRecord("g00d", "a")


def test_a_suite_that_does_not_fit_is_refused_with_both_lists(tmp_path: Path) -> None:
    glue = tmp_path / "dev.json"
    glue.write_text(json.dumps({"sst2": [{"sentence": "s", "label": 1}]}))
    with pytest.raises(UsageError, match=r"\(positive\).*\(a, b\)"):
        read_suite(glue, Task("sequence-classification", "a", "b"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="model for scoring"):
        read_suite(glue, Task("scoring"))  # type: ignore[arg-type]
    glue.write_text(json.dumps({"sst2": [{"sentence": "s", "label": 7}]}))
    with pytest.raises(DataError, match="sst2, case 1"):
        read_suite(glue, Task("sequence-classification", "positive", "negative"))  # type: ignore[arg-type]
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match="row 1"):
        read_suite(rows, Task("sequence-classification", "positive", "negative"))  # type: ignore[arg-type]
