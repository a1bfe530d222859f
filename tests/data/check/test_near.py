"""Near duplicates are found from a similarity of 0.8 on, in any order of the texts."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.data.check import near
from cloister.data.check.near import BANDS, NEAR, Fingerprints, copies
from tests.support.examples import tries

LETTERS = "abcdefghijklmnopqrstuvwxyz头痛发烧病人检查医院药"


def firsts(texts: list[str], *, near: bool = True) -> list[int]:
    prints = Fingerprints(near=near)
    for text in texts:
        prints.add(text)
    return [int(i) for i in (prints.near() if near else prints.exact())]


def made(rng: random.Random, size: int) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(size))


def test_planted_pairs_are_found_and_no_others() -> None:
    """One letter of 200 changes 3 of 198 shingles: similarity 0.97. Half a text: 0.33."""
    rng = random.Random(7)
    texts = [made(rng, 200) for _ in range(50)]
    changed = [text[:90] + "Ω" + text[91:] for text in texts]
    halves = [text[:100] + made(rng, 100) for text in texts]
    assert firsts([*texts, *changed, *halves]) == [*range(50), *range(50), *range(100, 150)]


def test_case_width_and_blanks_make_no_difference_and_exact_copies_do() -> None:
    texts = ["Fever since Monday", "ＦＥＶＥＲ  since\nmonday", "Fever since Monday"]
    assert firsts(texts) == [0, 0, 0]
    assert firsts(texts, near=False) == [0, 1, 0]


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.text(max_size=30), max_size=8))
def test_any_texts_are_grouped_and_equal_ones_always_together(texts: list[str]) -> None:
    exact, near = firsts(texts, near=False), firsts(texts)
    assert exact == [texts.index(text) for text in texts]
    assert all(i <= j and near[i] == i for j, i in enumerate(near))
    assert all(near[i] == near[j] for j, i in enumerate(exact))
    assert copies(np.array(near, dtype=np.int64)) >= copies(np.array(exact, dtype=np.int64))


def test_more_than_one_block_of_texts() -> None:
    texts = [str(n) * 5 for n in range(4200)]
    assert firsts([*texts, texts[4150]])[-1] == firsts(texts)[4150]


def slowly(prints: Fingerprints) -> list[int]:
    """The same by definition: every two texts are compared, and then groups spread until stable."""
    exact = prints.exact()
    bands = np.frombuffer(prints._signatures, dtype=np.uint32).reshape(len(exact), BANDS, -1)
    alike = bands[:, None] == bands[None]  # by two texts, band and value
    joined = alike.all(axis=3).any(axis=2) & (alike.mean(axis=(2, 3)) >= NEAR)
    joined |= exact[:, None] == exact[None]
    first = np.arange(len(exact))
    while True:
        spread = np.where(joined, first[None], len(exact)).min(axis=1)
        if np.array_equal(spread, first):
            return [int(place) for place in first]
        first = spread


def of_one_form(rng: random.Random, count: int, most: int) -> list[str]:
    """Letters of one form: its words, of which each letter has some in place of others."""
    words = [made(rng, 5) for _ in range(40)]
    form = [rng.choice(words) for _ in range(30)]
    letters = []
    for _ in range(count):
        letter = list(form)
        for _ in range(rng.randrange(most)):
            letter[rng.randrange(len(letter))] = rng.choice(words)
        letters.append(" ".join(letter))
    return letters


@settings(max_examples=tries(5), deadline=None)
@given(seed=st.integers(0, 10**6), most=st.integers(1, 20))
def test_all_pairs_of_a_bucket_are_found_as_by_comparing_each_with_each(
    seed: int, most: int
) -> None:
    prints = Fingerprints(near=True)
    for text in of_one_form(random.Random(seed), 60, most):
        prints.add(text)
    assert prints.near().tolist() == slowly(prints)


def test_in_a_bucket_beyond_reach_most_are_found_and_none_that_is_not_near(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(near, "REACH", 8)
    prints = Fingerprints(near=True)
    for text in of_one_form(random.Random(0), 200, 12):
        prints.add(text)
    found, every = prints.near(), np.array(slowly(prints))
    # Each group is within one of the twin's: what is joined is near.
    assert all(len(set(every[found == group])) == 1 for group in set(found.tolist()))
    assert copies(found) >= 0.9 * copies(every) > 50
