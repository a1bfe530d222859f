"""Loads a finished adapter with its base and head, and predicts as the study's evaluation does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from cloister.data.records import PairRecord, TokenRecord
from cloister.errors import MisfitError, UsageError
from cloister.export.adapter_folder import (
    ReleaseFacts,
    adapter_folder,
    load_released,
    read_released,
)
from cloister.export.own_parts import check_whole
from cloister.models.config import BaseType
from cloister.models.limits import limits_of
from cloister.serving.inputs import (
    Input,
    Sentence,
    as_chat,
    as_items,
    as_pair,
    as_plain_text,
    as_sentence,
)
from cloister.serving.predictions import (
    MOST_FOUND,
    Classified,
    Entity,
    Labelled,
    NearPassage,
    Prediction,
    Ranked,
    RankedItem,
    Replied,
    Retrieved,
    Scored,
    Tagged,
)
from cloister.serving.reasons import reasoned
from cloister.serving.word_reasons import REASONED, texts_of, with_words
from cloister.tasks.bare_text import encode_bare
from cloister.tasks.chat import CausalChat
from cloister.tasks.cut import most_characters
from cloister.tasks.multilabel import THRESHOLD, MultiLabelClassification
from cloister.tasks.pairs import TextPairs
from cloister.tasks.ranking import SHOWN, without_seen
from cloister.tasks.recommendation import Recommendation
from cloister.tasks.retrieval import Retrieval
from cloister.tasks.scoring import Scoring
from cloister.tasks.sequence import SequenceClassification
from cloister.tasks.task import Example
from cloister.tasks.token import TokenClassification, by_word, spans_of
from cloister.tasks.words import as_text
from cloister.training.batches import physical_batches
from cloister.training.config import PLAIN_TOKENS
from cloister.training.generation import reply_room, reply_to
from cloister.training.units import singles
from cloister.training.workspace import Workspace

# Inputs that a stream predicts at a time, sorted by length: texts of usual length then fill a few
# batches.
STREAMED = 1024
# A reply takes about a second and is computed by itself, so each is yielded when it is ready.
REPLIED = 1
# Tasks whose input is one text, for which the network computes one row of outputs.
OneText = SequenceClassification | MultiLabelClassification | Scoring | Retrieval


@dataclass(frozen=True)
class Model:
    """Base, adapter and head on one device.

    Attributes:
        about: The facts stated in the adapter's folder: base, task, labels, columns.
        workspace: The loaded network, with the adapter in place.
        max_tokens: Most tokens of a batch, padding included.
    """

    about: ReleaseFacts
    workspace: Workspace
    max_tokens: int = PLAIN_TOKENS

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names or entity types; empty for a chat and for scores."""
        return self.about.task.labels

    def predict(
        self, inputs: Iterable[Input], *, top: int = SHOWN, reasons: bool = False
    ) -> list[Prediction]:
        """Predicts for each input, in order.

        Records are encoded, cut and batched as in `cloister evaluate`, so its scores are those of
        the predictions that this method returns.

        Args:
            inputs: For classification, scoring and retrieval: texts. For text pairs: `(text,
                text_b)` each. For token classification: sentences, each a list of words, or a text
                that is split at its spaces. For a chat: conversations, each a list of turns
                (`{"role": …, "content": …}`), or a text, which is one turn of the user. For
                recommendation: each person's items, oldest first, a list of item ids, or a text of
                ids separated by spaces.
            top: For recommendation: how many items to return; fewer if the person lacks fewer.
            reasons: Also find why. For recommendation: which of the person's items moved each
                recommended item most (`serving.reasons`); for labels, scores and pairs: how far
                each word moved the answer (`serving.word_reasons`). It takes a pass for each item
                or word.

        Raises:
            UsageError: A single text or a table is given instead of a list of inputs, `top` is
                below 1, or `reasons` is given for another task.
            DataError: An input is empty, or not of the kind that the task reads.
        """
        if isinstance(inputs, str):
            raise UsageError("a single text given; predict takes a list: predict([text])")
        if not isinstance(inputs, Iterable) or _is_no_list(inputs):
            raise UsageError(
                f"{type(inputs).__name__} given; predict takes a list of inputs, as in "
                'predict(frame["text"])'
            )
        if top < 1:
            raise UsageError(f"top: {top} given; at least 1 is needed")
        if not reasons:
            return self._predicted(list(inputs), top, 1)
        task, given = self.workspace.task, list(inputs)
        if task.kind not in REASONED:
            raise UsageError(
                f"reasons: given for {task.kind}; they are of labels, scores, pairs and "
                "recommendation; cloister model explain explains every task"
            )
        found = self._predicted(given, top, 1)
        if isinstance(task, Recommendation):
            persons = [as_items(one, number) for number, one in enumerate(given, 1)]
            return [
                reasoned(task, items, ranked, self._logits)
                for items, ranked in zip(persons, found, strict=True)
                if isinstance(ranked, Ranked)
            ]
        return [
            with_words(task, texts_of(task, one, number), answer, self._of_texts)
            for number, (one, answer) in enumerate(zip(given, found, strict=True), 1)
            if isinstance(answer, Classified | Labelled | Scored)
        ]

    @property
    def streamed(self) -> int:
        """Inputs that `stream` predicts for at a time."""
        return REPLIED if isinstance(self.workspace.task, CausalChat) else STREAMED

    def stream(
        self, inputs: Iterable[Input], *, top: int | None = None, first: int = 1
    ) -> Iterator[Prediction]:
        """Predicts for any number of inputs in bounded memory, `streamed` of them at a time.

        Args:
            inputs: See `predict`; they are read only when they are needed.
            top: For recommendation, see `predict`; None: its default.
            first: Number of the first input, for messages.

        Yields:
            The predictions that `predict` returns, in the inputs' order. They are equal bit for
            bit from whatever multiple of `streamed` the inputs begin.

        Raises:
            DataError: See `predict`; raised when the input is reached.
        """
        waiting = iter(inputs)
        while given := list(islice(waiting, self.streamed)):
            yield from self._predicted(given, SHOWN if top is None else top, first)
            first += len(given)

    def _predicted(self, given: Sequence[Input], top: int, first: int) -> list[Prediction]:
        """Predictions of inputs, of which the first has this number in messages."""
        task = self.workspace.task
        if isinstance(task, Recommendation):
            persons = [as_items(one, number) for number, one in enumerate(given, first)]
            return [*self._rank(task, persons, top, first)]
        if isinstance(task, CausalChat):
            return [self._reply(task, one, number) for number, one in enumerate(given, first)]
        if isinstance(task, TokenClassification):
            sentences = [as_sentence(one, number) for number, one in enumerate(given, first)]
            return self._tag(task, sentences)
        if isinstance(task, TextPairs):
            pairs = [as_pair(one, number) for number, one in enumerate(given, first)]
            return [
                _of_labels(task.labels, logits, task.is_cut(*pair))
                for pair, logits in zip(pairs, self._of_texts(pairs), strict=True)
            ]
        # `about_adapter` refuses plug-ins, so the task is one of these
        assert isinstance(task, OneText)
        texts = [as_plain_text(one, number) for number, one in enumerate(given, first)]
        rows = self._of_texts([(text,) for text in texts])
        return [
            _of_text(task, logits, task.is_cut(text))
            for text, logits in zip(texts, rows, strict=True)
        ]

    def _of_texts(self, inputs: Sequence[tuple[str, ...]]) -> list[Tensor]:
        """Logits of each text or pair of texts, [C], in order."""
        task = self.workspace.task
        if isinstance(task, TextPairs):
            records = [PairRecord(text, task.labels[0], text_b=text_b) for text, text_b in inputs]
            return self._logits(self.workspace.encode(records))
        return self._logits([encode_bare(task, text) for (text,) in inputs])

    def _tag(self, task: TokenClassification, sentences: Sequence[Sentence]) -> list[Prediction]:
        records = [TokenRecord(one.words, ("O",) * len(one.words)) for one in sentences]
        examples = self.workspace.encode(records)
        found: list[Prediction] = []
        rows = zip(sentences, examples, self._logits(examples), strict=True)
        for sentence, example, logits in rows:
            tags = ["O"] * len(sentence.words)
            shares = [1.0] * len(sentence.words)
            best = logits.softmax(dim=1).max(dim=1)
            pairs = list(zip(logits.argmax(dim=1).tolist(), best.values.tolist(), strict=True))
            for word, (output, share) in by_word(pairs, example).items():
                tags[word], shares[word] = task.labels[output], share
            entities = tuple(_entity(sentence, shares, *span) for span in spans_of(tags))
            is_cut = self._cut(as_text(sentence.words)[0])
            found.append(Tagged(entities, tuple(tags), is_cut))
        return found

    def _rank(
        self, task: Recommendation, persons: Sequence[tuple[str, ...]], top: int, first: int
    ) -> list[Ranked]:
        examples = []
        for number, items in enumerate(persons, first):
            try:
                examples.append(task.history(items))
            except MisfitError as error:
                raise MisfitError(error.reason, f"input {number}: {error}") from error
        found: list[Ranked] = []
        for items, example, logits in zip(persons, examples, self._logits(examples), strict=True):
            scores = without_seen(logits[None].double(), [example.seen])[0]
            most = min(top, len(scores) - len(example.seen))
            best = scores.topk(most)
            ranked = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            shown = tuple(RankedItem(task.catalogue.ids[place], score) for place, score in ranked)
            found.append(Ranked(shown, task.is_cut(items)))
        return found

    def _reply(self, task: CausalChat, given: Input, number: int) -> Prediction:
        record = as_chat(given, number)
        try:
            prompt = task.whole_prompt(record)
        except MisfitError as error:
            raise MisfitError(error.reason, f"input {number}: {error}") from error
        network, tokenizer = self.workspace.network, self.workspace.tokenizer
        room = reply_room(limits_of(network.base, network.virtual_tokens).positions)[1]
        most = task.max_length if room is None else min(task.max_length, room)
        reply = reply_to(network, task, tokenizer, prompt[-task.max_length :])
        return Replied(reply, is_cut=len(prompt) > most)

    def _logits(self, examples: Sequence[Example]) -> list[Tensor]:
        """Logits of each example, [C] or [T, C] with its batch's padding, in order."""
        network, task = self.workspace.network, self.workspace.task
        place = {id(example): number for number, example in enumerate(examples)}
        found: dict[int, Tensor] = {}
        with torch.no_grad():
            for group in physical_batches(singles(examples), self.max_tokens):
                batch = task.collate([example for (example,) in group])
                logits = network.logits(batch).to(device="cpu", dtype=torch.float32)
                for (example,), row in zip(group, logits, strict=True):
                    found[place[id(example)]] = row
        return [found[number] for number in range(len(examples))]

    def _cut(self, text: str) -> bool:
        """Returns whether a text is longer than the study's `max_length`."""
        length = self.about.task.max_length
        if len(text) > most_characters(length):
            return True
        # verbose=False: a tokenizer warns about texts beyond the base's positions; they are cut.
        return len(self.workspace.tokenizer(text, verbose=False)["input_ids"]) > length


