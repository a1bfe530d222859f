"""Chooses, by the task, which figure of which answer is explained.

The figure is, for a label, its log-odds log p/(1 − p); for one of several labels, its logit; for a
score, the score; for an entity, the mean log-odds of its words' tags; for a passage, its
similarity; for a recommended item, its log-odds among the items that are new to the person, whose
own items are the pieces; for a reply, the mean log-likelihood of its tokens. Each answer has its
own reading: an input with two entities has two.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cloister.data.records import PairRecord, TokenRecord
from cloister.models.network import Network
from cloister.serving.inputs import (
    Input,
    as_chat,
    as_items,
    as_pair,
    as_plain_text,
    as_sentence,
)
from cloister.serving.model import Model
from cloister.serving.predictions import (
    Classified,
    Labelled,
    Prediction,
    Ranked,
    Replied,
    Retrieved,
    Scored,
    Tagged,
)
from cloister.serving.word_spans import spans_in
from cloister.tasks.bare_text import encode_bare
from cloister.tasks.chat import CausalChat
from cloister.tasks.cut import cut_text
from cloister.tasks.pairs import TextPairs
from cloister.tasks.recommendation import BETWEEN, Recommendation
from cloister.tasks.scoring import Scoring
from cloister.tasks.sequence import SequenceClassification
from cloister.tasks.task import IGNORE, Example
from cloister.tasks.token import TokenClassification
from cloister.tasks.words import as_text
from cloister.trust.explain.pieces import Piece, pieces_of
from cloister.trust.explain.reading import (
    Figure,
    ModelReading,
    blanked,
    embedded_logits,
    embeddings_of,
)


def readings_of(model: Model, given: Input, prediction: Prediction) -> list[ModelReading]:
    """Returns the readings of one input's prediction.

    Args:
        model: The finished model.
        given: The input.
        prediction: The model's answer.

    Returns:
        One reading for each answer; empty if there is none, as in a sentence without entities.
    """
    task = model.workspace.task
    if isinstance(task, CausalChat):
        assert isinstance(prediction, Replied)
        return _of_reply(model, task, given, prediction)
    if isinstance(task, TokenClassification):
        assert isinstance(prediction, Tagged)
        return _of_entities(model, task, given, prediction)
    if isinstance(task, Recommendation):
        assert isinstance(prediction, Ranked)
        return _of_list(model, task, given, prediction)
    example, pieces = _encoded(model, given)
    if isinstance(prediction, Labelled):
        nearest = max(prediction.probabilities.items(), key=lambda pair: pair[1])[0]
        answers = {name: name for name in prediction.labels} or {nearest: f"none ({nearest}?)"}
        return [
            _reading(
                model,
                example,
                pieces,
                _output(task.labels.index(name)),
                torch.sigmoid,
                (answer, "log-odds of the label", answer),
            )
            for name, answer in answers.items()
        ]
    if isinstance(prediction, Scored):
        assert isinstance(task, Scoring)
        low, high = task.scale.low, task.scale.high
        score: Figure = lambda logits: low + (high - low) * logits[:, 0].sigmoid()  # noqa: E731
        share: Figure = lambda scores: (scores - low) / (high - low)  # noqa: E731
        words = (f"{prediction.score:.3g}", f"score from {low:g} to {high:g}", "score")
        return [_reading(model, example, pieces, score, share, words)]
    if isinstance(prediction, Retrieved):
        found = prediction.passages[0].id
        output = _output(task.labels.index(found))
        words = (found, "similarity to the passage", found)
        return [_reading(model, example, pieces, output, lambda cosines: (cosines + 1) / 2, words)]
    assert isinstance(prediction, Classified)
    place = task.labels.index(prediction.label)
    words = (prediction.label, "log-odds of the label", prediction.label)
    odds: Figure = lambda logits: log_odds(logits, place)  # noqa: E731
    return [_reading(model, example, pieces, odds, torch.sigmoid, words)]


def log_odds(logits: Tensor, place: int) -> Tensor:
    """Returns the log-odds log p/(1 − p) of one output's softmax, from logits [..., C]: [...]."""
    others = [other for other in range(logits.shape[-1]) if other != place]
    return logits[..., place] - logits[..., others].logsumexp(dim=-1)


