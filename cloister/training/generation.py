"""Replies of a chat model, greedily decoded, and their ROUGE-L against the records' own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from cloister.data.records import ChatRecord
from cloister.models.network import Network
from cloister.tasks.chat import CausalChat
from cloister.tasks.rouge import rouge_l

# Longest reply decoded: an assistant's turn in the customer-service sets has at most about this
# many tokens of a 512-word vocabulary.
MAX_NEW_TOKENS = 64


def reply_score(
    network: Network,
    task: CausalChat,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[ChatRecord],
) -> float:
    """Mean ROUGE-L F-measure of greedy replies to each record's last assistant turn, in 0…1."""
    replies = [_reply(network, tokenizer, task.prompt(record)) for record in records]
    return rouge_l(replies, [task.reference_text(record) for record in records])


def _reply(network: Network, tokenizer: PreTrainedTokenizerBase, prompt: tuple[int, ...]) -> str:
    ids = torch.tensor([prompt], device=network.device)
    with torch.inference_mode():
        output = network.backbone.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
        )
    return str(tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True))
