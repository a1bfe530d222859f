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
with two records and dummies, with states of frozen layers computed in another shape, and with
adapter values of both signs as large as the site takes. Companions are a sample: what is shown of
the kernels is that their order of summation follows from shapes, which no sample of values would
change.
"""

from __future__ import annotations

import hashlib
import json
import platform
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from cloister.data.nobody import nobody_s_records
from cloister.errors import CloisterError, PreflightError, RefusedError
from cloister.models.network import Network, trained_parameters
from cloister.models.state import write_adapter
from cloister.privacy.clipping import contributions
from cloister.privacy.plan import Plan
from cloister.seeds import child_seed
from cloister.tasks.task import BatchShape, Example
from cloister.training.config import TrainingConfig
from cloister.training.gradients import forget, per_record_hooks, record_gradients
from cloister.training.preflight import preflight
from cloister.training.shapes import BatchShapes, candidates, one_by_one
from cloister.training.synthetic_batches import SyntheticBatches, Trial
from cloister.training.workspace import Workspace

# The most that an adapter's values may be unless a site's policy says otherwise
# (`accept.max_adapter_value`).
MAX_ADAPTER_VALUE = 100.0
# Tokens of a pass with extreme values: enough for several copies in several slots.
FEW_TOKENS = 256
# On a CPU, larger passes are no faster a token (MiniLM: 0.57 ms at 512 tokens and at 2,048), and
# would take longer to prove.
CPU_TOKENS = 1024
# How far adapters are moved from their start, where they train little: half of B's pairs are zero.
MOVED = 0.3

_PACKAGES = ("torch", "transformers", "peft", "opacus")


@dataclass(frozen=True)
class Proof:
    """What a machine showed of a study.

    Attributes:
        shapes: The padded lengths, and the row counts that give every record equal bits.
        seconds: Of one pass, by (length, rows): forward, backward and clip.
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

    def seconds_of(self, records: int) -> float:
        """Time of a step with so many records if all were of the slowest edge, in seconds."""
        least = {
            length: min(s / rows for at, rows, s in self.seconds if at == length)
            for length, _, _ in self.seconds
        }
        single = max(seconds for _, _, seconds in self.seconds)
        return single + records * max(least.values())

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "shapes": self.shapes.to_json(),
            "seconds": [list(entry) for entry in self.seconds],
            "peak_bytes": self.peak_bytes,
            "key": self.key,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Proof:
        """Back from `to_json`."""
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
        "kept layers": network.prefix is not None,
        "attention": str(getattr(network.backbone.config, "_attn_implementation", None)),
        "trained": [sorted(names) for names in _trained_sets(workspace, plan, config)],
        "task": [task.kind, len(task.labels), task.max_length],
        "shapes": shapes_to_try(workspace, config).to_json(),
        "bound": plan.max_grad_norm,
        "grid": None if plan.sharing is None else _grid(workspace, plan),
        "max_adapter_value": max_adapter_value,
        "versions": {name: version(name) for name in _PACKAGES},
        "device": _device(network),
        "threads": torch.get_num_threads(),
    }


def shapes_to_try(workspace: Workspace, config: TrainingConfig) -> BatchShapes:
    """The candidates of a study on this machine."""
    tokens = config.physical_batch_tokens
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
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    trained = frozenset(name for name, _ in trained_parameters(network))
    trial_shapes = shapes_to_try(workspace, config)
    try:
        write_adapter(network, workspace.start)
        workspace.train_names(frozenset(workspace.start))
        preflight(network, task, _samples(workspace))
        found: BatchShapes | None = trial_shapes
        seconds: dict[tuple[int, int], float] = {}
        for names in _trained_sets(workspace, plan, config):
            write_adapter(network, workspace.start)
            workspace.train_names(names)
            machine = _Machine(workspace, plan, max_adapter_value, seconds)
            found = machine.agreeing(found) if found is not None else None
    finally:
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(before[name])
                parameter.grad = None
        workspace.train_names(trained)
    shapes = replace(found or one_by_one(task.max_length), threads=torch.get_num_threads())
    wanted = {(shape.length, shape.rows) for shape in shapes.all()}
    return Proof(
        shapes,
        tuple((*at, round(s, 6)) for at, s in sorted(seconds.items()) if at in wanted),
        _peak(network),
        Proof.key_of(workspace, plan, config, max_adapter_value=max_adapter_value),
    )


