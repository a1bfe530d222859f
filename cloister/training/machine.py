"""The `[machine]` section: what one machine spends on training, and nothing that moves a result.

It is in a simulation's recipe file and in a site's `site.toml`. It is no part of the study: the
coordinator does not send it, and a study's digest does not cover it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from cloister.bounds import Between
from cloister.fields import check_bounds
from cloister.training.config import MOST_CACHE, MOST_TOKENS, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """The `[machine]` section: how much memory training may take.

    Attributes:
        physical_batch_tokens: Most padded tokens that go through the network at once.
        frozen_cache_gib: Memory in GiB for what enters the first adapted layer (tokens · hidden
            size · 4 bytes a record in float32); with `lora.top_layers` it saves most of the time.
            Records that do not fit are computed each time; 0 keeps none. The default holds about
            60,000 records of 45 tokens at 384 units.
    """

    # Among the fastest of 512…8192, one noisy run of MiniLM.
    physical_batch_tokens: Annotated[int, Between(1, MOST_TOKENS)] = 2048
    frozen_cache_gib: Annotated[float, Between(0.0, MOST_CACHE)] = 4.0

    def __post_init__(self) -> None:
        check_bounds(self)


def on_machine(training: TrainingConfig, machine: MachineConfig) -> TrainingConfig:
    """What a study says of training, with what this machine spends on it."""
    return replace(
        training,
        physical_batch_tokens=machine.physical_batch_tokens,
        frozen_cache_gib=machine.frozen_cache_gib,
    )