def load(
    folder: str | Path,
    device: str | None = None,
    *,
    base: str | Path | None = None,
    dtype: BaseType | None = None,
) -> Model:
    """Loads a finished adapter, ready to predict.

    Args:
        folder: A finished run's folder, or an adapter's (`adapter/` of a run).
        device: `cpu`, `cuda`, `cuda:N` or `mps`; absent: a CUDA GPU if there is one.
        base: The base model's folder or hub id on this machine; absent: the one that the adapter
            names.
        dtype: Type in which the base computes; absent: the one of training. Predictions in another
            type differ by its rounding.

    Returns:
        The model. Its weights are those that the study trained on: the base's SHA-256 is checked
        against the adapter's.

    Raises:
        UsageError: This machine has no such device, the run has no model of its own, or a type is
            given for a quantized base, which has its own.
        BadFileError: The folder holds no adapter, or a damaged one.
        ModelFileError: The base is missing, or not the one that was trained on.
    """
    place = None if device is None else _device(device)
    found = about_adapter(folder)
    if dtype is not None and found.model.quantization != "none":
        raise UsageError(f"dtype: {dtype} given; a quantized base computes in its own type")
    about, workspace = load_released(adapter_folder(Path(folder)), base, dtype)
    if place is not None and about.model.quantization == "none":
        workspace.network.to(place)
    elif place is not None and place.type != "cuda":
        raise UsageError(f"device: {device} given; a quantized base runs on a CUDA GPU only")
    return Model(about, workspace)


