"""The gradient of one logical batch: per unit and clipped, or plain.

Math:
    A unit's gradient is the mean of its records' gradients; a batch's is the sum of its units'.

A record's gradient is a function of that record alone, bit for bit (`training.shapes`), and so is
its unit's contribution to the sum: a unit's records are added one after another, in the unit's own
order, and clipped by arithmetic in which no row depends on another (`privacy.clipping`).

BatchShapes: B rows of a pass, U units.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cloister.models.network import Network, trained_parameters
from cloister.privacy.clipping import ClippedSum, clip_and_sum, empty_sum
from cloister.privacy.products import Gradient, of_unit
from cloister.tasks.task import Task
from cloister.training.batches import physical_batches
from cloister.training.filled_caches import fill_caches
from cloister.training.layer_gradients import known_layers, per_record_layers
from cloister.training.lone_records import check_data, dummy_of, tried_twice
from cloister.training.numerics import check_pinned, pinned
from cloister.training.passes import Pass, Row, fits, passes
from cloister.training.preferences import weighted_units
from cloister.training.record_losses import trained_losses
from cloister.training.shapes import BatchShapes
from cloister.training.units import UnitExamples

if TYPE_CHECKING:
    from opacus.grad_sample import GradSampleHooks

# Memory for the gradients of units with several records, which are kept until the last record has
# passed: 256 MiB hold 200 units of 300,000 parameters. It affects time and memory only.
SUMS_BYTES = 2**28

# Values of per-record gradients that are clipped in one call, 4 MiB: the passes of 512 tokens of a
# quickstart's step have 0.1 million each, and clipping them one by one took 3 % of its time.
CLIPPED_TOGETHER = 2**20

# `clipped_gradient_sum`, or a function with the same bits (`training.team`).
Summing = Callable[
    [Network, Task, Sequence[UnitExamples], float, BatchShapes, float | None], ClippedSum
]


@contextmanager
def per_record_hooks(network: Network) -> Iterator[None]:
    """Lets every backward pass leave `grad_sample` [B, …] on the trained parameters.

    If only layers train that `training.layer_gradients` knows, it computes them; else Opacus' hooks
    do. The loss must be a sum over records. Within the context arithmetic is pinned
    (`training.numerics`).
    """
    layers = known_layers(network)
    with pinned():
        try:
            if layers is None:
                with opacus_hooks(network):
                    yield
            else:
                with per_record_layers(network, layers):
                    yield
        finally:
            forget(network)


@contextmanager
def opacus_hooks(network: Network) -> Iterator[None]:
    """Does the same with Opacus' hooks (Yousefpour et al. 2021, arXiv:2109.12298), for any
    module."""
    from opacus.grad_sample import GradSampleHooks  # seconds, which adapters and heads do not need

    hooks = GradSampleHooks(network, loss_reduction="sum")
    try:
        with warnings.catch_warnings(), seen_once(network, hooks):
            # Nothing below the lowest adapter needs gradients, so its input asks for none.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            yield
    finally:
        hooks.remove_hooks()


@contextmanager
def seen_once(network: Network, hooks: GradSampleHooks) -> Iterator[None]:
    """Keeps the hooks from recording a layer's inputs twice when the layer is computed again, and
    from seeing passes that train nothing (`network.unseen`)."""

    @contextmanager
    def unseen() -> Iterator[None]:
        were_on = hooks.hooks_enabled  # one such context may be inside of another
        hooks.disable_hooks()
        try:
            yield
        finally:
            if were_on:
                hooks.enable_hooks()

    layers = network.checkpoints
    network.unseen = unseen
    if layers is not None:
        layers.while_again = unseen
    try:
        yield
    finally:
        network.unseen = nullcontext
        if layers is not None:
            layers.while_again = nullcontext


def clipped_gradient_sum(
    network: Network,
    task: Task,
    units: Sequence[UnitExamples],
    bound: float,
    shapes: BatchShapes,
    grid: float | None = None,
) -> ClippedSum:
    """Sums clipped per-unit gradients; call it within `per_record_hooks`.

    Args:
        network: Its trained parameters get no `.grad`.
        task: Its per-record loss.
        units: The logical batch; may be empty, and so may a unit.
        bound: Norm to which each unit's gradient is clipped, over all trained parameters.
        shapes: Padded lengths and row counts from the machine's proof, or one record at a time.
        grid: Grid of the sum's integers; None: the bound's default.

    Raises:
        RefusedError: The arithmetic or the threads were changed since they were pinned.
        RuntimeError: The device or the process can no longer compute, for any records.

    Guarantees:
        With proven shapes, no bit of a unit's contribution depends on the other units.
        A record that does not fit the network (`passes.fits`) is left out of its unit. A unit
        without records, or whose gradient cannot be computed or is not finite, contributes zero;
        other units' contributions stay the same.
    """
    check_pinned(shapes.threads)
    vocabulary = network.vocabulary
    outputs = len(task.labels) or vocabulary
    usable = [
        tuple(e for e in unit if fits(e, shapes.longest, vocabulary, outputs)) for unit in units
    ]
    ready = weighted_units(network, task, usable, shapes)
    if ready is not usable:
        forget(network)
    fill_caches(network, task, ready, shapes)
    parameters = [p for _, p in trained_parameters(network)]
    total = empty_sum(parameters, bound, grid)
    for group in _groups(ready, parameters):
        total += _group_sum(network, task, group, parameters, bound, shapes, grid)
    return total


def _groups(
    units: Sequence[UnitExamples], parameters: Sequence[Tensor]
) -> Iterator[list[UnitExamples]]:
    """Groups of units that are summed together; units with several records are limited by
    `SUMS_BYTES`."""
    size = 4 * sum(parameter.numel() for parameter in parameters)
    most = max(SUMS_BYTES // max(size, 1), 1)
    several = [unit for unit in units if len(unit) > 1]
    first = [unit for unit in units if len(unit) == 1] + several[:most]
    yield first
    for at in range(most, len(several), most):
        yield several[at : at + most]


def _group_sum(
    network: Network,
    task: Task,
    units: Sequence[UnitExamples],
    parameters: Sequence[Tensor],
    bound: float,
    shapes: BatchShapes,
    grid: float | None,
) -> ClippedSum:
    total = empty_sum(parameters, bound, grid)
    several = [number for number, unit in enumerate(units) if len(unit) > 1]
    place = {number: at for at, number in enumerate(several)}
    sums = [p.new_zeros((len(several), *p.shape), dtype=torch.float32) for p in parameters]
    failed: set[int] = set()
    waiting = _Waiting(total)
    for group in passes(units, shapes):
        for rows, gradients in _rows(network, task, group, parameters, failed):
            alone = [at for at, row in enumerate(rows) if row.unit not in place]
            if alone:
                own = [g[: len(alone)] if len(alone) == len(rows) else g[alone] for g in gradients]
                waiting.add(own)
            for at, row in enumerate(rows):
                if row.unit in place:
                    for added, gradient in zip(sums, gradients, strict=True):
                        added[place[row.unit]].add_(of_unit(gradient, at))
    waiting.clip()
    if several:
        for added in sums:
            for number in several:
                added[place[number]].div_(len(units[number]))
        lost = [place[number] for number in failed if number in place]
        for added in sums:
            added[lost] = 0.0
        total += clip_and_sum(sums, bound, grid)
    return total


class _Waiting:
    """Gradients of several passes, which are clipped and added in one call where they are small: a
    call's own time is most of what clipping a small pass takes.

    Args:
        total: The sum to which they are added.

    Guarantees:
        No bit depends on which passes wait together: a unit's contribution is a function of its own
        row, and sums of integers are exact (`privacy.clipping`).
    """

    def __init__(self, total: ClippedSum) -> None:
        self._total = total
        self._parts: list[list[Tensor]] = []
        self._values = 0

    def add(self, gradients: Sequence[Gradient]) -> None:
        """Takes gradients [B, …] of each parameter; large ones and factors do not wait."""
        whole = [gradient for gradient in gradients if isinstance(gradient, Tensor)]
        values = sum(gradient.numel() for gradient in whole)
        if len(whole) < len(gradients) or values >= CLIPPED_TOGETHER:
            self._clip(gradients)
            return
        if self._values + values > CLIPPED_TOGETHER:
            self.clip()
        self._parts.append(whole)
        self._values += values

    def clip(self) -> None:
        """Clips and adds what waits."""
        if self._parts:
            columns = zip(*self._parts, strict=True)
            self._clip([c[0] if len(c) == 1 else torch.cat(c) for c in columns])
        self._parts, self._values = [], 0

    def _clip(self, gradients: Sequence[Gradient]) -> None:
        self._total += clip_and_sum(gradients, self._total.bound, self._total.coarse)


def _rows(
    network: Network, task: Task, group: Pass, parameters: Sequence[Tensor], failed: set[int]
) -> Iterator[tuple[tuple[Row, ...], list[Gradient]]]:
    """A pass's records with their gradients, [B, …]; if the pass fails, unit by unit.

    Units that fail alone are added to `failed` and left out.
    """
    try:
        gradients = record_gradients(network, task, group, parameters)
    except Exception as error:
        check_data(error)
        forget(network)
        units = list(dict.fromkeys(row.unit for row in group.rows))
    else:
        yield group.rows, gradients
        return
    for unit in units:
        own = Pass(group.shape, tuple(row for row in group.rows if row.unit == unit))
        # In a fixed shape a dummy of any length takes as much memory as the records.
        dummy = Pass(group.shape, (Row(unit, dummy_of(own.rows[0].example, 1)),))
        found = tried_twice(
            partial(_gradients_or_nothing, network, task, own, parameters),
            partial(_gradients_or_nothing, network, task, dummy, parameters),
        )
        if found is None:
            failed.add(unit)
        else:
            yield own.rows, found


def _gradients_or_nothing(
    network: Network, task: Task, group: Pass, parameters: Sequence[Tensor]
) -> list[Gradient]:
    """`record_gradients` that leaves nothing behind if it fails."""
    try:
        return record_gradients(network, task, group, parameters)
    except Exception:
        forget(network)
        raise


def record_gradients(
    network: Network, task: Task, group: Pass, parameters: Sequence[Tensor]
) -> list[Gradient]:
    """Gradients of a pass's records, [B, …] per parameter; rows beyond the records are dummies."""
    batch = task.collate([row.example for row in group.rows], group.shape)
    losses = trained_losses(network, task, batch)
    # Dummies have weight 0, and their rows are never read.
    counts = (torch.arange(len(losses)) < len(group.rows)).to(losses)
    (losses * counts).sum().backward()
    return [_taken(parameter) for parameter in parameters]


