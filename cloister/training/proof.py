"""Before private training: proof, on this machine, that records do not touch each other.

`prove` runs every shape of a study (`training.shapes`) on synthetic batches, with the kernels,
types and threads that will train, and keeps the row counts with which a record contributes the same
integers wherever it is and whatever is beside it. It also shows that per-record gradients are exact
(`training.preflight`), that every shape fits into memory, and how long each takes. No record of
anybody's is in it, so its outcome may be told.

Cover: each shape is run once in full production (states of frozen layers, forward, per-record
backward, clip) for each set of tensors that trains in some round. A pass holds copies of two
probes, with and without padding, in random slots (several copies of each from 8 rows on), random
companions of every length, and a quarter of dummies. All copies must agree, in a pass and over the
passes of an edge, whose companions, slots and dummies all differ. Further passes for each edge:
with two records and dummies, with each probe beside companions alone, with states of frozen layers
computed in another shape, and with adapter values of both signs as large as the site takes.
Companions are a sample: what is shown of the kernels is that their order of summation follows from
shapes, which no sample of values would change.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import resource
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from cloister.errors import RefusedError
from cloister.models.network import Network, trained_parameters
from cloister.models.state import write_adapter
from cloister.privacy.plan import Plan
from cloister.tasks.task import Example
from cloister.training.config import TrainingConfig
from cloister.training.preflight import preflight
from cloister.training.room import CPU_TOKENS, room_for
from cloister.training.shapes import BatchShapes, candidates, one_by_one
from cloister.training.synthetic_batches import SyntheticBatches
from cloister.training.trials import Machine, refusing, shared_grid
from cloister.training.unchanged import restored
from cloister.training.workspace import Workspace

log = logging.getLogger(__name__)

# The most that an adapter's values may be unless a site's policy says otherwise
# (`accept.max_adapter_value`).
MAX_ADAPTER_VALUE = 100.0

# What is logged where records that stand together do not give equal bits.
ALONE = (
    "preflight: on this device records change each other's gradients in the last bits, whatever "
    "their number; each goes through the network alone, which is sound and several times slower"
)

_PACKAGES = ("cloister", "torch", "transformers", "peft", "opacus", "tokenizers")
# Variables by which libraries choose their kernels; cuBLAS' own are fixed (`models.device`).
_KERNELS = (
    "MKL_",
    "ONEDNN_",
    "DNNL_",
    "OPENBLAS_",
    "OMP_",
    "KMP_",
    "ATEN_",
    "TORCH_",
    "CUDA_",
    "NVIDIA_",
    "PYTORCH_",
)
# What tells one kind of processor from another, as Linux lists it.
_PROCESSOR = re.compile(
    r"^(vendor_id|cpu family|model|model name|stepping|flags|CPU \w+|Features)\s*:"
)


@cache
def version(name: str) -> str:
    """Returns a package's version; once for a process, as it loads the package once."""
    return metadata.version(name)


