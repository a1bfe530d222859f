"""Supports adapters on modules whose input is one matrix with all tokens of all records as rows.

Some feed-forward layers and experts flatten their input from [records, tokens, features] to
[records × tokens, features] (OPT, Qwen-MoE's shared expert). The shape alone tells which row
belongs to which record, so the input is reshaped for the adapter: per-record gradients need the
records as first dimension.

Shapes: B records, T tokens, F features.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from cloister.models.adapted_modules import is_linear


class _Records:
    """Notes the numbers of records and tokens of the batch in each forward pass."""

    def __init__(self) -> None:
        self.shape: tuple[int, int] | None = None

    def note(self, _: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Reads the batch's shape, before a forward pass."""
        ids = keywords.get("input_ids", arguments[0] if arguments else None)
        self.shape = None
        if isinstance(ids, Tensor) and ids.dim() == 2:
            self.shape = (int(ids.shape[0]), int(ids.shape[1]))


def give_rows_their_records(adapted: PeftModel) -> None:
    """Makes every adapted module compute [B × T, F] as [B, T, F]; its output is [B × T, F] again.

    Guarantees:
        While gradients are computed, a matrix whose number of rows is neither that of records nor
        that of their tokens is an error: its rows are chosen by the records' content (a router's
        tokens), and their gradients would be assigned to wrong records.
    """
    records = _Records()
    adapted.get_base_model().register_forward_pre_hook(records.note, with_kwargs=True)
    for name, module in adapted.named_modules():
        # A router returns a tuple: peft adapts its weights and not the module.
        if isinstance(module, BaseTunerLayer) and is_linear(module.get_base_layer()):
            assert isinstance(module, nn.Module)
            matrix = _Matrix(name, records)
            module.register_forward_pre_hook(matrix.before)
            module.register_forward_hook(matrix.after)


class _Matrix:
    """The hooks of one adapted module: reshape an input that is a matrix of all records' tokens."""

    def __init__(self, name: str, records: _Records) -> None:
        self._name, self._records, self._is_reshaped = name, records, False

    def before(self, _: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        self._is_reshaped = False
        matrix = arguments[0] if arguments else None
        if not isinstance(matrix, Tensor) or matrix.dim() != 2 or not matrix.is_floating_point():
            return None
        if self._records.shape is None:
            return None
        batch, tokens = self._records.shape
        if len(matrix) == batch * tokens:
            self._is_reshaped = True
            return (matrix.view(batch, tokens, -1), *arguments[1:])
        if len(matrix) != batch and torch.is_grad_enabled():
            raise RuntimeError(
                f"{self._name} gets {len(matrix)} rows for {batch} records of {tokens} tokens, so "
                "which row belongs to which record depends on the records' content"
            )
        return None

    def after(self, _: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return output.flatten(0, 1) if self._is_reshaped else None
