"""Direct preference optimization with per-record gradients (Rafailov et al. 2023, 2305.18290).

    L = -log σ(m),    m = β (log π(chosen) / π₀(chosen) - log π(rejected) / π₀(rejected))

π is the adapted network, π₀ the same with its adapters off. A record is a pair. L is not a sum over
its two sequences, but its gradient is one of theirs, weighted:

    ∇L = β σ(-m) (∇nll(chosen) - ∇nll(rejected))

So margins are computed first, in the shapes that train, and a pair then counts as two rows of its
unit. m follows from the pair alone, bit for bit, and so does its gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from cloister.models.adapters_off import adapters_off
from cloister.models.network import Network
from cloister.tasks.chat import CausalChat
from cloister.tasks.task import Batch, BatchShape, Example, Task
from cloister.training.batches import physical_batches
from cloister.training.lone_records import check_data, dummy_of, tried_twice
from cloister.training.passes import passes
from cloister.training.shapes import BatchShapes
from cloister.training.units import UnitExamples, singles


def weighted_units(
    network: Network, task: Task, units: Sequence[UnitExamples], cut: BatchShapes | int
) -> Sequence[UnitExamples]:
    """Replaces each pair in units by two weighted sequences; units of other tasks stay as they are.

    Args:
        network: The network before the step.
        task: The study's task.
        units: A logical batch; a record that is not a pair is left out of its unit.
        cut: The fixed shapes; or the most padded tokens of a batch, if other records may change
            bits.

    Returns:
        Units for which the mean of the rows' gradients is the mean of the pairs' gradients.
    """
    if not isinstance(task, CausalChat) or task.dpo_beta is None:
        return units
    pairs = [[e for e in unit if e.rejected is not None] for unit in units]
    rows = [row for unit in pairs for e in unit for row in _rows(e)]
    found = _ratios_of_rows(network, task, rows, cut)
    weighted, at = [], 0
    for unit in pairs:
        own: list[Example] = []
        for example in unit:
            chosen, rejected = _rows(example)
            # Factor 2, because the mean is over two rows for one record.
            weight = 2 * task.dpo_beta * _sigmoid(-task.dpo_beta * (found[at] - found[at + 1]))
            own += [replace(chosen, weight=weight), replace(rejected, weight=-weight)]
            at += 2
        weighted.append(tuple(own))
    return weighted


def _rows(example: Example) -> tuple[Example, Example]:
    assert example.rejected is not None
    return replace(example, rejected=None), example.rejected


def _sigmoid(value: float) -> float:
    return float(torch.sigmoid(torch.tensor(value, dtype=torch.float64)))


def _ratios_of_rows(
    network: Network, task: CausalChat, rows: Sequence[Example], cut: BatchShapes | int
) -> list[float]:
    """Log-ratios of π to π₀ of each sequence's learnt tokens."""
    ratios: dict[int, float] = {}
    for examples, shape in _batches(rows, cut):
        values = _values(network, task, examples, shape)
        ratios |= {id(one): value for one, value in zip(examples, values, strict=False)}
    return [ratios[id(row)] for row in rows]


def _values(
    network: Network, task: CausalChat, examples: Sequence[Example], shape: BatchShape | None
) -> list[float]:
    """Log-ratios of a batch; in a fixed shape NaN for a sequence that cannot be computed alone.

    NaN makes its unit contribute zero. If the round ended instead, the site's answer would reveal
    that the record is there. The rule is that of `lone_records.tried_twice`.
    """

    def found(of: Sequence[Example]) -> list[float]:
        values: list[float] = log_ratios(network, task, of, shape).tolist()
        return values

    if shape is None:  # without privacy
        return found(examples)
    try:
        return found(examples)
    except Exception as error:
        check_data(error)
    # In a fixed shape a dummy of any length takes as much memory as the records.
    alone = [
        tried_twice(partial(found, [one]), partial(found, [dummy_of(one, 1)])) for one in examples
    ]
    return [math.nan if values is None else values[0] for values in alone]


def log_ratios(
    network: Network, task: CausalChat, examples: Sequence[Example], shape: BatchShape | None
) -> Tensor:
    """Log-ratios of π to π₀ of each row of a batch, dummies included, float64 [B]."""
    batch = task.collate(examples, shape)
    # With gradients on, as in training; without them a device may choose other kernels. No hook
    # sees the passes: it would keep their activations for a backward pass that never comes.
    with network.unseen():
        own = _log_probabilities(network, batch)
        with adapters_off(network):
            base = _log_probabilities(network, batch)
    return own - base


def _log_probabilities(network: Network, batch: Batch) -> Tensor:
    return -network.token_losses(batch).detach().double().sum(dim=1).cpu()


def _batches(
    rows: Sequence[Example], cut: BatchShapes | int
) -> Iterator[tuple[list[Example], BatchShape | None]]:
    """Examples that go together, and the fixed shape that dummies fill, if there is one."""
    if isinstance(cut, int):
        for group in physical_batches(singles(rows), cut):
            yield [example for (example,) in group], None
        return
    for one in passes(singles(rows), cut):
        yield [row.example for row in one.rows], one.shape
