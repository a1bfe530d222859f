"""The chat task: the assistant's tokens are learnt, and all other tokens are context."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cloister.data.records import ChatRecord, Message, Record, RecordKind
from cloister.errors import MisfitError
from cloister.tasks.collate import collate
from cloister.tasks.config import TaskConfig, TaskKind
from cloister.tasks.cut import cut_text, cut_turns, last_text, last_turns
from cloister.tasks.losses import mean_within_record, token_losses
from cloister.tasks.task import IGNORE, Batch, BatchShape, Example
from cloister.tasks.template import ChatTemplate
from cloister.tasks.turns import Rendered, before, rendered
from cloister.tasks.words import needs_fast

# For tokenizers without a template of their own. Plain words, because a small vocabulary has no
# tokens for markers; an assistant's turn ends with the end token, which is learnt too. A prompt
# ends before the space: many tokenizers join the space to the word that follows it.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].capitalize() + ': ' + message['content'] }}{{ "
    "eos_token if message['role'] == 'assistant' else '' }}{{ '\n' }}{% endfor %}{% if "
    "add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

NO_PAIR = "it is not a pair of a chosen and a rejected reply"
# β of the paper's experiments with dialogues.
DPO_BETA = 0.1
TASK = {"kind": "causal-lm", "records": "messages"}


def make(
    config: TaskConfig, labels: tuple[str, ...], tokenizer: PreTrainedTokenizerBase, pad_id: int
) -> CausalChat:
    """Binds the task, which has no labels; see `build_task`."""
    needs_fast(config.kind, tokenizer)
    return CausalChat(
        tokenizer,
        chat_template(config, tokenizer),
        config.max_length,
        pad_id,
        config.truncation_side or "right",
        (config.dpo_beta or DPO_BETA) if config.loss == "dpo" else None,
    )


def chat_template(config: TaskConfig, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """The recipe's template, else the tokenizer's own, else the plain one.

    Raises:
        UsageError: The template is not valid Jinja, or breaks a rule of `template_rules`.
    """
    own = tokenizer.chat_template
    if isinstance(own, dict):  # several by name, for tools or retrieval
        own = own.get("default")
    if config.chat_template and config.chat_template != own:
        return ChatTemplate(config.chat_template)
    return ChatTemplate(str(own), is_own=True) if own else ChatTemplate(PLAIN_TEMPLATE)


@dataclass(frozen=True)
class CausalChat:
    """Fine-tunes a causal LM on conversations.

    Attributes:
        tokenizer: The base's; a fast one, whose offsets say which characters a token covers.
        template: Renders a conversation.
        max_length: Longest conversation in tokens.
        pad_id: Token id of padding.
        truncation_side: Which end of a longer record is cut: its end (`right`) or its beginning
            (`left`).
        dpo_beta: β of direct preference optimization; None: next tokens are learnt.
    """

    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate
    max_length: int
    pad_id: int
    truncation_side: str = "right"
    dpo_beta: float | None = None
    labels: tuple[str, ...] = ()
    kind: TaskKind = "causal-lm"
    record_kind: RecordKind = "messages"
    primary_metric: str = "perplexity"

    def encode(self, record: Record) -> Example:
        """Tokenizes a conversation and marks the tokens of the assistant's turns.

        If preferences are learnt, both conversations of a pair are encoded completely: the turns
        that they share cancel in the loss.

        Raises:
            MisfitError: The template does not render the conversation, or not so that the
                assistant's turns can be found in it (`cloister.tasks.turns`); or preferences are
                learnt and the record is not a pair.
        """
        assert isinstance(record, ChatRecord)
        if self.dpo_beta is None:
            return self._encoded(record)
        if record.rejected is None:
            raise MisfitError(
                NO_PAIR, f'{NO_PAIR}, which task.loss = "dpo" needs; leave it out of the data'
            )
        rejected = self._encoded(ChatRecord(record.rejected))
        return replace(self._encoded(ChatRecord(record.messages)), rejected=rejected)

    def _encoded(self, record: ChatRecord) -> Example:
        whole = self._whole(record)
        is_left = self.truncation_side == "left"
        text = (last_text if is_left else cut_text)(whole.text, self.max_length)
        ahead = len(whole.text) - len(text) if is_left else 0
        spans = [(first - ahead, last - ahead) for first, last in whole.spans]
        encoded = self._tokens(text, offsets=True, frame=self.frames or record.text is not None)
        # Some tokenizers trim spaces off offsets, so a token of spaces has no width; it is learnt
        # if it lies inside a turn. Special tokens have the offsets (0, 0), which lie in no turn.
        target = [
            token if any(a < end and start < b for a, b in spans) else IGNORE
            for token, (start, end) in zip(
                encoded["input_ids"], encoded["offset_mapping"], strict=True
            )
        ]
        kept = slice(-self.max_length, None) if is_left else slice(self.max_length)
        ids = tuple(encoded["input_ids"][kept])
        return Example(ids or (self.pad_id,), tuple(target[kept]) or (IGNORE,))

    def _whole(self, record: ChatRecord) -> Rendered:
        """Renders a record, with the characters that are learnt; of raw text, all of them."""
        is_left = self.truncation_side == "left"
        if record.text is None:
            cut = last_turns if is_left else cut_turns
            return self._render(cut(record.messages, self.max_length))
        text = (last_text if is_left else cut_text)(record.text, self.max_length)
        ends = "" if _ends_itself(self.tokenizer) else self.tokenizer.eos_token or ""
        return Rendered(text + ends, ((0, len(text + ends)),))

    @property
    def frames(self) -> bool:
        """Whether the tokenizer adds its special tokens.

        Most templates write them; only the plain one leaves the first token to the tokenizer.
        """
        return self.template.text == PLAIN_TEMPLATE and not _ends_itself(self.tokenizer)

    def prompt(self, record: ChatRecord) -> tuple[int, ...]:
        """Returns the last `max_length` token ids before the last assistant turn."""
        return self.whole_prompt(record)[-self.max_length :]

    def whole_prompt(self, record: ChatRecord) -> tuple[int, ...]:
        """Returns all token ids before the last assistant turn."""
        text = self.prompt_text(record)
        return tuple(self._tokens(text, offsets=False, frame=self.frames)["input_ids"])

    def prompt_text(self, record: ChatRecord) -> str:
        """Returns the whole rendered text before the last assistant turn."""
        return before(self._apply, record.messages, _last_assistant(record))

    def last_turn(
        self, record: ChatRecord
    ) -> tuple[str, tuple[int, int], list[tuple[int, tuple[int, int]]]]:
        """Renders a conversation without a cut and finds its last assistant turn.

        Returns:
            Its text, the characters of its last assistant turn with what closes it, and its tokens
            with the characters of each.

        Raises:
            MisfitError: As `encode`.
        """
        found = self._render(record.messages)
        encoded = self._tokens(found.text, offsets=True, frame=self.frames)
        tokens = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return (
            found.text,
            found.spans[-1],
            [(token, (start, end)) for token, (start, end) in tokens],
        )

    def reference_text(self, record: ChatRecord) -> str:
        """Returns the last assistant turn, which replies are compared with."""
        return record.messages[_last_assistant(record)].content

    def collate(self, examples: Sequence[Example], shape: BatchShape | None = None) -> Batch:
        """Pads conversations into a batch."""
        return collate(examples, self.pad_id, shape)

    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean next-token cross-entropy over each record's assistant tokens, [B]."""
        target = batch.target[:, 1:].to(logits.device)
        return self.means(token_losses(logits[:, :-1], target), batch)

    def means(self, losses: Tensor, batch: Batch) -> Tensor:
        """One loss per record, [B], from its next-token losses, [B, T - 1]: their mean, or for a
        sequence of a pair their weighted sum."""
        weights = [0.0 if one.weight is None else one.weight for one in batch.examples]
        if not any(one.weight is not None for one in batch.examples):
            return mean_within_record(losses, batch.target[:, 1:].to(losses.device))
        weights += [0.0] * (len(losses) - len(weights))
        return losses.sum(dim=1) * torch.tensor(weights, device=losses.device)

    def meter(self) -> ChatMeter:
        """Returns a new meter of perplexity and loss."""
        return ChatMeter(self)

    def _render(self, messages: Sequence[Message]) -> Rendered:
        """The rendered text, and which characters of the assistant's turns are learnt."""
        marked = self.template.marked(messages, self.tokenizer.special_tokens_map)
        return rendered(self._apply, messages, marked)

    def _apply(self, messages: Sequence[Message], generation: bool) -> str:
        special = self.tokenizer.special_tokens_map
        return self.template.render(messages, special, generation=generation)

    def _tokens(self, text: str, *, offsets: bool, frame: bool) -> Mapping[str, list]:  # type: ignore[type-arg]
        encoded: Mapping[str, list] = self.tokenizer(  # type: ignore[type-arg]
            text,
            add_special_tokens=frame,
            return_offsets_mapping=offsets,
            verbose=False,  # no warning of a long text: it is cut afterwards
        )
        return encoded


