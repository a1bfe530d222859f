"""Proves on this machine, before private training, that no record changes another's gradient.

`prove` runs every shape of a study (`training.shapes`) on synthetic batches, with the kernels,
types and threads of training, and keeps the row counts with which a record contributes the same
integers in any row and beside any other records. It also shows that per-record gradients are exact
(`training.preflight`), that every shape fits into memory, and how long each takes. It uses no real
record, so its outcome may be public.

Coverage: each shape is run once in full production (states of frozen layers, forward, per-record
backward, clip) for each set of tensors that trains in some round. A pass holds copies of two
probes, with and without padding, in random slots (several copies of each from 8 rows on), random
companions of every length, and a quarter of dummies. All copies must agree, within a pass and over
the passes of an edge, which all have other companions, slots and dummies. Further passes for each
edge: with two records and dummies, with each probe beside companions alone, with states of frozen
layers computed in another shape, and with adapter values of both signs, as large as the site
accepts. Companions are a sample. What is tested is that the kernels' order of summation depends on
shapes only, not on values.
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
from cloister.tasks.recommendation import Recommendation
from cloister.tasks.retrieval import Retrieval
from cloister.tasks.task import Example, Task
from cloister.training.config import TrainingConfig
from cloister.training.preflight import preflight
from cloister.training.room import CPU_TOKENS, room_for
from cloister.training.shapes import (
    BatchShapes,
    candidates,
    one_by_one,
    records_at_an_edge,
)
from cloister.training.synthetic_batches import SyntheticBatches
from cloister.training.trials import Machine, refusing, shared_grid
from cloister.training.unchanged import restored
from cloister.training.workspace import Workspace

log = logging.getLogger(__name__)

# Largest absolute value of an adapter, unless a site's policy sets another
# (`accept.max_adapter_value`).
MAX_ADAPTER_VALUE = 100.0

# Logged if records in one pass do not give equal bits.
ALONE = (
    "preflight: on this device records in one pass change each other's gradients in the last bits; "
    "each goes through the network alone, which is safe and several times slower"
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
# Lines of /proc/cpuinfo that identify the kind of processor.
_PROCESSOR = re.compile(
    r"^(vendor_id|cpu family|model|model name|stepping|flags|CPU \w+|Features)\s*:"
)


@cache
def version(name: str) -> str:
    """Returns a package's version; once for a process, as it loads the package once."""
    return metadata.version(name)


