"""The `[machine]` section: what one machine spends on training, and nothing that moves a result.

It is in a simulation's recipe file and in a site's `site.toml`. It is no part of the study: the
coordinator does not send it, and a study's digest does not cover it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from cloister.bounds import Between, Text, shortened
from cloister.errors import UsageError
from cloister.fields import LATER, called, check_bounds
from cloister.training.config import MOST_CACHE, MOST_TOKENS, PLAIN_TOKENS, TrainingConfig

# The longest is `cuda:` and the number of one of at most 100 GPUs.
LONGEST_DEVICE = 7
# GPUs that the largest single machines have, four times over.
MOST_PROCESSES = 64
# Why a network is never compiled; tried with torch 2.13 (`docs/data-and-bases.md`).
NOT_COMPILED = (
    "compile: true given; torch.compile cannot trace layers that leave each record's own gradient "
    "(it refuses their autograd function), and a graph cut around each of them would run partly "
    "uncompiled without a word; leave machine.compile out"
)
_DEVICE = re.compile(r"cpu|mps|cuda(:\d{1,2})?")


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """The `[machine]` section: what computes, and how much memory it may take.

    Attributes:
        device: `cpu`, `cuda`, `cuda:1` and so on, or `mps`; what is not here is refused, and
            nothing falls back to the CPU. Absent or `auto`: the CUDA GPU where there is one, else
            the CPU.
        attention: How transformers computes attention: `sdpa` or `eager`. Absent: as it chooses
            for the base. Which one, the machine's proof is of.
        gradient_checkpointing: Whether a layer's activations are computed again in the backward
            pass, and not kept: memory for about a third more time. Gradients keep their bits,
            which the preflight shows. Absent: false.
        physical_batch_tokens: Most padded tokens that go through the network at once. Absent: in
            private training what the memory that is free has room for, at most 1,024 on a CPU and
            16,384 on a GPU. Elsewhere 2,048.
        frozen_cache_gib: Memory in GiB for what enters the first adapted layer (tokens · hidden
            size · 4 bytes a record in float32); with `lora.top_layers` it saves most of the time.
            Records that do not fit are computed each time; 0 keeps none. The default holds about
            60,000 records of 45 tokens at 384 units.
        processes: That compute a private batch together, each its share of the units: one a CUDA
            GPU, from the first on. On the CPU threads do the same in one base's memory. Noise is
            added once, and a round's bits are those of one process. They share `frozen_cache_gib`.
            Absent: one.
        compile: `true` is refused with the reason (torch.compile).
    """

    physical_batch_tokens: Annotated[int, Between(1, MOST_TOKENS)] | None = None
    frozen_cache_gib: Annotated[float, Between(0.0, MOST_CACHE)] = 4.0

    device: Annotated[str, Text(LONGEST_DEVICE, least=1)] | None = field(
        default=None, metadata={**LATER, **called("gpu cuda accelerator device_map")}
    )
    attention: Literal["sdpa", "eager"] | None = field(default=None, metadata=LATER)
    processes: Annotated[int, Between(1, MOST_PROCESSES)] | None = field(
        default=None, metadata=LATER
    )
    compile: bool | None = field(default=None, metadata=LATER)
    gradient_checkpointing: bool | None = field(
        default=None, metadata={**LATER, **called("activation_checkpointing checkpointing")}
    )

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.compile:
            raise UsageError(NOT_COMPILED)
        object.__setattr__(self, "compile", None)
        if self.device == "auto":  # the same machine as one that says nothing
            object.__setattr__(self, "device", None)
        if self.gradient_checkpointing is False:  # likewise
            object.__setattr__(self, "gradient_checkpointing", None)
        if self.device is not None and not _DEVICE.fullmatch(self.device):
            raise UsageError(
                f'device: {shortened(self.device)} given; "auto", "cpu", "cuda", "cuda:N" or '
                '"mps" is needed'
            )
        if self.processes == 1:  # likewise
            object.__setattr__(self, "processes", None)
        if self.processes is not None and self.device not in (None, "cpu", "cuda"):
            raise UsageError(
                f"processes: {self.processes} given with device = {self.device!r}; they take the "
                'CUDA GPUs from 0 on, one each: set device = "cuda", or "cpu"'
            )

    @property
    def plain_tokens(self) -> int:
        """Most padded tokens of a pass without privacy, as of scores on public records."""
        return self.physical_batch_tokens or PLAIN_TOKENS


def on_machine(training: TrainingConfig, machine: MachineConfig) -> TrainingConfig:
    """Returns a study's training section with this machine's memory settings in it."""
    return replace(
        training,
        physical_batch_tokens=machine.physical_batch_tokens,
        frozen_cache_gib=machine.frozen_cache_gib,
    )
