"""Leaves out, swaps or mistypes words: each method is a function of the words and of a generator.

`dropped` and `swapped` are two of the four of EDA (Wei and Zou 2019, arXiv:1901.11196); here
numbers, negations and the word after a negation stay where they are, and words change places with
their neighbours only, which keeps Chinese text readable too.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from cloister.data.augment.words import is_character, may_change

# The keys of a US keyboard, row by row, with each row's shift to the right of the first.
_ROWS = (("qwertyuiop", 0.0), ("asdfghjkl", 0.25), ("zxcvbnm", 0.75))
# Two keys are neighbours if their centres are closer than this, in widths of a key.
_TOUCH = 1.3
# Shortest word that is mistyped, in letters: a typo in a shorter one gives another word.
_SHORTEST = 4
# Characters that writers of Chinese confuse, because they sound or look alike.
_MISTAKEN = (
    *("的地得", "在再", "做作", "他她它", "那哪", "己已", "以已", "像象", "带戴", "既即", "须需"),
    *("历厉", "辩辨", "账帐", "分份", "型形", "决绝", "跟根", "圆园", "近进", "候侯", "练炼"),
    *("晴睛", "坐座", "吧把", "吗嘛", "后候", "心新", "名明", "请清", "样洋", "现线", "见件"),
    *("至致", "常长", "应因", "音因", "城成", "程成", "题提", "气汽"),
)


def _neighbours() -> dict[str, str]:
    keys = {
        key: (place + shift, row)
        for row, (letters, shift) in enumerate(_ROWS)
        for place, key in enumerate(letters)
    }
    return {
        key: "".join(
            other
            for other, (x, y) in keys.items()
            if other != key and (x - own[0]) ** 2 + (y - own[1]) ** 2 < _TOUCH**2
        )
        for key, own in keys.items()
    }


NEIGHBOURS = _neighbours()
MISTAKEN = {
    one: "".join(dict.fromkeys(c for group in _MISTAKEN if one in group for c in group if c != one))
    for one in dict.fromkeys("".join(_MISTAKEN))
}


def how_many(share: float, words: int) -> int:
    """Returns how many words a method changes: their share, and at least one."""
    return max(1, round(share * words))


def dropped(
    words: Sequence[str], free: Sequence[bool], share: float, random: Random
) -> list[int] | None:
    """Returns the places of words to leave out: each with the probability `share`, and at least
    one.

    Args:
        words: A text's words.
        free: Which of them may be left out; `may_change` must allow it too.
        share: The probability.
        random: The generator.

    Returns:
        The places; None: no word can be left out.
    """
    can = [place for place in range(len(words)) if free[place] and may_change(words, place)]
    if not can or len(words) < 2:
        return None
    gone = [place for place in can if random.random() < share] or [random.choice(can)]
    if len(gone) == len(words):
        gone.remove(random.choice(gone))
    return gone


def swapped(
    words: Sequence[str], free: Sequence[bool], share: float, random: Random
) -> list[str] | None:
    """Returns the words, some of them swapped with their right neighbour.

    Args:
        words: A text's words.
        free: The places at which a word may be swapped with the next one.
        share: Number of swapped pairs over the number of words.
        random: The generator.

    Returns:
        The words; None: no two can be swapped.
    """
    can = [
        place
        for place in range(len(words) - 1)
        if free[place]
        and words[place] != words[place + 1]
        and may_change(words, place)
        and may_change(words, place + 1)
    ]
    if not can:
        return None
    new = list(words)
    moved: set[int] = set()
    for place in random.sample(can, min(len(can), how_many(share, len(words)))):
        if moved.isdisjoint((place, place + 1)):
            new[place], new[place + 1] = new[place + 1], new[place]
            moved |= {place, place + 1}
    return new


def mistyped(words: Sequence[str], share: float, random: Random) -> list[str] | None:
    """Returns the words, some with a typo: a neighbouring key, or a similar Chinese character.

    A Chinese character without a similar one in the list is doubled.

    Returns:
        The same number of words, in the same order; None: no word can be mistyped.
    """
    can = [p for p, word in enumerate(words) if may_change(words, p) and _can_err(word)]
    if not can:
        return None
    new = list(words)
    for place in random.sample(can, min(len(can), how_many(share, len(words)))):
        new[place] = _mistake(new[place], random)
    return new


def _can_err(word: str) -> bool:
    if is_character(word):
        return True
    return len(word) >= _SHORTEST and any(letter.lower() in NEIGHBOURS for letter in word[1:])


def _mistake(word: str, random: Random) -> str:
    if is_character(word):
        return random.choice(MISTAKEN[word]) if word in MISTAKEN else word * 2
    # The first letter stays: typos in it are rare, and readers need it.
    places = [p for p, letter in enumerate(word) if p and letter.lower() in NEIGHBOURS]
    place = random.choice(places)
    letter = random.choice(NEIGHBOURS[word[place].lower()])
    return word[:place] + (letter.upper() if word[place].isupper() else letter) + word[place + 1 :]
