"""Gives a network the process's caches of what its frozen layers compute for each record."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from uuid import uuid4

from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.head_inputs import HeadInputs
from cloister.models.kept_states import GIB, Filled, KeptStates
from cloister.models.network import Network
from cloister.models.prefix_check import try_prefix
from cloister.tasks.task import Task


def cache_frozen(
    network: Network,
    task: Task,
    model: ModelConfig,
    lora: LoraConfig,
    *,
    sha256: str,
    attention: str | None,
    vocabulary: int,
    max_gib: float,
) -> None:
    """Lets a network keep states of its frozen layers, and what its head reads, where it can.

    Args:
        network: The network; a base whose states cannot be cached computes them each time.
        task: The task, which gives the texts of the check.
        model: The `[model]` section.
        lora: The `[lora]` section.
        sha256: SHA-256 of the base's weights.
        attention: `machine.attention`.
        vocabulary: Token ids that the base has.
        max_gib: Memory for both caches together, in GiB.
    """
    is_probe = lora.train == "none" and not lora.residual
    adapted = 0 if is_probe or lora.is_prompt else lora.top_layers
    computed = f"{model.dtype} {model.quantization} {network.device} {attention}"
    computed += "" if network.two is None else f" {network.two.compare}"
    computed += f" {network.pooling and (network.pooling.mode, network.pooling.normalize)}"
    kept = _kept(sha256, computed, model.layers, adapted)
    if is_probe or adapted:
        network.prefix = try_prefix(network, task, vocabulary, adapted, kept.states, max_gib)
    if network.head is not None:
        network.head_inputs = _head_inputs(network, kept.head_inputs, max_gib, is_probe)


@dataclass(frozen=True)
class _Caches:
    """A process's caches of what the base computed for each record, with one limit for both.

    Attributes:
        states: States that enter the first adapted layer.
        head_inputs: What the head reads.
    """

    states: KeptStates
    head_inputs: KeptStates


@lru_cache(maxsize=1)
def _kept(sha256: str, computed: str, layers: int | None, adapted: int) -> _Caches:
    """Returns this process's caches, which a twin or the next seed uses again."""
    filled = Filled()
    return _Caches(KeptStates(filled), KeptStates(filled))


def _head_inputs(network: Network, kept: KeptStates, max_gib: float, is_probe: bool) -> HeadInputs:
    """Returns the cache of what a network's head reads.

    In a probe all networks on a base compute the same. With adapters each starts from its own
    values, so another network's vectors are not used.
    """
    before = [p for name, p in network.named_parameters() if not name.startswith("head.")]
    origin = b"" if is_probe else uuid4().bytes
    return HeadInputs(before, kept, max_gib * GIB, origin)