def about_adapter(folder: str | Path) -> ReleaseFacts:
    """Reads the facts of an adapter that can predict; no network is loaded.

    Args:
        folder: See `load`.

    Raises:
        UsageError: The task comes from a plug-in, or each site kept a part of the adapter.
        BadFileError: The folder holds no adapter, or a damaged one.
    """
    place = adapter_folder(Path(folder))
    about = read_released(place)
    if about.task.plugin is not None:  # only the plug-in knows what the outputs mean
        raise UsageError(
            f"{folder}: its task {about.task.kind} comes from a plug-in, and Cloister predicts "
            "for built-in tasks only; cloister evaluate --plugin scores it"
        )
    check_whole(place, about.lora)
    return about


def _of_text(task: OneText, logits: Tensor, is_cut: bool) -> Prediction:
    """Returns the prediction of a text from its logits, [C]."""
    if isinstance(task, Retrieval):
        best = logits.topk(min(MOST_FOUND, len(task.labels)))
        nearest = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        found = (NearPassage(task.labels[at], task.passages[at], value) for at, value in nearest)
        return Retrieved(tuple(found), is_cut)
    if isinstance(task, Scoring):
        score = task.scale.score(float(logits.double().sigmoid()[0]))
        stepped = task.scale.step is not None
        return Scored(
            score, task.scale.of_grade(task.scale.grade(score)) if stepped else None, is_cut
        )
    if isinstance(task, MultiLabelClassification):
        shares = dict(zip(task.labels, logits.sigmoid().tolist(), strict=True))
        chosen = tuple(label for label, share in shares.items() if share > THRESHOLD)
        return Labelled(chosen, shares, is_cut)
    return _of_labels(task.labels, logits, is_cut)