@dataclass(frozen=True)
class Proof:
    """What a machine showed of a study.

    Attributes:
        shapes: The padded lengths, and the row counts that give every record equal bits.
        seconds: Of one pass, by (length, rows): forward, backward and clip; for preferences also
            the two forwards of the log-ratios.
        peak_bytes: Most memory in use while every shape was tried: the device's, or the process's.
        key: SHA-256 of all that it depends on (`Proof.key_of`).
    """

    shapes: BatchShapes
    seconds: tuple[tuple[int, int, float], ...]
    peak_bytes: int
    key: str

    @property
    def one_by_one(self) -> bool:
        """Whether records go through the network one by one, because companions change them."""
        return self.shapes.one_by_one

    def seconds_of(self, sequences: int) -> float:
        """Time of a step with so many sequences if all were of the slowest edge, in seconds.

        A record is one sequence; a pair of preferences is two.
        """
        least = {
            length: min(s / rows for at, rows, s in self.seconds if at == length)
            for length, _, _ in self.seconds
        }
        single = max(seconds for _, _, seconds in self.seconds)
        return single + sequences * max(least.values())

    def to_json(self) -> dict[str, Any]:
        """Returns the proof as JSON values."""
        return {
            "shapes": self.shapes.to_json(),
            "seconds": [list(entry) for entry in self.seconds],
            "peak_bytes": self.peak_bytes,
            "key": self.key,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Proof:
        """Builds a proof from the values of `to_json`."""
        return cls(
            BatchShapes.from_json(value["shapes"]),
            tuple((int(a), int(b), float(c)) for a, b, c in value["seconds"]),
            int(value["peak_bytes"]),
            str(value["key"]),
        )

    @staticmethod
    def key_of(
        workspace: Workspace,
        plan: Plan,
        config: TrainingConfig,
        *,
        max_adapter_value: float = MAX_ADAPTER_VALUE,
    ) -> str:
        """SHA-256 of what a proof depends on; with an equal key an old proof still holds."""
        text = json.dumps(depends_on(workspace, plan, config, max_adapter_value), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def depends_on(
    workspace: Workspace, plan: Plan, config: TrainingConfig, max_adapter_value: float
) -> dict[str, Any]:
    """All that the outcome of `prove` follows from, by name."""
    network, task = workspace.network, workspace.task
    return {
        "base": workspace.base_sha256,
        "network": hashlib.sha256(repr(network).encode()).hexdigest(),
        "types": sorted({str(p.dtype) for p in network.parameters()}),
        "pooling": _pooling(network),
        "kept layers": network.prefix is not None,
        "computed again": network.checkpoints is not None,
        "attention": str(getattr(network.backbone.config, "_attn_implementation", None)),
        "trained": [sorted(names) for names in _trained_sets(workspace, plan, config)],
        "task": [task.kind, len(task.labels), task.max_length, *getattr(task, "origin", ())],
        **({"log-ratios": True} if getattr(task, "dpo_beta", None) is not None else {}),
        "shapes": shapes_to_try(workspace, config).to_json(),
        "bound": plan.max_grad_norm,
        "grid": None if plan.sharing is None else shared_grid(workspace, plan),
        "max_adapter_value": max_adapter_value,
        "versions": {name: version(name) for name in _PACKAGES},
        "device": _device(network),
        "build": hashlib.sha256(torch.__config__.show().encode()).hexdigest(),
        "variables": {n: v for n, v in sorted(os.environ.items()) if n.startswith(_KERNELS)},
        "threads": torch.get_num_threads(),
    }


def _pooling(network: Network) -> str:
    """How a text becomes what the head reads, in words that older proofs used too."""
    told = str(network.pooling and (network.pooling.mode, network.pooling.normalize))
    return told if network.center is None else f"{told}, centred"


def shapes_to_try(workspace: Workspace, config: TrainingConfig) -> BatchShapes:
    """The candidates of a study on this machine."""
    tokens = config.physical_batch_tokens
    if tokens is None:
        room = room_for(workspace, config)
        return candidates(workspace.task.max_length, room.tokens, room.rows)
    if workspace.network.device.type == "cpu":
        tokens = min(tokens, CPU_TOKENS)
    return candidates(workspace.task.max_length, tokens)


_proofs: dict[str, Proof] = {}


def proven(
    workspace: Workspace,
    plan: Plan,
    config: TrainingConfig,
    *,
    max_adapter_value: float = MAX_ADAPTER_VALUE,
) -> Proof:
    """`prove`, or what this process proved before for an equal key."""
    key = Proof.key_of(workspace, plan, config, max_adapter_value=max_adapter_value)
    if key not in _proofs:
        _proofs[key] = prove(workspace, plan, config, max_adapter_value=max_adapter_value)
    return _proofs[key]


def prove(
    workspace: Workspace,
    plan: Plan,
    config: TrainingConfig,
    *,
    max_adapter_value: float = MAX_ADAPTER_VALUE,
) -> Proof:
    """Tries every shape of a private study.

    Args:
        workspace: Base, task and network; left as it was, but for what trains and its gradients.
        plan: A private plan: its bound and grid are the clip's.
        config: Of training: which tensors train in which round, and a pass's most tokens.
        max_adapter_value: The largest value that an adapter may have at the site.

    Raises:
        PreflightError: Per-record gradients are not exact, or a shape cannot be computed; with the
            name and the remedy.
        RefusedError: The plan has no clip bound.

    Guarantees:
        With the shapes that it returns, the records tried contribute equal integers over slots,
        companions, dummies and row counts. Where row counts disagree, those that agree with most
        others are left, down to one; where companions matter, every record goes alone.
    """
    if plan.max_grad_norm is None:
        raise RefusedError("a proof of isolation was asked for a plan without a clip bound")
    network, task = workspace.network, workspace.task
    trained = frozenset(name for name, _ in trained_parameters(network))
    trial_shapes = shapes_to_try(workspace, config)
    try:
        with restored(network, frozenset(workspace.start)):
            write_adapter(network, workspace.start)
            workspace.train_names(frozenset(workspace.start))
            samples = _samples(workspace)
            prefix = network.prefix
            kept_apart = prefix.apart() if prefix is not None else nullcontext()
            with kept_apart, refusing(len(samples), len(samples[0].input_ids)):
                preflight(network, task, samples)
            found: BatchShapes | None = trial_shapes
            seconds: dict[tuple[int, int], float] = {}
            for names in _trained_sets(workspace, plan, config):
                write_adapter(network, workspace.start)
                workspace.train_names(names)
                machine = Machine(workspace, plan, max_adapter_value, seconds)
                found = machine.agreeing(found) if found is not None else None
    finally:
        workspace.train_names(trained)
    if (found is None or found.one_by_one) and not trial_shapes.one_by_one:
        log.warning("%s", ALONE)
    shapes = replace(found or one_by_one(task.max_length), threads=torch.get_num_threads())
    wanted = {(shape.length, shape.rows) for shape in shapes.all()}
    return Proof(
        shapes,
        tuple((*at, round(s, 6)) for at, s in sorted(seconds.items()) if at in wanted),
        _peak(network),
        Proof.key_of(workspace, plan, config, max_adapter_value=max_adapter_value),
    )


def _trained_sets(workspace: Workspace, plan: Plan, config: TrainingConfig) -> list[frozenset[str]]:
    """The sets of tensors that train in some round, in order of their first round."""
    rounds = {*range(1, min(plan.num_rounds, 2) + 1)}
    rounds |= {min(config.probe_rounds + k, plan.num_rounds) for k in (1, 2)}
    sets = [workspace.trained_in_round(config, number) for number in sorted(rounds)]
    return list(dict.fromkeys(sets))


def _samples(workspace: Workspace) -> list[Example]:
    """A synthetic record of the greatest length and one of half of it; both have much to learn."""
    task = workspace.task
    batches = SyntheticBatches(task, workspace.network.vocabulary)
    return [batches.example(tokens) for tokens in (task.max_length, max(task.max_length // 2, 2))]


def _device(network: Network) -> str:
    """What computes: a proof made on another processor or driver is of other kernels."""
    if network.device.type == "cuda":
        name = torch.cuda.get_device_name(network.device)
        capability = torch.cuda.get_device_capability(network.device)
        return (
            f"{name} {capability} CUDA {torch.version.cuda} cuDNN {torch.backends.cudnn.version()}"
        )
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {_processor()}"


def _processor() -> str:
    """A hash of the processors' kind, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return platform.processor()
    told = sorted({" ".join(line.split()) for line in lines if _PROCESSOR.match(line)})
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def _peak(network: Network) -> int:
    if network.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(network.device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
