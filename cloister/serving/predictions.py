"""Predictions for one input, by task: label, labels, score, passages, items, entities or a reply.

No prediction contains its whole input, which may be a private record; predictions are in the order
of the inputs. Entities and replies may quote their input, so treat files of them like the records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# Most passages of one prediction.
MOST_FOUND = 5


@dataclass(frozen=True)
class MovedWord:
    """How far a word moved an answer (`serving.word_reasons`).

    Attributes:
        text: Which text it is in: 0, or 1 for the second of a pair.
        start: Position of its first character.
        end: Position after its last character.
        moved: By how much it raised the log-odds of the most probable label, or the score; below 0
            if it lowered them.
    """

    text: int
    start: int
    end: int
    moved: float

    def to_json(self) -> dict[str, Any]:
        """Returns the word as a JSON object."""
        return {"text": self.text, "characters": [self.start, self.end], "moved": self.moved}


# The words of a text, in order; None: they were not asked for.
Words = tuple[MovedWord, ...] | None


def _and_why(told: dict[str, Any], because: Words) -> dict[str, Any]:
    return told if because is None else {**told, "because": [one.to_json() for one in because]}


@dataclass(frozen=True)
class Classified:
    """A classifier's prediction for a text: its most probable label.

    Attributes:
        label: The most probable label.
        probabilities: By label, from 0 to 1; they sum to 1. They are the network's softmax and are
            not calibrated.
        is_cut: Whether the text was longer than the study's `task.max_length`, so that its end was
            not read.
        because: How far each word moved the answer.
    """

    label: str
    probabilities: Mapping[str, float]
    is_cut: bool
    because: Words = None

    def to_json(self) -> dict[str, Any]:
        """Returns the prediction as a JSON object."""
        told = {
            "label": self.label,
            "probabilities": dict(self.probabilities),
            "is_cut": self.is_cut,
        }
        return _and_why(told, self.because)


@dataclass(frozen=True)
class NearPassage:
    """A public passage that a query is compared with.

    Attributes:
        id: The passage's id in the study.
        text: The passage's text.
        similarity: Cosine of query and passage, from −1 to 1; it is not a probability.
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
        labels: The labels whose probability is above 0.5, in the study's order.
        probabilities: By label, each from 0 to 1; they need not sum to 1. They are the network's
            sigmoid and are not calibrated.
        is_cut: Whether the text was longer than the study's `task.max_length`.
        because: How far each word moved the most probable label.
    """

    labels: tuple[str, ...]
    probabilities: Mapping[str, float]
    is_cut: bool
    because: Words = None

    def to_json(self) -> dict[str, Any]:
        """Returns the prediction as a JSON object."""
        told = {
            "labels": list(self.labels),
            "probabilities": dict(self.probabilities),
            "is_cut": self.is_cut,
        }
        return _and_why(told, self.because)


@dataclass(frozen=True)
class Scored:
    """A scoring model's prediction for a text.

    Attributes:
        score: Within the study's `task.score_range`.
        grade: The nearest grade if the study's scale has steps, otherwise None.
        is_cut: Whether the text was longer than the study's `task.max_length`.
        because: How far each word moved the score.
    """

    score: float
    grade: float | None
    is_cut: bool
    because: Words = None

    def to_json(self) -> dict[str, Any]:
        """Returns the prediction as a JSON object."""
        told = {"score": self.score, "grade": self.grade, "is_cut": self.is_cut}
        return _and_why(told, self.because)


@dataclass(frozen=True)
class Because:
    """Why an item is recommended: the item of the person that moved it most.

    Attributes:
        item: The id of one of the person's items.
        moved: By how much it raised the log probability of the recommended item
            (`serving.reasons`); above 0.
    """

    item: str
    moved: float


@dataclass(frozen=True)
class RankedItem:
    """One item of a recommendation.

    Attributes:
        item: The item's id.
        score: The model's score, of any sign; a higher score means a better place in the list.
        because: Why; None: it was not asked for, or no item of the person speaks for it.
    """

    item: str
    score: float
    because: Because | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the item as a JSON object."""
        told: dict[str, Any] = {"item": self.item, "score": self.score}
        if self.because is not None:
            told["because"] = {"item": self.because.item, "moved": self.because.moved}
        return told


@dataclass(frozen=True)
class Ranked:
    """The recommended items for a person.

    Attributes:
        items: The best first, without items that the person has already.
        is_cut: Whether the texts of the person's last items were longer than `task.max_length`.
    """

    items: tuple[RankedItem, ...]
    is_cut: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the prediction as a JSON object."""
        return {"items": [one.to_json() for one in self.items], "is_cut": self.is_cut}


@dataclass(frozen=True)
class Entity:
    """One entity in a sentence.

    Attributes:
        type: Its type.
        text: Its characters.
        first_word: Index of its first word, from 0.
        end_word: Index after its last word.
        start: Position of its first character. If the input was a list of words, positions are
            those in the words joined by single spaces.
        end: Position after its last character.
        probability: Mean probability of its words' tags, from 0 to 1.
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
        tags: One tag for each word, in BIO; O for a word that was cut off.
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
        reply: The reply, decoded greedily, so it is the same each time.
        is_cut: Whether the conversation was too long, so that only its last tokens were read.
    """

    reply: str
    is_cut: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the prediction as a JSON object."""
        return {"reply": self.reply, "is_cut": self.is_cut}


Prediction = Classified | Labelled | Scored | Ranked | Retrieved | Tagged | Replied
