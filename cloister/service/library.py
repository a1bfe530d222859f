"""What an assistant looks up before it answers: an index, and the encoder of questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cloister.data.records import ChatRecord
from cloister.documents.encoder import Encoder, open_encoder
from cloister.documents.frame import REFUSALS, cited_in, framed, question_of, speech_of
from cloister.documents.index import Hit, Index, load_index
from cloister.models.limits import limits_of
from cloister.service.reply_stream import REPLY_TOKENS, Decoding, Reply, decode, prompt_of
from cloister.serving.model import Model

# Passages of one answer: with 256 tokens each they leave a context of 2,048 half free.
MOST_SHOWN = 4
# Below it nothing is answered. Of 300 built-in questions (synthetic:questions) 0.93 have a leaflet
# this near by all-MiniLM-L6-v2 as it is and 0.98 after 20 private rounds; of 96 everyday sentences
# in English and Chinese (models.center_texts) 0.04 and 0.02 do.
LEAST = 0.3


@dataclass(frozen=True)
class Library:
    """Documents that replies are given from.

    Attributes:
        index: The passages.
        encoder: Of the index' base.
        least: The least cosine of a question and the best passage at which there is an answer.
    """

    index: Index
    encoder: Encoder
    least: float = LEAST

    def reply(
        self,
        model: Model,
        chat: ChatRecord,
        how: Decoding,
        give: Callable[[str], None],
        is_left: Callable[[], bool],
    ) -> Reply:
        """A reply from the documents; where none is near enough a fixed sentence, and no token is
        generated.

        Args:
            model: Of a chat.
            chat: The conversation.
            how: As for `reply_stream.decode`, likewise `give` and `is_left`.
            give: Takes each piece of text.
            is_left: Whether nobody waits any more.

        Raises:
            MisfitError: The base's template cannot render the conversation.
            TooLongError: Conversation, nearest passage and reply do not fit the base's positions.
        """
        hits = self.find(chat)
        if not hits:
            text = REFUSALS[speech_of(question_of(chat))]
            give(text)
            return Reply(text, "stop", 0, 0, ())
        prompt, given = prompt_with(model, chat, hits, how)
        reply = decode(model, prompt, how, give, is_left)
        return replace(reply, sources=tuple(cited_in(reply.text, given)))

    def find(self, chat: ChatRecord) -> list[Hit]:
        """The passages near enough to a conversation's last question; empty: there is no answer."""
        (vector,) = self.encoder.queries([question_of(chat)])
        hits = self.index.search(vector, MOST_SHOWN)
        return [hit for hit in hits if hit.similarity >= self.least]


def open_library(folder: Path, retriever: Path | None, base: str | None, least: float) -> Library:
    """Loads an index and its encoder.

    Args:
        folder: The index.
        retriever: The run or base that encodes questions; None: as the index names it.
        base: The base of such a run on this machine; None: as the run names it.
        least: As `Library.least`.

    Raises:
        UsageError: The encoder is of another base.
        BadFileError: The index is damaged.
        ModelFileError: The base is missing.
    """
    index = load_index(folder)
    encoder = open_encoder(retriever or Path(index.model), base)
    index.check_encoder(encoder)
    return Library(index, encoder, least)


def prompt_with(
    model: Model, chat: ChatRecord, hits: Sequence[Hit], how: Decoding
) -> tuple[tuple[int, ...], list[Hit]]:
    """The prompt of a conversation with as many passages as leave room for a reply.

    Args:
        model: Of a chat.
        chat: The conversation.
        hits: Nearest first, at least one.
        how: How long the reply may be.

    Returns:
        Token ids, and the passages that are in them: at least the nearest.

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
