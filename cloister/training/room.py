"""Chooses the size of a pass if `machine.physical_batch_tokens` is absent.

The choice affects time and memory only: every row count that the proof keeps gives a record the
same bits (`training.shapes`, `training.proof`), the batch is drawn before, and no record is looked
at. So no promise depends on it, and it is not part of a study or its digest. (Another machine or
choice may use other kernels and differ by rounding.)

Math:
    Half of the free memory is used, since a process does more than passes; of it one half is for
    activations and one for per-record gradients:

        tokens = free / 4 / (4 bytes · values that a token's backward pass keeps)
        rows   = free / 4 / (4 bytes · trained parameters)

    each rounded down to a power of two. A layer keeps the inputs and outputs of its linear modules
    and norms: for a Llama of 512 units and 1,408 inner ones with adapters on all modules 12,600
    values, where 10,100 were measured (`benchmarks/memory.py`). Eager attention keeps three more
    values for each head and pair of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from cloister.models.attach import is_adapted
from cloister.models.kept_states import GIB
from cloister.models.layers import layer_list
from cloister.models.network import Network
from cloister.models.token_head import KEPT_BYTES
from cloister.training.config import PLAIN_TOKENS, TrainingConfig
from cloister.training.free_memory import free_at_start
from cloister.training.workspace import Workspace

# Bounds of the choice. On a CPU larger passes are not faster per token (MiniLM: 0.57 ms at 512
# tokens and at 2,048) and take longer to prove. A GPU of 4·10¹⁴ operations per second needs a
# second for 16,384 tokens of a base of 8 billion parameters, so the time of a launch is negligible.
LEAST_TOKENS = 64
CPU_TOKENS = 1024
GPU_TOKENS = 16_384
# Bytes of a value: float32, which norms and adapters compute in whatever the base's type is.
VALUE = 4
# Activations may use 1/SHARE of the free memory, and so may per-record gradients.
SHARE = 4
# Further values per trained parameter: a step's sums, noise and optimizer, of 8 bytes at most.
BESIDE = 8


@dataclass(frozen=True)
class Room:
    """The largest size of one pass through the network.

    Attributes:
        tokens: Most padded tokens; a longer record goes alone.
        rows: Most records; None: as many as the tokens allow.
    """

    tokens: int
    rows: int | None


def room_for(workspace: Workspace, config: TrainingConfig) -> Room:
    """The size of a pass that fits into this machine's free memory, for this study.

    Args:
        workspace: The study's; its network is already on its device.
        config: The `[training]` section, with the machine's cache size.
    """
    network, trained = workspace.network, workspace.start.size
    is_cpu = network.device.type == "cpu"
    most = CPU_TOKENS if is_cpu else GPU_TOKENS
    free = free_at_start(network.device)
    if free is None:
        return Room(min(PLAIN_TOKENS, most), None)
    if is_cpu and workspace.team is not None:  # on GPUs each process has one of its own
        free //= workspace.team.processes
    held = (
        sum(p.numel() * p.element_size() for p in network.parameters()) + BESIDE * VALUE * trained
    )
    if network.prefix is not None or network.head_inputs is not None:
        held += min(int(config.frozen_cache_gib * GIB), free // SHARE)
    if network.head is None:
        held += 2 * KEPT_BYTES
    part = max(free - held, 0) // SHARE
    tokens = part // (VALUE * kept_values(network, workspace.task.max_length))
    rows = part // (VALUE * max(trained, 1))
    return Room(min(max(_power(tokens), LEAST_TOKENS), most), _power(rows))


def kept_values(network: Network, longest: int) -> int:
    """An upper estimate of the values that the backward pass keeps for one token.

    Args:
        network: Base, adapters and head.
        longest: Most tokens of a record, to which a token attends.
    """
    config: Any = network.base.config.get_text_config()
    hidden = int(config.hidden_size)
    found = layer_list(network.backbone, int(config.num_hidden_layers))
    layers = list(found[1]) if found is not None else [network.base]
    adapted = [n for n, layer in enumerate(layers) if network.is_prompted or is_adapted(layer)]
    # An adversarial step goes back to the embeddings.
    first = 0 if network.adversarial_radius else min(adapted, default=len(layers))
    of_each = [sum(_of_module(module) for module in layer.modules()) for layer in layers[first:]]
    if getattr(config, "_attn_implementation", None) != "sdpa":
        heads = int(getattr(config, "num_attention_heads", 1))
        of_each = [values + 3 * heads * longest for values in of_each]
    kept = max(of_each, default=0) if network.checkpoints is not None else sum(of_each)
    inputs = hidden * (len(of_each) + 2)
    words = 3 * network.vocabulary if network.head is None and network.token_head is None else 0
    return kept + inputs + words


def _of_module(module: nn.Module) -> int:
    """The number of inputs and outputs of a module's own weights, for one token."""
    if isinstance(module, nn.Linear):  # a quantized one's weights are packed
        return module.in_features + module.out_features
    return sum(_of_weight(parameter) for parameter in module.parameters(recurse=False))


def _of_weight(weight: nn.Parameter) -> int:
    enters, leaves = weight.shape[-2:] if weight.dim() > 1 else (weight.numel(),) * 2
    return int(enters) + int(leaves)


def _power(number: int) -> int:
    """The largest power of two up to a number; 1 for numbers below 2."""
    return 1 << (max(number, 1).bit_length() - 1)
