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
import resource
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import torch

from cloister.errors import RefusedError
from cloister.models.network import Network, trained_parameters
from cloister.models.state import write_adapter
from cloister.privacy.plan import Plan
from cloister.tasks.task import Example
from cloister.training.config import TrainingConfig
from cloister.training.preflight import preflight
from cloister.training.proof_key import depends_on, shapes_to_try, trained_sets
from cloister.training.shapes import BatchShapes, one_by_one, records_at_an_edge
from cloister.training.synthetic_batches import SyntheticBatches
from cloister.training.trials import Machine, refusing
from cloister.training.unchanged import restored
from cloister.training.workspace import Workspace

log = logging.getLogger(__name__)

# Largest absolute value of an adapter, unless a site's policy sets another
# (`accept.max_adapter_value`).
MAX_ADAPTER_VALUE = 100.0

# The form of a proof's date, in UTC.
DATED = "%Y-%m-%d %H:%M"

# Logged if records in one pass do not give equal bits.
ALONE = (
    "preflight: on this device records in one pass change each other's gradients in the last bits; "
    "each goes through the network alone, which is safe and several times slower"
)


@dataclass(frozen=True)
class Proof:
    """A machine's proof for a study.

    Attributes:
        shapes: The padded lengths, and the row counts that give every record equal bits.
        seconds: Seconds of one pass, by (length, rows): forward, backward and clip; for preferences
            also the two forwards of the log-ratios.
        peak_bytes: Peak memory while the shapes were tried: the device's, or the process's.
        key: SHA-256 of everything that it depends on (`training.proof_key`).
        proved: When it was made, in UTC: `2026-11-30 12:50`.
    """

    shapes: BatchShapes
    seconds: tuple[tuple[int, int, float], ...]
    peak_bytes: int
    key: str
    proved: str

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
            "proved": self.proved,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Proof:
        """Builds a proof from the values of `to_json`."""
        return cls(
            BatchShapes.from_json(value["shapes"]),
            tuple((int(a), int(b), float(c)) for a, b, c in value["seconds"]),
            int(value["peak_bytes"]),
            str(value["key"]),
            str(value["proved"]),
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
            for names in trained_sets(workspace, plan, config):
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
        datetime.now(UTC).strftime(DATED),
    )


def _samples(workspace: Workspace) -> list[Example]:
    """A synthetic record of the greatest length and one of half of it; both have many learnt
    tokens."""
    task = workspace.task
    batches = SyntheticBatches(task, workspace.network.vocabulary)
    return [batches.example(tokens) for tokens in (task.max_length, max(task.max_length // 2, 2))]


def _peak(network: Network) -> int:
    if network.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(network.device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
