"""How much goes through the network at once where `machine.physical_batch_tokens` is absent.

A choice of time and memory: every row count that the proof keeps gives a record the same bits
(`training.shapes`, `training.proof`), which records are in a batch is drawn before, and no record
is looked at. So no promise follows from it, and it is no part of a study or of its digest. (Row
counts of another machine or choice may be other kernels, and differ by a rounding.)

Math:
    Half of what is free is taken, as the passes are not all that a process does, and of that half
    for activations, half for per-record gradients:

        tokens = free / 4 / (4 bytes · values that a token's backward pass keeps)
        rows   = free / 4 / (4 bytes · trained parameters)

    each down to a power of two. A layer keeps what enters and leaves its linear modules and norms:
    of a Llama of 512 units and 1,408 inner ones 12,600 values with adapters on all modules, where
    10,100 were measured (`benchmarks/memory.py`). Attention that is written out keeps three values
    for each head and pair of tokens beside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from cloister.models.attach import is_adapted
from cloister.models.layers import layer_list
from cloister.models.network import Network
from cloister.models.prefix import GIB
from cloister.models.token_head import KEPT_BYTES
from cloister.training.config import PLAIN_TOKENS, TrainingConfig
from cloister.training.free_memory import free_at_start
from cloister.training.workspace import Workspace

# Bounds of the choice. On a CPU, larger passes are no faster a token (MiniLM: 0.57 ms at 512
# tokens and at 2,048), and would take longer to prove; a GPU of 4·10¹⁴ operations a second works
# for a second on 16,384 tokens of a base of 8 billion parameters, beside which a launch is nothing.
LEAST_TOKENS = 64
CPU_TOKENS = 1024
GPU_TOKENS = 16_384
# Bytes of a value: float32, which norms and adapters compute in whatever the base's type is.
VALUE = 4
# The share of what is free that activations may take, and likewise per-record gradients.
SHARE = 4
# Values beside each trained parameter: a step's sums, noise and optimizer, of 8 bytes at most.
BESIDE = 8


@dataclass(frozen=True)
class Room:
    """What goes through at once.

    Attributes:
        tokens: Most padded tokens; a longer record goes alone.
        rows: Most records; None: as many as the tokens allow.
    """

    tokens: int
    rows: int | None


def room_for(workspace: Workspace, config: TrainingConfig) -> Room:
    """What the free memory has room for, on this machine and for this study.

    Args:
        workspace: Its network is already where it computes.
        config: With what the machine keeps of frozen layers.
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
    if network.prefix is not None:
        held += min(int(config.frozen_cache_gib * GIB), free // SHARE)
    if network.head is None:
        held += 2 * KEPT_BYTES
    part = max(free - held, 0) // SHARE
    tokens = part // (VALUE * kept_values(network, workspace.task.max_length))
    rows = part // (VALUE * max(trained, 1))
    return Room(min(max(_power(tokens), LEAST_TOKENS), most), _power(rows))


def kept_values(network: Network, longest: int) -> int:
    """Values that the backward pass of one token keeps, or a few more.

    Args:
        network: Base, adapters and head.
        longest: Tokens of a record, which one token's attention is of.
    """
    config: Any = network.base.config.get_text_config()
    hidden = int(config.hidden_size)
    found = layer_list(network.backbone, int(config.num_hidden_layers))
    layers = list(found[1]) if found is not None else [network.base]
    adapted = [n for n, layer in enumerate(layers) if network.is_prompted or is_adapted(layer)]
    first = min(adapted, default=len(layers))
    of_each = [sum(_of_module(module) for module in layer.modules()) for layer in layers[first:]]
    if getattr(config, "_attn_implementation", None) != "sdpa":
        heads = int(getattr(config, "num_attention_heads", 1))
        of_each = [values + 3 * heads * longest for values in of_each]
    kept = max(of_each, default=0) if network.checkpoints is not None else sum(of_each)
    inputs = hidden * (len(of_each) + 2)
    words = 3 * network.vocabulary if network.head is None and network.token_head is None else 0
    return kept + inputs + words


def _of_module(module: nn.Module) -> int:
    """What enters and leaves a module of its own weights, for one token."""
    if isinstance(module, nn.Linear):  # a quantized one's weights are packed
        return module.in_features + module.out_features
    return sum(_of_weight(parameter) for parameter in module.parameters(recurse=False))


def _of_weight(weight: nn.Parameter) -> int:
    enters, leaves = weight.shape[-2:] if weight.dim() > 1 else (weight.numel(),) * 2
    return int(enters) + int(leaves)


def _power(number: int) -> int:
    """The largest power of two that is not above a number; 1 below 2."""
    return 1 << (max(number, 1).bit_length() - 1)