@dataclass(frozen=True)
class Proof:
    """A machine's proof for a study.

    Attributes:
        shapes: The padded lengths, and the row counts that give every record equal bits.
        seconds: Seconds of one pass, by (length, rows): forward, backward and clip; for preferences
            also the two forwards of the log-ratios.
        peak_bytes: Peak memory while the shapes were tried: the device's, or the process's.
        key: SHA-256 of everything that it depends on (`Proof.key_of`).
    """

    shapes: BatchShapes
    seconds: tuple[tuple[int, int, float], ...]
    peak_bytes: int
    key: str

    @property
    def one_by_one(self) -> bool:
        """Whether records go through the network one by one, because other records change their
        bits."""
        return self.shapes.one_by_one

    def seconds_of(self, sequences: int) -> float:
        """Seconds of a step with this number of sequences, if all had the slowest padded length.

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
        """SHA-256 of what a proof depends on; an old proof with an equal key is still valid."""
        text = json.dumps(depends_on(workspace, plan, config, max_adapter_value), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def depends_on(
    workspace: Workspace, plan: Plan, config: TrainingConfig, max_adapter_value: float
) -> dict[str, Any]:
    """Everything that the outcome of `prove` depends on, by name."""
    network, task = workspace.network, workspace.task
    shapes = shapes_to_try(workspace, config)
    return {
        "base": workspace.base_sha256,
        "network": hashlib.sha256(repr(network).encode()).hexdigest(),
        "types": sorted({str(p.dtype) for p in network.parameters()}),
        "pooling": _pooling(network),
        "kept layers": network.prefix is not None,
        # Without a head, as before: keys of older proofs stay equal.
        **({"kept head inputs": True} if network.head_inputs is not None else {}),
        "computed again": network.checkpoints is not None,
        "attention": str(getattr(network.backbone.config, "_attn_implementation", None)),
        "trained": [sorted(names) for names in _trained_sets(workspace, plan, config)],
        "task": [task.kind, len(task.labels), task.max_length, *getattr(task, "origin", ())],
        **({"weights": weights} if (weights := getattr(task, "weights", None)) else {}),
        **_public_layer(task),
        **({"log-ratios": True} if getattr(task, "dpo_beta", None) is not None else {}),
        **({"adversarial": radius} if (radius := network.adversarial_radius) else {}),
        "shapes": shapes.to_json(),
        "records": records_at_an_edge(config.expected_batch_size, len(shapes.counts)),
        "bound": plan.max_grad_norm,
        "grid": None if plan.sharing is None else shared_grid(workspace, plan),
        "max_adapter_value": max_adapter_value,
        "versions": {name: version(name) for name in _PACKAGES},
        "device": _device(network),
        "build": hashlib.sha256(torch.__config__.show().encode()).hexdigest(),
        "variables": {n: v for n, v in sorted(os.environ.items()) if n.startswith(_KERNELS)},
        "threads": torch.get_num_threads(),
    }


def _public_layer(task: Task) -> dict[str, Any]:
    """Identifies the public texts of a layer of fixed vectors; empty if there is no such layer."""
    if isinstance(task, Recommendation):
        return {"items": task.catalogue.sha256}
    if isinstance(task, Retrieval):
        text = json.dumps([task.passages, task.temperature])
        return {"passages": hashlib.sha256(text.encode()).hexdigest()}
    return {}


def _pooling(network: Network) -> str:
    """The pooling as text, in the words of older proofs, so that their keys stay equal."""
    described = str(network.pooling and (network.pooling.mode, network.pooling.normalize))
    return described if network.center is None else f"{described}, centred"


def shapes_to_try(workspace: Workspace, config: TrainingConfig) -> BatchShapes:
    """The candidate shapes of a study on this machine."""
    tokens, longest = config.physical_batch_tokens, workspace.task.max_length
    if tokens is None:
        room = room_for(workspace, config)
        return candidates(longest, room.tokens, room.rows, config.padded_lengths)
    if workspace.network.device.type == "cpu":
        tokens = min(tokens, CPU_TOKENS)
    return candidates(longest, tokens, padded=config.padded_lengths)


_proofs: dict[str, Proof] = {}


def proven(
    workspace: Workspace,
    plan: Plan,
    config: TrainingConfig,
    *,
    max_adapter_value: float = MAX_ADAPTER_VALUE,
) -> Proof:
    """Returns this process's earlier proof with an equal key, else calls `prove`."""
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
        workspace: Base, task and network; restored afterwards, except for the values and gradients
            of trained tensors.
        plan: A private plan; its bound and grid are those of clipping.
        config: The `[training]` section: which tensors train in which round, and a pass's most
            tokens.
        max_adapter_value: The largest value that an adapter may have at the site.

    Raises:
        PreflightError: Per-record gradients are not exact, or a shape cannot be computed; the
            message has the name and the remedy.
        RefusedError: The plan has no clip bound.

    Guarantees:
        With the returned shapes the tested records contribute equal integers for all slots,
        companions, dummies and row counts. If row counts disagree, the group that agrees and costs
        the study's batches least is kept, down to one; if companions matter, every record goes
        alone.
    """
    if plan.max_grad_norm is None:
        raise RefusedError("a proof of isolation was asked for a plan without a clip bound")
    network, task = workspace.network, workspace.task
    trained = frozenset(name for name, _ in trained_parameters(network))
    trial_shapes = shapes_to_try(workspace, config)
    records = records_at_an_edge(config.expected_batch_size, len(trial_shapes.counts))
    try:
        with restored(network, frozenset(workspace.start)):
            write_adapter(network, workspace.start)
            workspace.train_names(frozenset(workspace.start))
            samples = _samples(workspace)
            with network.apart(), refusing(len(samples), len(samples[0].input_ids)):
                preflight(network, task, samples)
            found: BatchShapes | None = trial_shapes
            seconds: dict[tuple[int, int], float] = {}
            for names in _trained_sets(workspace, plan, config):
                write_adapter(network, workspace.start)
                workspace.train_names(names)
                machine = Machine(workspace, plan, max_adapter_value, seconds, records)
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
    """A synthetic record of the greatest length and one of half of it; both have many learnt
    tokens."""
    task = workspace.task
    batches = SyntheticBatches(task, workspace.network.vocabulary)
    return [batches.example(tokens) for tokens in (task.max_length, max(task.max_length // 2, 2))]


def _device(network: Network) -> str:
    """The device and its driver: another one runs other kernels, for which a proof does not
    hold."""
    if network.device.type == "cuda":
        name = torch.cuda.get_device_name(network.device)
        capability = torch.cuda.get_device_capability(network.device)
        return (
            f"{name} {capability} CUDA {torch.version.cuda} cuDNN {torch.backends.cudnn.version()}"
        )
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {_processor()}"


def _processor() -> str:
    """A hash of the processors' kind, as far as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return platform.processor()
    described = sorted({" ".join(line.split()) for line in lines if _PROCESSOR.match(line)})
    return hashlib.sha256("\n".join(described).encode()).hexdigest()


def _peak(network: Network) -> int:
    if network.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(network.device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