def _output(place: int) -> Figure:
    return lambda logits: logits[:, place]


def _encoded(model: Model, given: Input) -> tuple[Example, tuple[Piece, ...]]:
    """Encodes one or two texts, and returns their pieces too."""
    workspace = model.workspace
    task, tokenizer = workspace.task, workspace.tokenizer
    if isinstance(task, TextPairs):
        first, second = as_pair(given, 1)
        example = workspace.encode([PairRecord(first, task.labels[0], text_b=second)])[0]
        texts = [first, task.before + second]
        skipped, kept = 0, len(first)
    else:
        text = as_plain_text(given, 1)
        example = encode_bare(task, text)
        prompt = task.prompt if isinstance(task, SequenceClassification) else None
        texts = [text if prompt is None else prompt.around(text)]
        skipped = 0 if prompt is None else len(prompt.before)
        kept = len(text)
    encoded = None
    if tokenizer.is_fast:
        encoded = tokenizer(
            *texts,
            truncation="longest_first" if len(texts) == 2 else True,
            max_length=task.max_length,
            return_offsets_mapping=True,
        )
    spans = [spans_in(one) for one in texts]
    spans[0] = [(a, b) for a, b in spans[0] if skipped <= a and b <= skipped + kept]
    return example, pieces_of(tokenizer, example.input_ids, encoded, texts, spans)


def _of_list(
    model: Model, task: Recommendation, given: Input, prediction: Ranked
) -> list[ModelReading]:
    """Returns the reading of the first item; each of the person's items is a piece."""
    if not prediction.items:
        return []
    items = as_items(given, 1)
    example, places = task.history(items), task.known(items)
    read = [task.catalogue.texts[place] for place in reversed(places[-task.last :])]
    text = cut_text(BETWEEN.join(read), task.max_length)
    starts = [sum(len(one) + len(BETWEEN) for one in read[:n]) for n in range(len(read))]
    spans = [(a, min(a + len(one), len(text))) for a, one in zip(starts, read, strict=True)]
    spans = [span for span in spans if span[0] < span[1]]
    tokenizer = model.workspace.tokenizer
    encoded = None
    if tokenizer.is_fast:
        encoded = tokenizer(
            text, truncation=True, max_length=task.max_length, return_offsets_mapping=True
        )
    pieces = pieces_of(tokenizer, example.input_ids, encoded, [text], [spans])
    best = task.places[prediction.items[0].item]
    seen = list(example.seen)

    def figure(logits: Tensor) -> Tensor:
        had = torch.zeros(logits.shape[-1], dtype=torch.bool)
        had[seen] = True
        return log_odds(logits.masked_fill(had, -torch.inf), best)

    answer = f"{prediction.items[0].item}: {task.catalogue.texts[best]}"
    about = (answer, "log-odds among items that are new to the person", "recommendations")
    return [_reading(model, example, pieces, figure, torch.sigmoid, about)]


def _of_entities(
    model: Model, task: TokenClassification, given: Input, prediction: Tagged
) -> list[ModelReading]:
    sentence = as_sentence(given, 1)
    record = TokenRecord(sentence.words, ("O",) * len(sentence.words))
    example = model.workspace.encode([record])[0]
    assert isinstance(example.target, tuple)
    firsts = [place for place, target in enumerate(example.target) if target != IGNORE]
    at = dict(zip(example.words, firsts, strict=True))
    text, spans = as_text(sentence.words)
    encoded = model.workspace.tokenizer(
        text, truncation=True, max_length=task.max_length, return_offsets_mapping=True
    )
    pieces = pieces_of(model.workspace.tokenizer, example.input_ids, encoded, [text], [spans])
    found = []
    for entity in prediction.entities:
        words = range(entity.first_word, entity.end_word)
        read = [(at[w], task.labels.index(prediction.tags[w])) for w in words if w in at]
        weights = torch.zeros(len(example.input_ids))
        weights[[place for place, _ in read]] = 1 / len(read)

        def figure(logits: Tensor, read: Sequence[tuple[int, int]] = read) -> Tensor:
            each = [log_odds(logits[:, place], output) for place, output in read]
            return torch.stack(each).mean(dim=0)

        answer = f"{entity.type}: {entity.text}"
        about = (answer, "mean log-odds of the entity's tags", entity.type)
        found.append(_reading(model, example, pieces, figure, torch.sigmoid, about, weights))
    return found