class _Machine:
    """Runs trials with one set of trained tensors."""

    def __init__(
        self,
        workspace: Workspace,
        plan: Plan,
        largest: float,
        seconds: dict[tuple[int, int], float],
    ) -> None:
        self._network, self._task = workspace.network, workspace.task
        self._parameters = [p for _, p in trained_parameters(self._network)]
        self._batches = SyntheticBatches(self._task, self._network.vocabulary)
        assert plan.max_grad_norm is not None
        self._bound = plan.max_grad_norm
        self._grid = _grid(workspace, plan) if plan.sharing is not None else None
        self._largest = largest
        self._seconds = seconds

    def agreeing(self, shapes: BatchShapes) -> BatchShapes | None:
        """The row counts of each edge that agree; None where companions matter at some edge."""
        kept = []
        previous = 0
        with per_record_hooks(self._network):
            for edge, counts in shapes.counts:
                found = self._edge(edge, counts, previous)
                if not found:
                    return None
                kept.append((edge, found))
                previous = edge
        return BatchShapes(tuple(kept))

    def _edge(self, edge: int, counts: tuple[int, ...], previous: int) -> tuple[int, ...]:
        """The largest set of row counts with equal contributions; empty: none stands alone."""
        probes = self._batches.probes(BatchShape(counts[0], edge, counts), previous)
        with self._moved(MOVED, signs=False):
            groups = self._groups(edge, counts, probes)
            while groups:
                best = max(groups, key=lambda group: (len(group.counts), group.counts[-1]))
                if self._holds(best, edge, probes):
                    break
                groups.remove(best)
            else:
                return ()
        found = tuple(best.counts)
        with self._moved(self._largest, signs=True):
            few = {found[0], max(c for c in found if c * edge <= FEW_TOKENS or c <= found[:2][-1])}
            tried = [self._run(BatchShape(c, edge, found), probes, c - c // 4) for c in sorted(few)]
        return found if all(t is not None and t.agrees(tried[0]) for t in tried) else ()

    def _groups(
        self, edge: int, counts: tuple[int, ...], probes: tuple[Example, ...]
    ) -> list[_Group]:
        groups: list[_Group] = []
        for rows in reversed(counts):
            shape = BatchShape(rows, edge, (rows,))
            seen = self._run(shape, probes, rows - rows // 4)
            if seen is None:
                continue
            for group in groups:
                if group.seen.agrees(seen):
                    group.add(rows, seen)
                    break
            else:
                groups.append(_Group([rows], seen))
        return groups

    def _holds(self, group: _Group, edge: int, probes: tuple[Example, ...]) -> bool:
        """Whether contributions stay with other companions, and with states that were kept."""
        counts = tuple(group.counts)
        if counts == (1,):
            return True
        prefix = self._network.prefix
        with prefix.apart() if prefix is not None else nullcontext():
            # From few rows to fewer, so that the second uses the states that the first kept.
            for rows in (next((c for c in counts if c >= 4), counts[-1]), counts[1 % len(counts)]):
                seen = self._run(BatchShape(rows, edge, counts), probes, 2, apart=False)
                if seen is None or not seen.agrees(group.seen):
                    return False
        return True

    def _run(
        self, shape: BatchShape, probes: tuple[Example, ...], records: int, *, apart: bool = True
    ) -> _Seen | None:
        """One pass; None where copies of a probe in it disagree."""
        trial = self._batches.trial(shape, probes, records)
        prefix = self._network.prefix
        try:
            with prefix.apart() if prefix is not None and apart else nullcontext():
                started = time.perf_counter()
                parts = self._contributions(trial)
                lasted = time.perf_counter() - started
        except CloisterError:
            raise
        except Exception as error:
            forget(self._network)
            raise PreflightError(
                f"preflight: {shape.rows} records of {shape.length} tokens cannot be computed "
                f"({(str(error) or type(error).__name__).splitlines()[0]}); lower "
                "training.physical_batch_tokens or task.max_length, or free memory"
            ) from error
        at = (shape.length, shape.rows)
        self._seconds[at] = max(self._seconds.get(at, 0.0), lasted)
        return _seen(parts, trial)

    def _contributions(self, trial: Trial) -> tuple[Tensor, ...]:
        gradients = record_gradients(self._network, self._task, trial.group, self._parameters)
        rows = len(trial.group.rows)
        return contributions([g[:rows] for g in gradients], self._bound, self._grid)

    @contextmanager
    def _moved(self, size: float, *, signs: bool) -> Iterator[None]:
        """Trained tensors moved by normal values, or of the given size and random signs."""
        before = [p.detach().clone() for p in self._parameters]
        try:
            with torch.no_grad():
                for index, parameter in enumerate(self._parameters):
                    generator = torch.Generator().manual_seed(child_seed(index, "proof"))
                    noise = torch.randn(parameter.shape, generator=generator)
                    if signs:
                        parameter.copy_((noise.sign() * size).to(parameter))
                    else:
                        parameter.add_((noise * size).to(parameter))
            yield
        finally:
            with torch.no_grad():
                for parameter, old in zip(self._parameters, before, strict=True):
                    parameter.copy_(old)


@dataclass
class _Seen:
    """What each probe contributed: one flat tensor a probe, None where it was not in the pass."""

    probes: tuple[Tensor | None, ...]

    def agrees(self, other: _Seen | None) -> bool:
        """Whether the probes that both have contribute equal integers."""
        return other is not None and all(
            one is None or two is None or torch.equal(one, two)
            for one, two in zip(self.probes, other.probes, strict=True)
        )


@dataclass
class _Group:
    """Row counts whose probes agree, ascending."""

    counts: list[int]
    seen: _Seen

    def add(self, rows: int, seen: _Seen) -> None:
        """Takes a smaller row count, and what of it was not seen before."""
        self.counts.insert(0, rows)
        both = zip(self.seen.probes, seen.probes, strict=True)
        self.seen = _Seen(tuple(one if one is not None else two for one, two in both))


def _seen(parts: Sequence[Tensor], trial: Trial) -> _Seen | None:
    found: list[Tensor | None] = []
    for slots in trial.slots:
        first = None
        for slot in slots:
            row = torch.cat([part[slot].flatten() for part in parts])
            if first is not None and not torch.equal(first, row):
                return None
            first = row
        found.append(first)
    return _Seen(tuple(found))


def _trained_sets(workspace: Workspace, plan: Plan, config: TrainingConfig) -> list[frozenset[str]]:
    """The sets of tensors that train in some round, in order of their first round."""
    rounds = {*range(1, min(plan.num_rounds, 2) + 1)}
    rounds |= {min(config.probe_rounds + k, plan.num_rounds) for k in (1, 2)}
    sets = [workspace.trained_in_round(config, number) for number in sorted(rounds)]
    return list(dict.fromkeys(sets))


def _samples(workspace: Workspace) -> list[Example]:
    """The longest and the shortest of a few synthetic records."""
    task = workspace.task
    labels = task.labels
    records = nobody_s_records(task.record_kind, labels, persons=6, each=1)
    ordered = sorted(workspace.encode(records), key=lambda example: len(example.input_ids))
    return [ordered[-1], ordered[0]]


def _grid(workspace: Workspace, plan: Plan) -> float:
    return plan.shared_noise(workspace.start.size).grid


def _device(network: Network) -> str:
    if network.device.type == "cuda":
        return torch.cuda.get_device_name(network.device)
    return f"{platform.machine()} {platform.processor()} {torch.backends.cpu.get_cpu_capability()}"


def _peak(network: Network) -> int:
    if network.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(network.device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
