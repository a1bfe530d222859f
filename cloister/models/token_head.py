"""Computes a causal LM's losses only for tokens that are learnt, some rows of logits at a time.

Logits of 8,192 tokens by 262,144 words take 8.6 GB in float32, and most of their rows are for
tokens that are not learnt. So the hidden states that enter the base's output embedding are selected
first; the embedding, the softmax and the loss are then computed for `ROWS` of them at a time, and
the backward pass recomputes logits that did not fit.

Every product has `ROWS` rows, padded with zeros: a row depends on its own states alone, as in
`training.shapes`, and the machine's proof checks it.

Shapes: B records, T tokens, N learnt tokens, H hidden units, V words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from cloister.models.frozen_products import FrozenLinear
from cloister.tasks.losses import token_losses
from cloister.tasks.task import IGNORE

# Rows of a product with the output embedding: a multiple of 8, as `training.shapes` needs, and
# enough that reading the embedding (113 MB for SmolLM2) takes a tenth of the product's time.
ROWS = 64
# Bytes of logits that are kept for the backward pass; others are recomputed. Changes time only.
KEPT_BYTES = 2**28
# Largest difference to the whole network's logits, relative to the largest of them, in the test
# that both are computed alike: a few roundings of bfloat16.
CLOSE = 2**-6

Shape = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TokenHead:
    """The output embedding of a base, and what its network does to the logits afterwards.

    Attributes:
        embedding: From hidden states [N, H] to logits [N, V].
        shaped: The architecture's cap or scale of logits.
    """

    embedding: nn.Module
    shaped: Shape

    def losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Returns the cross-entropy of each next token in float32, 0 if not learnt, [B, T - 1].

        Args:
            hidden: [B, T, H], the embedding's input.
            target: int64 [B, T], each at its token; `IGNORE` for tokens that are not learnt.
        """
        following = target[:, 1:]
        places = (following != IGNORE).flatten().nonzero().squeeze(1)
        states = hidden[:, :-1].flatten(0, 1)[places]
        words = following.flatten()[places]
        missing = max(-len(places) % ROWS, 0 if len(places) else ROWS)
        states = F.pad(states, (0, 0, 0, missing))
        words = F.pad(words, (0, missing), value=IGNORE)
        found = [
            self._chunk(rows, own, number)
            for number, (rows, own) in enumerate(
                zip(states.split(ROWS), words.split(ROWS), strict=True)
            )
        ]
        losses = torch.cat(found)[: len(places)]
        whole = losses.new_zeros(following.numel())
        return whole.index_put((places,), losses).view(following.shape)

    def logits(self, states: Tensor) -> Tensor:
        """Returns logits [N, V] of states [N, H]."""
        return self.shaped(self.embedding(states))

    def _chunk(self, states: Tensor, words: Tensor, number: int) -> Tensor:
        size = 4 * ROWS * int(self.embedding.weight.shape[0])  # type: ignore[index]
        if not torch.is_grad_enabled() or (number + 1) * size <= KEPT_BYTES:
            return self._losses(states, words)
        found: Tensor = checkpoint(
            self._losses, states, words, use_reentrant=False, preserve_rng_state=False
        )
        return found

    def _losses(self, states: Tensor, words: Tensor) -> Tensor:
        return token_losses(self.logits(states)[None], words[None])[0]


class _HeadReachedError(Exception):
    """Ends a forward pass at the output embedding."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__("the output embedding is reached")
        self.hidden = hidden


def hidden_states(run: Callable[[], object], head: TokenHead) -> Tensor:
    """Returns the input of a base's output embedding in a forward pass, [B, T, H].

    Args:
        run: Runs the pass, which ends at the embedding.
        head: The base's head.
    """
    try:
        with _ending_at(head.embedding):
            run()
    except _HeadReachedError as reached:
        return reached.hidden
    raise AssertionError("the output embedding was not called")


@contextmanager
def _ending_at(module: nn.Module) -> Iterator[None]:
    def end(_: nn.Module, arguments: tuple[Any, ...]) -> NoReturn:
        raise _HeadReachedError(arguments[0])

    handle = module.register_forward_pre_hook(end)
    try:
        yield
    finally:
        handle.remove()


def find_token_head(
    network: nn.Module, base: PreTrainedModel, device: torch.device, leading: int = 0
) -> TokenHead | None:
    """Returns a base's head if its losses can be computed by rows; else None.

    They cannot if the embedding has an adapter, whose per-record gradients need the whole batch, or
    if the network changes its logits in an unknown way.

    Args:
        network: The network with adapters; called with ids and mask.
        base: The base in it.
        device: The device of its parameters.
        leading: Number of states before a text's own.
    """
    embedding = base.get_output_embeddings()
    if type(embedding) not in (nn.Linear, FrozenLinear):
        return None
    if any(p.requires_grad for p in embedding.parameters()):
        return None
    ids = torch.arange(6, device=device)[None] % embedding.weight.shape[0]
    mask = torch.ones_like(ids)
    with torch.no_grad():
        whole = network(ids, mask).float()
        for shaped in _shapes(vars(base.config)):
            head = TokenHead(embedding, shaped)
            try:
                states = hidden_states(lambda: network(ids, mask), head)
            except AssertionError:
                return None
            logits = head.logits(states[0, leading:]).float()[None]
            close = CLOSE * float(whole.abs().max())
            if logits.shape == whole.shape and float((logits - whole).abs().max()) <= close:
                return head
    return None


def _shapes(config: Mapping[str, Any]) -> Iterator[Shape]:
    """Yields what architectures may do to logits, by a configuration's fields.

    Nothing, cap (Gemma 2), divide (Granite), multiply (Cohere).
    """
    cap, divisor, factor = (
        config.get(name) for name in ("final_logit_softcapping", "logits_scaling", "logit_scale")
    )
    if cap:
        yield lambda logits: torch.tanh(logits / cap) * cap
    if divisor:
        yield lambda logits: logits / divisor
    if factor:
        yield lambda logits: logits * factor
    yield lambda logits: logits