def _ends_itself(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer ends every text with a special token, which a prompt must not."""
    ids = tokenizer("a")["input_ids"]
    return bool(ids) and ids[-1] in tokenizer.all_special_ids


def _last_assistant(record: ChatRecord) -> int:
    return max(i for i, message in enumerate(record.messages) if message.role == "assistant")


@dataclass
class ChatMeter:
    """Sums losses over tokens and over records."""

    task: CausalChat
    # Per batch: sum of token losses, sum of record losses. They stay on the device, so that `add`
    # does not wait for it.
    _sums: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _tokens: int = 0
    _records: int = 0

    def add(self, logits: Tensor, batch: Batch) -> None:
        """Takes one batch, logits [B, T, V]."""
        target = batch.target[:, 1:].to(logits.device)
        self.add_losses(token_losses(logits[:, :-1], target), batch)

    def add_losses(self, losses: Tensor, batch: Batch) -> None:
        """Takes one batch, losses of next tokens [B, T - 1]."""
        losses = losses.detach()
        self._sums.append((losses.sum(), self.task.means(losses, batch).sum()))
        self._tokens += int((batch.target[:, 1:] != IGNORE).sum())
        self._records += len(batch.target)

    def result(self) -> dict[str, float]:
        """Perplexity over all assistant tokens, and mean loss over records.

        Guarantees:
            Perplexity is infinite if no assistant token was scored, so that an empty set never
            looks perfect, and if it exceeds the largest float.
        """
        tokens, records = (sum(float(one[n]) for one in self._sums) for n in (0, 1))
        return {
            "perplexity": _perplexity(tokens, self._tokens),
            "loss": records / max(self._records, 1),
        }

    def report(self) -> Mapping[str, Mapping[str, float]]:
        """Returns nothing: a chat has no classes."""
        return {}


def _perplexity(loss: float, tokens: int) -> float:
    try:
        return math.exp(loss / tokens) if tokens else math.inf
    except OverflowError:
        return math.inf
