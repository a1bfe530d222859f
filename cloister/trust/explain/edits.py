"""Edits an input and asks the model again, to find edits that change its answer.

Each word is left out by itself, each negation is added or removed, each number is changed. If no
single deletion changes the answer, words are left out one after another, in the order of an
attribution, until the answer changes or half of the words are gone. The result is a counterfactual
explanation: a similar input with another answer (Wachter et al. 2018, arXiv:1711.00399).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from cloister.data.records import ChatRecord, Message
from cloister.serving.inputs import Input, as_chat, as_pair, as_plain_text, as_sentence
from cloister.serving.model import Model
from cloister.serving.predictions import Prediction, Replied, Tagged
from cloister.serving.word_spans import spans_in
from cloister.tasks.chat import CausalChat
from cloister.tasks.pairs import TextPairs
from cloister.tasks.scoring import Scoring
from cloister.tasks.token import TokenClassification
from cloister.trust.answers import answer_of
from cloister.trust.negation import with_negation, without_negation

# Most edits of one kind that are tried for an input; a chat model generates a reply for each.
MOST_EDITS, MOST_REPLIES = 128, 4
DELETION, SEVERAL = "word deletion", "several words deleted"
NEGATION, NUMBER = "negation", "number change"
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_ENGLISH = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_ENGLISH_NUMBER = re.compile(rf"\b(?:{'|'.join(_ENGLISH)})\b", re.I)


@dataclass(frozen=True)
class Edit:
    """An edited input, and how it was edited.

    Attributes:
        kind: `DELETION`, `SEVERAL`, `NEGATION` or `NUMBER`.
        what: The words that were left out, or the text after the edit.
        given: The edited input.
    """

    kind: str
    what: str
    given: Input


@dataclass(frozen=True)
class Probed:
    """The effect of the edits on an answer.

    Attributes:
        tried: Number of edits that were tried, by kind.
        flips: Edits that changed the answer, each with the new answer.
    """

    tried: dict[str, int]
    flips: tuple[tuple[Edit, str], ...]


def probe_edits(
    model: Model, given: Input, prediction: Prediction, order: Sequence[str] | None
) -> Probed:
    """Asks the model about edited inputs.

    Args:
        model: The finished model.
        given: The original input.
        prediction: The model's answer to it.
        order: Texts of pieces, the most important first; None: no several words are left out.
    """
    task = model.workspace.task
    scale = task.scale if isinstance(task, Scoring) else None
    most = MOST_REPLIES if isinstance(prediction, Replied) else MOST_EDITS
    edits: list[Edit] = []
    for kind, found in _edits(model, given, prediction):
        edits += [Edit(kind, what, new) for what, new in _first(found, most)]
    answer = answer_of(prediction, scale)
    answers = [answer_of(one, scale) for one in model.predict([e.given for e in edits])]
    flips = [(e, new) for e, new in zip(edits, answers, strict=True) if new != answer]
    tried = {kind: sum(e.kind == kind for e in edits) for kind in (DELETION, NEGATION, NUMBER)}
    is_one_text = isinstance(given, str) and not isinstance(prediction, Tagged | Replied)
    if order and is_one_text and not any(e.kind == DELETION for e, _ in flips):
        several = list(_several(as_plain_text(given, 1), order))
        tried[SEVERAL] = len(several)
        after = [answer_of(one, scale) for one in model.predict([e.given for e in several])]
        flips += [(e, new) for e, new in zip(several, after, strict=True) if new != answer][:1]
    return Probed(tried, tuple(flips))


def _first(found: Iterator[tuple[str, Input]], most: int) -> list[tuple[str, Input]]:
    return [pair for pair, _ in zip(found, range(most), strict=False)]


def _edits(
    model: Model, given: Input, prediction: Prediction
) -> Iterator[tuple[str, Iterator[tuple[str, Input]]]]:
    """Yields the kind of each edit, what it changes, and the changed input."""
    for text, rebuilt, spans in _parts(model, given, prediction):
        yield DELETION, ((text[a:b], rebuilt(_without(text, a, b))) for a, b in spans)
        negated = [*without_negation(text), *with_negation(text)]
        yield NEGATION, ((new, rebuilt(new)) for new in negated)
        yield NUMBER, ((new, rebuilt(new)) for new in with_other_numbers(text))


def _parts(model: Model, given: Input, prediction: Prediction) -> Iterator[tuple]:  # type: ignore[type-arg]
    """Yields each text of an input, a function that puts a new text in its place, and its spans."""
    task = model.workspace.task
    if isinstance(task, CausalChat):
        record = as_chat(given, 1)
        last = max(i for i, one in enumerate(record.messages) if one.role != "assistant")
        text = record.messages[last].content
        yield text, lambda new: _turns(record, last, new), _spans(text)
    elif isinstance(task, TextPairs):
        first, second = as_pair(given, 1)
        yield first, lambda new: (new, second), _spans(first)
        yield second, lambda new: (first, new), _spans(second)
    elif isinstance(task, TokenClassification):
        assert isinstance(prediction, Tagged)
        sentence = as_sentence(given, 1)
        held = {w for e in prediction.entities for w in range(e.first_word, e.end_word)}
        spans = [span for word, span in enumerate(sentence.spans) if word not in held]
        yield sentence.text, str, spans if len(sentence.words) > 1 else []
    else:
        text = as_plain_text(given, 1)
        yield text, str, _spans(text)


def _turns(record: ChatRecord, place: int, new: str) -> tuple[Message, ...]:
    turns = list(record.messages)
    turns[place] = replace(turns[place], content=new)
    return tuple(turns)


def _spans(text: str) -> list[tuple[int, int]]:
    """Returns the words' spans, without marks; none if there is only one word, which must stay."""
    spans = [(a, b) for a, b in spans_in(text) if text[a:b][0].isalnum()]
    return spans if len(spans) > 1 else []


def _without(text: str, start: int, end: int) -> str:
    before, after = text[:start], text[end:]
    return (before.rstrip() if after[:1].isspace() or not after else before) + after


def with_other_numbers(text: str) -> list[str]:
    """Returns texts with one number changed.

    A number in digits gives two texts: ten times as large, and with another first digit. A number
    in words gives one text, with the next number.
    """
    found = []
    for match in _NUMBER.finditer(text):
        first = str(int(match[0][0]) % 9 + 1)
        for new in (f"{match[0]}0", first + match[0][1:]):
            found.append(text[: match.start()] + new + text[match.end() :])
    for match in _ENGLISH_NUMBER.finditer(text):
        new = _ENGLISH[(_ENGLISH.index(match[0].lower()) + 1) % len(_ENGLISH)]
        found.append(text[: match.start()] + new + text[match.end() :])
    return found


def _several(text: str, order: Sequence[str]) -> Iterator[Edit]:
    """Yields the text without its two most important words, three, and so on, up to half."""
    spans = _spans(text)
    left, gone = list(spans), []
    for word in order:
        place = next((s for s in left if text[s[0] : s[1]] == word), None)
        if place is None:
            continue
        left.remove(place)
        gone.append(place)
        if len(gone) * 2 > len(spans):
            return
        if len(gone) > 1:
            new = text
            for start, end in sorted(gone, reverse=True):
                new = _without(new, start, end)
            yield Edit(SEVERAL, ", ".join(text[a:b] for a, b in gone), new)


def importance_order(texts: Sequence[str], values: torch.Tensor) -> list[str]:
    """Returns the texts of pieces, the one with the largest value first."""
    return [texts[place] for place in torch.argsort(values, descending=True).tolist()]