def _of_labels(labels: Sequence[str], logits: Tensor, is_cut: bool) -> Classified:
    """Returns the most probable label from logits, [C]."""
    shares = dict(zip(labels, logits.softmax(dim=0).tolist(), strict=True))
    return Classified(labels[int(logits.argmax())], shares, is_cut)


def _is_no_list(inputs: Iterable[object]) -> bool:
    """Returns whether iterating over `inputs` gives column names or bytes instead of inputs."""
    is_table = hasattr(inputs, "columns") or hasattr(inputs, "column_names")
    return is_table or isinstance(inputs, Mapping | bytes)


def _device(name: str) -> torch.device:
    device: torch.device | None = None
    with suppress(RuntimeError):  # torch raises it for an unknown device name
        device = torch.device(name)
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"device: {name!r} given; cpu, cuda, cuda:N or mps is needed")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device: mps given; torch finds no usable GPU of a Mac here: use cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device: {name} given; this machine has {torch.cuda.device_count()} GPUs: use cpu"
        )
    return device


def _entity(sentence: Sentence, shares: Sequence[float], kind: str, first: int, end: int) -> Entity:
    start, stop = sentence.spans[first][0], sentence.spans[end - 1][1]
    mean = sum(shares[first:end]) / (end - first)
    return Entity(kind, sentence.text[start:stop], first, end, start, stop, mean)
