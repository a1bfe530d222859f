"""The kinds of record that tasks train on; each is one row of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

RecordKind = Literal["text", "pairs", "tokens", "messages", "labels", "score", "items"]
# Records with one label.
ONE_LABEL: frozenset[RecordKind] = frozenset({"text", "pairs"})
# Records with one text.
ONE_TEXT: frozenset[RecordKind] = frozenset({"text", "labels", "score"})
# Records for which the network computes one vector; the head turns it into one row of outputs.
POOLED: frozenset[RecordKind] = ONE_LABEL | ONE_TEXT | {"items"}
Role = Literal["system", "developer", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class TextRecord:
    """A text with one label, for classification and retrieval."""

    text: str
    label: str
    site: str | None = None
    person: str | None = None
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class PairRecord(TextRecord):
    """Two texts, in their order, with one label: whether the first entails or answers the second.

    Attributes:
        text_b: The second text.
    """

    text_b: str = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A sentence as a list of words, with one BIO tag per word."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    site: str | None = None
    person: str | None = None
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class ChatRecord:
    """A conversation with at least one turn of the assistant; or a text that is learnt as a whole.

    Attributes:
        messages: Its turns; empty if it is a text.
        site: The site that has it.
        person: The person that it is about.
        text: A text in place of turns.
        rejected: For a preference, the turns to which `messages` are preferred.
        unit: The value that all rows of one record share (`cloister.data.unit_column`).
    """

    messages: tuple[Message, ...]
    site: str | None = None
    person: str | None = None
    text: str | None = None
    rejected: tuple[Message, ...] | None = None
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class LabelsRecord:
    """A text with any number of labels, also none; no label is repeated."""

    text: str
    labels: tuple[str, ...]
    site: str | None = None
    person: str | None = None
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class ScoreRecord:
    """A text with a finite number."""

    text: str
    score: float
    site: str | None = None
    person: str | None = None
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class ItemsRecord:
    """The items of a public catalogue that one person had, oldest first.

    Attributes:
        items: Ids of at least one item, in order of time.
    """

    items: tuple[str, ...]
    site: str | None = None
    person: str | None = None
    unit: str | None = None


Record = TextRecord | TokenRecord | ChatRecord | LabelsRecord | ScoreRecord | ItemsRecord
Records = Sequence[Record]
