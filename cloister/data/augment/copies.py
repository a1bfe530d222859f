"""Makes the copies of one row, by methods that change its text and keep its label correct."""

from __future__ import annotations

import hashlib
import hmac
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from cloister.data.augment.methods import dropped, mistyped, swapped
from cloister.data.augment.synonyms import Synonyms
from cloister.data.augment.words import Words
from cloister.data.outputs import json_text
from cloister.data.roles import Roles
from cloister.data.values import Row, Value

Method = Literal["drop", "swap", "typos", "synonyms", "paraphrase"]
METHODS: tuple[Method, ...] = get_args(Method)
# Paraphrases a text, with a seed; None: it found no paraphrase.
Paraphrase = Callable[[str, int], str | None]
# Attempts before a row counts as having no further copy: a short text has few different ones.
TRIES = 4
# Columns in which a person asks, in the forms of a conversation. Replies are learnt: no change.
_ASKED = ("prompt", "instruction")
_TURNS = ("conversations", "prompt")
# The asking speaker's names, and the keys of a turn that hold speaker and text (`chat_rows`).
_ASKERS = ("user", "human")
_TURN_KEYS = (("role", "content"), ("from", "value"))
# The tag of a word outside of any entity.
_OUTSIDE = "O"


@dataclass(frozen=True, kw_only=True)
class Variation:
    """The settings with which copies are made.

    Attributes:
        how: The methods; each copy is made by one of them.
        share: Share of a text's words that a method changes.
        seed: Any text; equal rows and an equal seed give equal copies.
        synonyms: The list of words for the method `synonyms`.
        paraphrase: The function for the method `paraphrase`.
    """

    how: Sequence[Method]
    share: float
    seed: str
    synonyms: Synonyms | None = None
    paraphrase: Paraphrase | None = None

    def unit_of(self, row: Row, same_before: int) -> str:
        """Returns the unit's name that a row and its copies share, and no other row has.

        It depends on the row and on the number of equal rows before it, not on its place in the
        file: adding or removing another row changes no unit of a different row. Without the seed
        it cannot be computed from the row.

        Args:
            row: Values by column.
            same_before: Rows before it that are equal to it in every column.
        """
        return f"u{self._keyed('unit', row, same_before).hexdigest()[:32]}"

    def copies(self, row: Row, roles: Roles, count: int) -> list[tuple[Method, Row]]:
        """Returns copies of a row, all different, each with the method that made it.

        Args:
            row: Values by column.
            roles: The role of each column.
            count: How many copies; fewer are returned if no more different ones are found.

        Guarantees:
            They are a function of the row and of the settings for all rows, so adding or removing
            another row changes none of them.
        """
        seed = int.from_bytes(self._keyed("copies", row, 0).digest(), "big")
        random = Random(seed)
        seen, found = {json_text(row)}, []
        methods = random.sample(list(self.how), len(self.how))
        for number in range(count):
            first = number % len(methods)  # so that every method is used
            for method in [*methods[first:], *methods[:first]] * TRIES:
                new = self._varied(method, row, roles, random)
                text = None if new is None else json_text(new)
                if new is not None and text is not None and text not in seen:
                    seen.add(text)
                    found.append((method, new))
                    break
            else:
                break
        return found

    def _keyed(self, purpose: str, row: Row, number: int) -> hmac.HMAC:
        content = f"{purpose}\x1f{number}\x1f{json_text(row)}"
        # Damaged files hold lone surrogates; hash them as they are instead of failing.
        parts = [text.encode("utf-8", "surrogatepass") for text in (self.seed, content)]
        return hmac.new(parts[0], parts[1], hashlib.sha256)

    def _varied(self, method: Method, row: Row, roles: Roles, random: Random) -> Row | None:
        """Returns the row with changed words; None: the method changes nothing in it."""
        if roles.kind == "tokens":
            return self._sentence(method, row, roles, random)
        if roles.kind == "text":
            column = roles.text or "text"
            text = self._text(method, row.get(column), random)
            return None if text is None else {**row, column: text}
        return self._conversation(method, row, roles, random)

    def _text(self, method: Method, value: Value, random: Random) -> str | None:
        if not isinstance(value, str) or not value.strip():
            return None
        if method == "paraphrase":
            assert self.paraphrase is not None
            return self.paraphrase(value, random.getrandbits(63))
        text = Words.of(value)
        words, joined = text.words, [text.joined(place) for place in range(len(text.words))]
        if method == "drop":
            gone = dropped(words, [True] * len(words), self.share, random)
            return None if gone is None else str(text.without(gone)).strip() or None
        if method == "synonyms":
            assert self.synonyms is not None
            replaced = self.synonyms.replaced(words, joined, self.share, random)
            return None if replaced is None else _with(text, replaced)
        new = (
            swapped(words, joined, self.share, random)
            if method == "swap"
            else mistyped(words, self.share, random)
        )
        return None if new is None else str(Words(tuple(new), text.gaps))

    def _sentence(self, method: Method, row: Row, roles: Roles, random: Random) -> Row | None:
        """Returns a changed sentence in which each word keeps its tag.

        Only words outside of entities, with neighbours outside of entities, are removed or moved:
        so no entity loses a word and no two entities merge.
        """
        columns = (roles.tokens or "tokens", roles.tags or "tags")
        words, tags = (_texts(row.get(column)) for column in columns)
        if not words or len(words) != len(tags):
            return None
        outside = [tag == _OUTSIDE for tag in tags]
        if method == "drop":
            edged = [True, *outside, True]
            inner = [all(edged[place : place + 3]) for place in range(len(words))]
            gone = dropped(words, inner, self.share, random)
            kept = [place for place in range(len(words)) if gone and place not in gone]
            new, tags = [words[place] for place in kept], [tags[place] for place in kept]
        elif method == "swap":
            free = [a and b for a, b in itertools.pairwise(outside)]
            new = swapped(words, free, self.share, random) or []
        elif method == "typos":
            new = mistyped(words, self.share, random) or []
        elif method == "synonyms":
            assert self.synonyms is not None
            new = list(words)
            joined = [True] * len(words)
            pairs = self.synonyms.replaced(words, joined, self.share, random, single=True)
            for place, _, word in pairs or []:
                new[place] = word
        else:
            return None  # new words would need new tags
        return {**row, columns[0]: list(new), columns[1]: list(tags)} if new else None

    def _conversation(self, method: Method, row: Row, roles: Roles, random: Random) -> Row | None:
        """Returns the conversation with changed questions; replies are learnt, so they stay."""
        new = dict(row)
        turns = _TURNS if roles.messages is None else (roles.messages, *_TURNS)
        for column in dict.fromkeys((*turns, *_ASKED)):
            value = row.get(column)
            if isinstance(value, str) and column in _ASKED:
                new[column] = self._text(method, value, random) or value
            elif isinstance(value, Sequence) and not isinstance(value, str) and column in turns:
                new[column] = [self._turn(method, turn, random) for turn in value]
        return new if new != row else None

    def _turn(self, method: Method, turn: Value, random: Random) -> Value:
        if not isinstance(turn, Mapping):
            return turn
        for speaker, said in _TURN_KEYS:
            if turn.get(speaker) in _ASKERS and isinstance(turn.get(said), str):
                return {**turn, said: self._text(method, turn[said], random) or turn[said]}
        return turn


def _with(text: Words, replaced: Sequence[tuple[int, int, str]]) -> str:
    """Returns a text with some words replaced."""
    words: list[str] = []
    gaps: list[str] = []
    place = 0
    for start, end, new in replaced:
        words += [*text.words[place:start], new]
        gaps += text.gaps[place : start + 1]
        place = end
    words += text.words[place:]
    gaps += text.gaps[place:]
    return str(Words(tuple(words), tuple(gaps)))


def _texts(value: Value) -> list[str]:
    """Returns a value that is a list of texts; an empty list for any other value."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return []
    words = [word for word in value if isinstance(word, str)]
    return words if len(words) == len(value) else []
