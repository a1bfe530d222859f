"""Reads a user's list of synonyms, one group per line, separated by commas, and applies it.

    heart attack, myocardial infarction, MI
    心梗，心肌梗死

Case is ignored, and only whole words match: `MI` is not found in `mild`. Chinese has no blanks, so
a group's characters match wherever they follow each other.
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

# Largest list: WordNet's 120,000 groups of English synonyms take less.
MOST_BYTES = 2**26
_PARTED = re.compile(r"[,，、;；\t]")

Key = tuple[str, ...]


@dataclass(frozen=True)
class Synonyms:
    """Groups of synonyms, ready to be looked up.

    Attributes:
        others: By the words of one entry, in lower case, the other entries of its group.
        lengths: By first word, the numbers of words of the entries that begin with it, longest
            first.
    """

    others: dict[Key, tuple[str, ...]]
    lengths: dict[str, tuple[int, ...]]

    def found(self, words: Sequence[str], joined: Sequence[bool]) -> list[tuple[int, int]]:
        """Returns where entries of the list occur, each as its first place and the one after its
        last.

        Args:
            words: A text's words.
            joined: For each word, whether only blanks are between it and the next.
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
        """Returns the replacements in their order; None: the text has no entry of the list.

        Args:
            words: A text's words.
            joined: For each word, whether only blanks are between it and the next.
            share: Number of replacements over the number of words.
            random: The generator.
            single: Whether one word is replaced by one word only, so that their number stays.
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
        found = sorted((s, e, _cased(random.choice(o), words[s])) for s, e, o in taken)
        # In a text of capitals only, the new words have no other letters.
        is_loud = len(words) > 1 and all(word == word.upper() for word in words)
        return [(s, e, new.upper()) for s, e, new in found] if is_loud else found


def _cased(new: str, old: str) -> str:
    """Returns the new word with a capital letter where the old one has one."""
    return new[:1].upper() + new[1:] if old[:1].isupper() and new.islower() else new


def read_synonyms(path: Path) -> Synonyms:
    """Reads a list of synonyms (UTF-8).

    Raises:
        DataError: The file is missing, too large or not UTF-8, or a line has fewer than two words.
        UsageError: It has no group.
    """
    if (why := why_no_file(path)) is not None:
        raise DataError(f"{path}: {why}; correct the path in --synonyms")
    if path.stat().st_size > MOST_BYTES:
        raise DataError(f"{path}: more than {MOST_BYTES >> 20} MiB; give a shorter list")
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8; save the file as UTF-8") from error
    return synonyms_of(lines, path)


def synonyms_of(lines: Sequence[str], path: Path) -> Synonyms:
    """Parses the lines of a list of synonyms; see `read_synonyms`.

    Args:
        lines: The lines of the file.
        path: The file, for messages.
    """
    others: dict[Key, dict[str, None]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        group = list(dict.fromkeys(word.strip() for word in _PARTED.split(line) if word.strip()))
        keys = [tuple(w.casefold() for w in Words.of(word).words) for word in group]
        if len(group) < 2 or not all(keys):
            raise DataError(
                f"{path}, line {number}: two or more synonyms are needed, separated by commas; "
                "correct the line"
            )
        for word, key in zip(group, keys, strict=True):
            others.setdefault(key, {}).update(dict.fromkeys(o for o in group if o != word))
    if not others:
        raise UsageError(f"--synonyms: {path} has no group of words; write one group per line")
    lengths: dict[str, set[int]] = {}
    for key in others:
        lengths.setdefault(key[0], set()).add(len(key))
    return Synonyms(
        {key: tuple(found) for key, found in others.items()},
        {first: tuple(sorted(found, reverse=True)) for first, found in lengths.items()},
    )
