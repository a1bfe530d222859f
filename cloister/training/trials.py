"""Runs shapes with one set of trained tensors, and keeps the row counts that agree bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from cloister.errors import CloisterError, PreflightError
from cloister.models.network import trained_parameters
from cloister.privacy.clipping import contributions
from cloister.privacy.plan import Plan
from cloister.seeds import child_seed
from cloister.tasks.chat import CausalChat
from cloister.tasks.task import BatchShape, Example
from cloister.training.gradients import per_record_hooks, record_gradients
from cloister.training.preferences import log_ratios
from cloister.training.shapes import BatchShapes, cost
from cloister.training.synthetic_batches import SyntheticBatches, Trial
from cloister.training.workspace import Workspace

# Tokens of a pass with extreme values: enough for several copies in several slots.
FEW_TOKENS = 256
# Deviation of the adapters' values in trials: at their start B is zero, which hides errors.
MOVED = 0.3


@contextmanager
def refusing(records: int, tokens: int) -> Iterator[None]:
    """Turns any error of a pass into a refusal that names the pass's shape."""
    try:
        yield
    except CloisterError:
        raise
    except Exception as error:
        raise PreflightError(
            f"preflight: {records} records of {tokens} tokens cannot be computed "
            f"({(str(error) or type(error).__name__).splitlines()[0]}); lower "
            "machine.physical_batch_tokens or task.max_length, or free memory"
        ) from error


def shared_grid(workspace: Workspace, plan: Plan) -> float:
    """Returns the grid of a secure sum over all trained tensors."""
    return plan.shared_noise(workspace.start.size).grid


class Machine:
    """Runs trials with one set of trained tensors.

    Args:
        workspace: Base, task and network.
        plan: Whose bound and grid clipping has.
        largest: The largest value that an adapter may have.
        seconds: Longest time of a pass by (length, rows); filled here.
        records: About the number of a batch's records at one edge. If row counts disagree, the
            agreeing ones with which such batches are cheapest are kept.
    """

    def __init__(
        self,
        workspace: Workspace,
        plan: Plan,
        largest: float,
        seconds: dict[tuple[int, int], float],
        records: int,
    ) -> None:
        self._network, self._task = workspace.network, workspace.task
        self._parameters = [p for _, p in trained_parameters(self._network)]
        self._batches = SyntheticBatches(self._task, self._network.vocabulary)
        assert plan.max_grad_norm is not None
        self._bound = plan.max_grad_norm
        self._grid = shared_grid(workspace, plan) if plan.sharing is not None else None
        self._largest = largest
        self._seconds = seconds
        self._records = records

    def agreeing(self, shapes: BatchShapes) -> BatchShapes | None:
        """The agreeing row counts of each edge; None if companions matter at some edge."""
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
        """Returns the cheapest row counts with equal contributions; empty: not even one passes."""
        probes = self._batches.probes(BatchShape(counts[0], edge, counts), previous)
        with self._moved(MOVED, signs=False):
            groups = self._groups(edge, counts, probes)
            while groups:
                best = min(groups, key=lambda group: self._cost(tuple(group.counts), edge))
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

    def _cost(self, counts: tuple[int, ...], edge: int) -> int:
        """Cost of a small, a usual and a large Poisson batch.

        At the last edge most records are those that were cut to its length.
        """
        full = edge == self._task.max_length
        spread = math.isqrt(self._records)
        sizes = (self._records - spread, self._records, self._records + spread)
        return sum(cost(size, counts, edge, full=full) for size in sizes)

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
        """Whether contributions stay the same with other companions and with cached states."""
        counts = tuple(group.counts)
        if counts == (1,):
            return True
        with self._network.apart():
            # Descending row counts: later passes then use the states that the first one cached.
            # First two records and dummies, then each probe with random companions only.
            few = next((c for c in counts if c >= 4), counts[-1])
            passes: list[tuple[int, int, int | None]] = [(few, 2, None)]
            passes += [(c, c, only) for c in (few, counts[1 % len(counts)]) for only in (0, 1)]
            for rows, records, only in passes:
                shape = BatchShape(rows, edge, counts)
                seen = self._run(shape, probes, records, only, apart=False)
                if seen is None or not seen.agrees(group.seen):
                    return False
        return True

    def _run(
        self,
        shape: BatchShape,
        probes: tuple[Example, ...],
        records: int,
        only: int | None = None,
        *,
        apart: bool = True,
    ) -> _Seen | None:
        """Runs one pass; None if copies of a probe in it disagree."""
        trial = self._batches.trial(shape, probes, records, only)
        kept_apart = self._network.apart() if apart else nullcontext()
        with kept_apart, refusing(shape.rows, shape.length):
            started = time.perf_counter()
            parts = self._contributions(trial)
            lasted = time.perf_counter() - started
        at = (shape.length, shape.rows)
        self._seconds[at] = max(self._seconds.get(at, 0.0), lasted)
        return _seen(parts, trial)

    def _contributions(self, trial: Trial) -> tuple[Tensor, ...]:
        """Each row's contribution to a sum, and for a pair's sequence the log-ratio of its
        weight."""
        ratios: tuple[Tensor, ...] = ()
        if isinstance(self._task, CausalChat) and self._task.dpo_beta is not None:
            examples = [row.example for row in trial.group.rows]
            found = log_ratios(self._network, self._task, examples, trial.group.shape)
            # NaN makes a pair contribute zero but never compares equal, so a finite value replaces
            # it.
            bits = torch.nan_to_num(found, nan=torch.finfo(found.dtype).max).view(torch.int16)
            # Split into 16-bit parts, which float32 holds exactly, like the contributions.
            ratios = (bits.view(len(found), -1).float().to(self._network.device),)
        gradients = record_gradients(self._network, self._task, trial.group, self._parameters)
        rows = len(trial.group.rows)
        return ratios + contributions([g[:rows] for g in gradients], self._bound, self._grid)

    @contextmanager
    def _moved(self, size: float, *, signs: bool) -> Iterator[None]:
        """Moves the trained tensors by normal values, or sets them to the given size with random
        signs."""
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
    """Each probe's contribution as a flat tensor; None if it was not in the pass."""

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
        """Adds a smaller row count, and its contributions of probes that were not seen before."""
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
