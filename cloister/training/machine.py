"""The `[machine]` section: a machine's settings for training, which change no result.

It is in a simulation's recipe file and in a site's `site.toml`. It is not part of the study: the
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
# Four times the GPUs of the largest single machines.
MOST_PROCESSES = 64
# Why a network is never compiled; tried with torch 2.13 (`docs/data-and-bases.md`).
NOT_COMPILED = (
    "compile: true given; torch.compile cannot trace layers that compute each record's own "
    "gradient (it refuses their autograd function), and a graph with breaks at each of them would "
    "run partly uncompiled without a message; leave machine.compile out"
)
_DEVICE = re.compile(r"cpu|mps|cuda(:\d{1,2})?")


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """The `[machine]` section: what computes, and how much memory it may take.

    Attributes:
        device: `cpu`, `cuda`, `cuda:1` and so on, or `mps`. A device that does not exist is
            refused, without a fallback to the CPU. Absent or `auto`: the CUDA GPU if there is one,
            else the CPU.
        attention: How transformers computes attention: `sdpa` or `eager`. Absent: transformers'
            choice for the base. The machine's proof covers only the chosen one.
        gradient_checkpointing: Whether a layer's activations are computed again in the backward
            pass instead of kept: this saves memory and takes about a third more time. Gradients
            keep their bits, which the preflight checks. Absent: false.
        physical_batch_tokens: Most padded tokens that go through the network at once. Absent: in
            private training as many as fit into free memory, at most 1,024 on a CPU and 16,384 on a
            GPU; in training without privacy on a CPU 256 for each thread; elsewhere
            2,048.
        frozen_cache_gib: Memory in GiB for the inputs of the first adapted layer (tokens · hidden
            size · 4 bytes per record in float32); with `lora.top_layers` it saves most of the time.
            Records that do not fit are computed each time; 0 keeps none. The default holds about
            60,000 records of 45 tokens at 384 units.
        processes: Number of processes that compute a private batch together, each a share of the
            units: one per CUDA GPU, from the first GPU on. On the CPU, threads do the same with the
            memory of one base. Noise is added once, and a round's bits are those of one process.
            They share `frozen_cache_gib`. Absent: one.
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
        if self.device == "auto":  # the same as an absent key
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
        """Most padded tokens of a pass without privacy, for example for scores on public
        records."""
        return self.physical_batch_tokens or PLAIN_TOKENS


def on_machine(training: TrainingConfig, machine: MachineConfig) -> TrainingConfig:
    """Returns a study's training section with this machine's memory settings in it."""
    return replace(
        training,
        physical_batch_tokens=machine.physical_batch_tokens,
        frozen_cache_gib=machine.frozen_cache_gib,
    )
