"""Encodes two texts in one row of tokens so that neither reads the other (a bi-encoder).

A token attends only to tokens of its own text, and positions start again at the second text. So
each text gets the same vector as if the base read it by itself, which `check_apart` tests. A pair
stays one row, like every record, so shapes, caches and per-record gradients need no second case.
The head reads u, v and |u − v| (Reimers & Gurevych 2019, arXiv:1908.10084, section 3), or only
their cosine.

Shapes: B pairs, T tokens of both texts, H hidden units.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn

from cloister.models.kinds import is_decoder
from cloister.models.limits import TABLE
from cloister.models.pooling import Pooling
from cloister.tasks.config import Comparison


class TwoTexts(nn.Module):
    """Makes a base encode two texts separately, and compares their vectors.

    Attributes:
        compare: `vectors`: u, v and |u − v|; `cosine`: the cosine of u and v.
    """

    def __init__(self, backbone: PeftModel, compare: Comparison) -> None:
        """Prepares a base for rows of two texts.

        Args:
            backbone: The base with its adapters. It is changed to accept the input `second`.
            compare: What the head reads; see the attribute.
        """
        super().__init__()
        self.compare = compare
        base: Any = backbone.get_base_model()
        self._type = next(p.dtype for p in base.parameters() if p.is_floating_point())
        self._is_causal = is_decoder(base.config.model_type)
        self._takes_places = "position_ids" in inspect.signature(base.forward).parameters
        self._first_place = _first_place(base)
        backbone.register_forward_pre_hook(self._parted, with_kwargs=True)

    def extra_repr(self) -> str:
        """Returns the comparison, on which gradients depend."""
        return self.compare

    def width(self, hidden: int) -> int:
        """Returns the number of values of a pair that a head reads, for H hidden units."""
        return 1 if self.compare == "cosine" else 3 * hidden

    def forward(self, hidden: Tensor, mask: Tensor, second: Tensor, pooling: Pooling) -> Tensor:
        """Returns what the head reads of each pair, float32 [B, 3H] or [B, 1].

        Args:
            hidden: The base's last hidden states, [B, T, H].
            mask: 1 at tokens, int64 [B, T].
            second: 1 at tokens of the second text, int64 [B, T].
            pooling: How the states of a text's tokens become one vector.
        """
        parts = (mask * (1 - second), mask * second)
        one, other = (pooling.of_part(hidden, part).to(torch.float32) for part in parts)
        if self.compare == "cosine":
            return F.cosine_similarity(one, other, dim=1).unsqueeze(1)
        return torch.cat([one, other, (one - other).abs()], dim=1)

    def _parted(
        self, _: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Replaces `second` by inputs that the base knows: an attention mask and positions."""
        if "second" not in keywords:
            return arguments, keywords
        second, mask = keywords["second"], keywords["attention_mask"]
        # Padding attends to the first text: an empty row of the mask would give NaN.
        allowed = (second[:, :, None] == second[:, None, :]) & (mask[:, None, :] == 1)
        if self._is_causal:
            allowed = allowed.tril()
        shut = torch.finfo(self._type).min
        blocks = torch.zeros(allowed.shape, dtype=self._type, device=mask.device)
        read = {**keywords, "attention_mask": blocks.masked_fill(~allowed, shut)[:, None]}
        del read["second"]
        if self._takes_places:
            places = torch.arange(mask.shape[1], device=mask.device)
            before = (mask * (1 - second)).sum(dim=1, keepdim=True)
            read["position_ids"] = self._first_place + places - before * second
        return arguments, read


def _first_place(base: nn.Module) -> int:
    """Returns the number of a text's first position (RoBERTa starts after the padding id)."""
    tables = (m for n, m in base.named_modules() if isinstance(m, nn.Embedding) and TABLE.search(n))
    padding = next((table.padding_idx for table in tables), None)
    return 0 if padding is None else padding + 1
