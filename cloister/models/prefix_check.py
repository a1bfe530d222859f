"""Checks that starting at the first adapted layer gives the same logits as the whole network.

Some bases cannot be cut there: T5's first layer computes values that all others add, and some bases
pass more than hidden states from layer to layer. Their states are computed each time, which costs
time and does not change the result.
"""

from __future__ import annotations

import torch

from cloister.data.records import POOLED
from cloister.errors import UsageError
from cloister.models.kept_states import KeptStates
from cloister.models.network import Network
from cloister.models.prefix import FrozenPrefix
from cloister.tasks.task import Batch, Example, Task

# Largest difference between two computations of the same logits or gradient, relative to its
# length: float32 sums over a sentence differ by about 1e-6 between batch shapes; bfloat16 has 8
# bits (2⁻⁸ = 4e-3 per rounding, a few of them in a row).
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
# Tokens of the two test texts: fewer than the positions of any base.
_LENGTHS = (7, 4)


def coarsest(network: Network) -> torch.dtype:
    """Returns the least precise number type in the computation of a network's logits."""
    coarse = any(p.dtype != torch.float32 for p in network.backbone.parameters())
    return torch.bfloat16 if coarse else torch.float32


def prefix_problem(network: Network, batch: Batch) -> str | None:
    """Returns what is wrong with a frozen prefix on a batch; None: nothing.

    Args:
        network: A network with a prefix.
        batch: A batch of at least one example.
    """
    device = network.device
    with torch.no_grad():
        whole = network(**network.inputs(batch))
        try:
            short = network.logits(batch)
        except (AttributeError, TypeError, ValueError, RuntimeError, IndexError, KeyError) as error:
            return f"this base's frozen layers cannot be skipped ({error})"
    mask = batch.attention_mask.to(device).bool()
    if whole.dim() == 3:
        whole, short = whole[mask], short[mask]
    difference = float((whole.float() - short.float()).norm())
    if not difference <= TOLERANCE[coarsest(network)] * float(whole.float().norm()):
        return f"keeping the frozen layers' states changes the logits by {difference:.3g}"
    return None


def try_prefix(
    network: Network, task: Task, vocabulary: int, top_layers: int, kept: KeptStates, max_gib: float
) -> FrozenPrefix | None:
    """Returns a network's frozen prefix; None: its states cannot be cached.

    Args:
        network: A network without a prefix; its head is not changed.
        task: The task, which pads two made-up texts.
        vocabulary: Number of the base's token ids.
        top_layers: Number of adapted layers; 0: none, because only the head trains.
        kept: The storage for states.
        max_gib: Largest size of the cache, in GiB.
    """
    layers = int(network.base.config.num_hidden_layers)
    if not 0 <= top_layers < layers:
        return None
    try:
        prefix = FrozenPrefix(network.backbone, layers, top_layers, kept, max_gib)
    except UsageError:
        return None
    ids = [tuple(7 * place % vocabulary for place in range(length)) for length in _LENGTHS]
    is_text = task.record_kind in POOLED
    examples = [Example(one, 0 if is_text else one) for one in ids]
    network.prefix = prefix
    head = network.head
    try:
        # The initial head may be zero, whose logits do not depend on its input.
        network.head = torch.nn.Identity() if head is not None else None
        with prefix.apart():
            works = prefix_problem(network, task.collate(examples)) is None
    finally:
        network.prefix, network.head = None, head
    return prefix if works else None