def plain_gradient_sum(
    network: Network, task: Task, units: Sequence[UnitExamples], max_tokens: int
) -> tuple[Tensor, ...]:
    """Sums the units' gradients without clipping, in the cheapest physical batches."""
    parameters = [p for _, p in trained_parameters(network)]
    for parameter in parameters:
        parameter.grad = None
    for group in physical_batches(weighted_units(network, task, units, max_tokens), max_tokens):
        batch = task.collate([example for unit in group for example in unit])
        losses = trained_losses(network, task, batch)
        shares = torch.tensor([1 / len(unit) for unit in group for _ in unit], device=losses.device)
        (losses * shares).sum().backward()
    sums = tuple(torch.zeros_like(p) if p.grad is None else p.grad for p in parameters)
    for parameter in parameters:
        parameter.grad = None
    return sums


def forget(network: Network) -> None:
    """Removes what a complete or failed pass left behind: gradients, and the hooks' own data."""
    for module in network.modules():
        for name in ("activations", "max_batch_len"):
            if name in vars(module):
                delattr(module, name)
    for _, parameter in trained_parameters(network):
        parameter.grad = None
        for name in ("grad_sample", "_current_grad_sample", "_forward_counter"):
            with suppress(AttributeError):
                delattr(parameter, name)
        parameter.grad_sample = None  # type: ignore[attr-defined]
        parameter._forward_counter = 0  # type: ignore[attr-defined]
    if torch.cuda.is_available():
        with suppress(RuntimeError):
            torch.cuda.empty_cache()


def _taken(parameter: Tensor) -> Gradient:
    gradient: Gradient = parameter.grad_sample  # type: ignore[attr-defined]
    parameter.grad_sample = None  # type: ignore[attr-defined]
    parameter.grad = None
    return gradient
