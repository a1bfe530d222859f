"""A user's list of words that may stand for each other: one group a line, parted by commas.

    heart attack, myocardial infarction, MI
    心梗，心肌梗死

Words are compared without regard to case, and as words: `MI` is not found in `mild`. Chinese has no
blanks, so a group's characters are found wherever they follow each other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from cloister.data.augment.methods import how_many
from cloister.data.augment.words import Words
from cloister.errors import DataError, UsageError
from cloister.files import why_no_file

# Of a list of synonyms: WordNet's of English has about 120,000 groups and takes less.
MOST_BYTES = 2**26
_PARTED = re.compile(r"[,，、;；\t]")

Key = tuple[str, ...]


@dataclass(frozen=True)
class Synonyms:
    """Groups of words.

    Attributes:
        others: What may stand in the place of some words, by these, in lower case.
        lengths: How many words the groups that begin with a word have, the longest first.
    """

    others: dict[Key, tuple[str, ...]]
    lengths: dict[str, tuple[int, ...]]

    def found(self, words: Sequence[str], joined: Sequence[bool]) -> list[tuple[int, int]]:
        """Where words of the list are, as first place and the one after the last.

        Args:
            words: Of a text.
            joined: Whether nothing but blanks is between each word and the next.
        """
        small = [word.casefold() for word in words]
        found, place = [], 0
        while place < len(small):
            for length in self.lengths.get(small[place], ()):
                end = place + length
                key = tuple(small[place:end])
                if key in self.others and all(joined[place : end - 1]):
                    found.append((place, end))
                    place = end - 1
                    break
            place += 1
        return found

    def replaced(
        self,
        words: Sequence[str],
        joined: Sequence[bool],
        share: float,
        random: Random,
        *,
        single: bool = False,
    ) -> list[tuple[int, int, str]] | None:
        """What is put in the place of which words, in their order; None where there is nothing.

        Args:
            words: Of a text.
            joined: Whether nothing but blanks is between each word and the next.
            share: How many are replaced, over the number of words.
            random: What is drawn from.
            single: Whether one word is put in the place of one, so that their number stays.
        """
        chosen: list[tuple[int, int, list[str]]] = []
        for start, end in self.found(words, joined):
            others = list(self.others[tuple(word.casefold() for word in words[start:end])])
            if single:
                others = [o for o in others if len(o.split()) == 1] if end == start + 1 else []
            if others:
                chosen.append((start, end, others))
        if not chosen:
            return None
        taken = random.sample(chosen, min(len(chosen), how_many(share, len(words))))
        return sorted((s, e, _cased(random.choice(o), words[s])) for s, e, o in taken)


def _cased(new: str, old: str) -> str:
    """A word with a capital where the one that it stands for has one."""
    return new[:1].upper() + new[1:] if old[:1].isupper() and new.islower() else new


def read_synonyms(path: Path) -> Synonyms:
    """Reads a list of synonyms (UTF-8).

    Raises:
        DataError: The file is missing, too large or not UTF-8, or a line has fewer than two words.
        UsageError: It has no group.
    """
    if (why := why_no_file(path)) is not None:
        raise DataError(f"{path}: {why}; correct --synonyms")
    if path.stat().st_size > MOST_BYTES:
        raise DataError(f"{path}: more than {MOST_BYTES >> 20} MiB; give a shorter list")
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8; write it so") from error
    others: dict[Key, dict[str, None]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        group = list(dict.fromkeys(word.strip() for word in _PARTED.split(line) if word.strip()))
        keys = [tuple(w.casefold() for w in Words.of(word).words) for word in group]
        if len(group) < 2 or not all(keys):
            raise DataError(
                f"{path}, line {number}: two or more words that may stand for each other are "
                "needed, parted by commas; correct the line"
            )
        for word, key in zip(group, keys, strict=True):
            others.setdefault(key, {}).update(dict.fromkeys(o for o in group if o != word))
    if not others:
        raise UsageError(f"--synonyms: {path} has no group of words; write one a line")
    lengths: dict[str, set[int]] = {}
    for key in others:
        lengths.setdefault(key[0], set()).add(len(key))
    return Synonyms(
        {key: tuple(found) for key, found in others.items()},
        {first: tuple(sorted(found, reverse=True)) for first, found in lengths.items()},
    )
