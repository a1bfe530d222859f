"""A model's prediction for one input: a label, labels, a score, items, entities or a reply, by its
task.

No prediction repeats the whole input, which may be a private record: predictions are in the order
of the inputs. Entities and replies quote or answer what they were given, so files of them belong to
whoever owns the records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# Passages of one answer.
MOST_FOUND = 5


@dataclass(frozen=True)
class Classified:
    """The label of a text.

    Attributes:
        label: The most probable one.
        probabilities: By label, in 0…1; they sum to 1. They are the network's softmax and were not
            calibrated.
        is_cut: Whether the text was longer than the study's `task.max_length`: what is beyond was
            not read.
    """

    label: str
    probabilities: Mapping[str, float]
    is_cut: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the prediction as a JSON object."""
        return {
            "label": self.label,
            "probabilities": dict(self.probabilities),
            "is_cut": self.is_cut,
        }


@dataclass(frozen=True)
class NearPassage:
    """A public passage that a query is compared with.

    Attributes:
        id: The study's name for it.
        text: What it says.
        similarity: Cosine of query and passage, in −1…1; no probability.
    """

    id: str
    text: str
    similarity: float


@dataclass(frozen=True)
class Retrieved:
    """The passages that answer a query best.

    Attributes:
        passages: The nearest first, at most `MOST_FOUND`.
        is_cut: Whether the query was longer than the study's `task.max_length`.
    """

    passages: tuple[NearPassage, ...]
    is_cut: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the prediction as a JSON object."""
        return {"passages": [asdict(one) for one in self.passages], "is_cut": self.is_cut}


@dataclass(frozen=True)
class Labelled:
    """The labels of a text, of which there may be none.

    Attributes:
        labels: Those whose probability is above 0.5, in the study's order.
        probabilities: By label, each by itself in 0…1. They are the network's sigmoid and were not
            calibrated.
        is_cut: Whether the text was longer than the study's `task.max_length`.
    """

    labels: tuple[str, ...]
    probabilities: Mapping[str, float]
    is_cut: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the prediction as a JSON object."""
        return {
            "labels": list(self.labels),
            "probabilities": dict(self.probabilities),
            "is_cut": self.is_cut,
        }


@dataclass(frozen=True)
class Scored:
    """The score of a text.

    Attributes:
        score: Within the study's `task.score_range`.
        grade: The nearest grade, where the study's scale has steps; else None.
        is_cut: Whether the text was longer than the study's `task.max_length`.
    """

    score: float
    grade: float | None
    is_cut: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the prediction as a JSON object."""
        return {"score": self.score, "grade": self.grade, "is_cut": self.is_cut}


@dataclass(frozen=True)
class RankedItem:
    """One item of a list that is shown to a person.

    Attributes:
        item: Its id.
        score: The model's, of any sign; the higher, the sooner it comes.
    """

    item: str
    score: float


@dataclass(frozen=True)
class Ranked:
    """What a person may take next.

    Attributes:
        items: The best first; none that the person has.
        is_cut: Whether the texts of the person's last items were longer than `task.max_length`.
    """

    items: tuple[RankedItem, ...]
    is_cut: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the prediction as a JSON object."""
        ranked = [{"item": one.item, "score": one.score} for one in self.items]
        return {"items": ranked, "is_cut": self.is_cut}


@dataclass(frozen=True)
class Entity:
    """One entity in a sentence.

    Attributes:
        type: Its type.
        text: Its characters.
        first_word: Its first word, counted from 0.
        end_word: The word after its last.
        start: Its first character. Of a list of words, the characters are those of the words
            joined by one space each.
        end: The character after its last.
        probability: Mean probability of its words' tags, in 0…1.
    """

    type: str
    text: str
    first_word: int
    end_word: int
    start: int
    end: int
    probability: float

    def to_json(self) -> dict[str, Any]:
        """Returns the prediction as a JSON object."""
        return {
            "type": self.type,
            "text": self.text,
            "words": [self.first_word, self.end_word],
            "characters": [self.start, self.end],
            "probability": self.probability,
        }


@dataclass(frozen=True)
class Tagged:
    """The entities of a sentence.

    Attributes:
        entities: In order.
        tags: One a word, in BIO; O for a word that was cut.
        is_cut: Whether the sentence was longer than `task.max_length`.
    """

    entities: tuple[Entity, ...]
    tags: tuple[str, ...]
    is_cut: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the prediction as a JSON object."""
        return {
            "entities": [entity.to_json() for entity in self.entities],
            "tags": list(self.tags),
            "is_cut": self.is_cut,
        }


@dataclass(frozen=True)
class Replied:
    """The reply to a conversation.

    Attributes:
        reply: Greedily decoded: the same each time.
        is_cut: Whether the conversation was longer than what fits before a reply; its latest tokens
            were read.
    """

    reply: str
    is_cut: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the prediction as a JSON object."""
        return {"reply": self.reply, "is_cut": self.is_cut}


Prediction = Classified | Labelled | Scored | Ranked | Retrieved | Tagged | Replied
