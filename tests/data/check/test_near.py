"""Near duplicates: found from 0.8 on, not below, whatever their order."""

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.data.check.near import Fingerprints, copies

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
