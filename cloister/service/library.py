"""Answers from documents: finds passages for a question, and puts them into the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.data.records import ChatRecord
from cloister.documents.encoder import Encoder, open_encoder
from cloister.documents.frame import REFUSALS, framed, question_of, speech_of
from cloister.documents.index import Hit, Index, load_index
from cloister.models.limits import limits_of
from cloister.service.reply_stream import REPLY_TOKENS, Decoding, Reply, prompt_of
from cloister.serving.model import Model

# Most passages in one prompt: with 256 tokens each they fill half of a context of 2,048.
MOST_SHOWN = 4
# Most questions that are encoded together: 32 of the longest length, 256 tokens, take about 50 MB.
MOST_ENCODED = 32
# Least cosine of question and passage at which the model answers. With all-MiniLM-L6-v2, 0.93 of
# 300 built-in questions (synthetic:questions) have a leaflet this near (0.98 after 20 private
# rounds); of 96 everyday sentences in English and Chinese (models.center_texts) 0.04 (0.02) do.
LEAST = 0.3


@dataclass(frozen=True)
class Library:
    """The documents that a chat answers from, with the encoder that searches them.

    Attributes:
        index: The passages.
        encoder: Encodes questions; it has the same base as the index.
        least: Passages with a smaller cosine are not used; without any, no reply is generated.
    """

    index: Index
    encoder: Encoder
    least: float = LEAST

    def find(self, chat: ChatRecord) -> list[Hit]:
        """Returns the passages near enough to a conversation's last question; may be empty."""
        (hits,) = self.find_each([question_of(chat)])
        return hits

    def find_each(self, questions: Sequence[str]) -> list[list[Hit]]:
        """Returns the passages near enough to each question, in order; the texts are encoded
        together, which takes a fraction of the time."""
        found = []
        for begin in range(0, len(questions), MOST_ENCODED):
            for vector in self.encoder.queries(questions[begin : begin + MOST_ENCODED]):
                hits = self.index.search(vector, MOST_SHOWN)
                found.append([hit for hit in hits if hit.similarity >= self.least])
        return found


def open_library(folder: Path, retriever: Path | None, base: str | None, least: float) -> Library:
    """Loads an index and its encoder.

    Args:
        folder: The folder of the index.
        retriever: The run or base that encodes questions; None: the one that the index names.
        base: The base of that run on this machine; None: the one that the run names.
        least: See `Library.least`.

    Raises:
        UsageError: The encoder has another base than the index.
        BadFileError: The index is damaged.
        ModelFileError: The base is missing.
    """
    index = load_index(folder)
    encoder = open_encoder(retriever or Path(index.model), base)
    index.check_encoder(encoder)
    return Library(index, encoder, least)


def refusal(chat: ChatRecord) -> Reply:
    """Returns the reply to a question without a passage: a fixed sentence; nothing is generated."""
    return Reply(REFUSALS[speech_of(question_of(chat))], "stop", 0, 0, ())


def prompt_with(
    model: Model, chat: ChatRecord, hits: Sequence[Hit], how: Decoding
) -> tuple[tuple[int, ...], list[Hit]]:
    """Returns the prompt of a conversation with as many passages as leave room for a reply.

    Args:
        model: A chat model.
        chat: The conversation.
        hits: The passages found, nearest first; at least one.
        how: The settings of decoding, for the length of the reply.

    Returns:
        Token ids of the prompt, and the passages in it: the nearest always, more if they fit.

    Raises:
        MisfitError: The base's template cannot render the conversation.
    """
    tokenizer = model.workspace.tokenizer
    marks = [token.content for token in tokenizer.added_tokens_decoder.values()]
    positions = limits_of(model.workspace.network.base).positions
    for count in range(len(hits), 0, -1):
        given = list(hits[:count])
        prompt = prompt_of(model, framed(chat, given, marks))
        if positions is None or len(prompt) + (how.most_tokens or REPLY_TOKENS) <= positions:
            break
    return prompt, given
