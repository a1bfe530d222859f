"""Replies of a chat model, greedily decoded, and their ROUGE-L against the records' own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from cloister.data.records import ChatRecord, Record
from cloister.models.limits import limits_of
from cloister.models.network import Network
from cloister.tasks.chat import CausalChat
from cloister.tasks.rouge import rouge_l

# Longest reply decoded: an assistant's turn in the customer-service sets has at most about this
# many tokens of a 512-word vocabulary.
MAX_NEW_TOKENS = 64

# Conversations whose replies are generated: greedy decoding costs about a second each.
GENERATED = 32


def reply_score(
    network: Network,
    task: CausalChat,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
) -> float:
    """Mean ROUGE-L F-measure, in 0…1, of greedy replies to the last assistant turn of the first
    `GENERATED` records."""
    chats = [record for record in records if isinstance(record, ChatRecord)][:GENERATED]
    replies = [_reply(network, tokenizer, task.prompt(record)) for record in chats]
    return rouge_l(replies, [task.reference_text(record) for record in chats])


def _reply(network: Network, tokenizer: PreTrainedTokenizerBase, prompt: tuple[int, ...]) -> str:
    context = limits_of(network.base).positions
    new = MAX_NEW_TOKENS if context is None else min(MAX_NEW_TOKENS, context // 2)
    kept = prompt if context is None else prompt[-(context - new) :]
    ids = torch.tensor([kept], device=network.device)
    with torch.inference_mode():
        output = network.backbone.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
        )
    return str(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))