def _of_reply(
    model: Model, task: CausalChat, given: Input, prediction: Replied
) -> list[ModelReading]:
    record, tokenizer = as_chat(given, 1), model.workspace.tokenizer
    prompt = task.prompt(record)
    reply = tuple(tokenizer(prediction.reply, add_special_tokens=False)["input_ids"])
    if not reply:
        return []
    text = task.prompt_text(record)
    encoded = tokenizer(text, add_special_tokens=task.frames, return_offsets_mapping=True)
    spans = _contents(text, [one.content for one in record.messages])
    # A prompt that was cut keeps its last tokens, so offsets do not fit it: tokens are its pieces.
    pieces = pieces_of(tokenizer, prompt, encoded, [text], [spans])
    example = Example((*prompt, *reply), 0)
    first = len(prompt)
    weights = torch.zeros(first + len(reply))
    weights[first - 1 : first + len(reply) - 1] = 1 / len(reply)

    def figure(logits: Tensor) -> Tensor:
        shares = logits[:, first - 1 : -1].float().log_softmax(dim=-1)
        return shares.gather(2, torch.tensor(reply).expand(len(logits), -1)[:, :, None]).mean(
            dim=(1, 2)
        )

    about = (prediction.reply, "mean log-likelihood of the reply's tokens", "replies")
    return [_reading(model, example, pieces, figure, torch.exp, about, weights)]


def _contents(text: str, contents: Sequence[str]) -> list[tuple[int, int]]:
    """Returns the spans of the turns' pieces in a rendered conversation.

    If no turn is found, as with a template that rewrites turns, all pieces are returned.
    """
    inside: list[tuple[int, int]] = []
    place = 0
    for content in contents[:-1]:
        start = text.find(content.strip(), place)
        if start >= 0:
            place = start + len(content.strip())
            inside.append((start, place))
    spans = spans_in(text)
    kept = [(a, b) for a, b in spans if any(first <= a and b <= end for first, end in inside)]
    return kept or spans


def _reading(
    model: Model,
    example: Example,
    pieces: tuple[Piece, ...],
    figure: Figure,
    share: Figure,
    about: tuple[str, str, str],
    read_at: Tensor | None = None,
) -> ModelReading:
    """Makes a reading whose figure is a function of the network's logits.

    `about` has the answer, the figure's name, and the answer's group.
    """
    network, workspace = model.workspace.network, model.workspace
    ids = torch.tensor(example.input_ids)
    inputs = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None]}
    if example.segments and network.tells_segments:
        inputs["token_type_ids"] = torch.tensor(example.segments)[None]
    embedded = embeddings_of(network, ids)
    logits = embedded_logits(network, inputs)
    mask_id = workspace.tokenizer.mask_token_id
    blank_id = workspace.pad_id if mask_id is None else mask_id
    return ModelReading(
        answer=about[0],
        name=about[1],
        group=about[2],
        pieces=pieces,
        embedded=embedded,
        blank=blanked(network, ids, embedded, pieces, blank_id),
        figure=lambda embeddings: figure(logits(embeddings)),
        share=share,
        read_at=_pooled_at(network, len(ids)) if read_at is None else read_at,
        inputs=inputs,
    )


def _pooled_at(network: Network, length: int) -> Tensor:
    """Returns each token's part in a sequence's vector, [T]."""
    weights = torch.zeros(length)
    mode = None if network.pooling is None else network.pooling.mode
    if mode == "mean":
        weights[:] = 1 / length
    else:
        weights[-1 if mode == "last" else 0] = 1
    return weights
