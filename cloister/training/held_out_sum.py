"""Sums the statistics of held-out units, each unit's vector clipped as a whole.

Records go through the network one by one, so a unit's vector is a function of that unit alone, bit
for bit, and whatever is cached of records that are trained on is neither read nor changed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cloister.adapter.formats import Shapes
from cloister.models.network import Network
from cloister.privacy.clipping import ClippedSum, clip_and_sum, empty_sum
from cloister.privacy.evaluations import BOUND
from cloister.privacy.noised_ratio import Floats
from cloister.tasks.chat import CausalChat
from cloister.tasks.tally.chosen import statistics_of, tally_of
from cloister.tasks.tally.tallies import TaskTally
from cloister.tasks.task import Batch, Example, Task
from cloister.training.lone_records import alone
from cloister.training.numerics import pinned
from cloister.training.passes import fits
from cloister.training.units import UnitExamples

# Units whose vectors are in memory together: a thousand statistics each take half a megabyte.
BLOCK = 64
# Name of the tensor that leaves.
STATISTICS = "statistics"


def released_shapes(task: Task) -> Shapes:
    """Name and shape of what an evaluation releases.

    Raises:
        RefusedError: The task has no bounded statistics.
    """
    return {STATISTICS: (len(statistics_of(tally_of(task)).names),)}


def held_out_sum(
    network: Network,
    task: Task,
    units: Sequence[UnitExamples],
    longest: int,
    grid: float | None = None,
) -> ClippedSum:
    """Returns the sum of the units' vectors of statistics.

    Args:
        network: The network; its present parameters are scored.
        task: The study's task.
        units: Encoded held-out units; private, of any number, some of them empty.
        longest: Most tokens of a record.
        grid: The grid of a sum with shared noise; None: that of the bound.

    Raises:
        RefusedError: The task has no bounded statistics.
        Exception: The device or the process can no longer compute, for any records
            (`training.lone_records`).

    Guarantees:
        One unit moves the sum by at most `BOUND`. A unit without records, whose records cannot be
        scored, or whose statistics are not finite adds zero, and changes no other unit's vector.
    """
    tally = tally_of(task)
    statistics = statistics_of(tally)
    total = empty_sum([torch.zeros(len(statistics.names))], BOUND, grid)
    with torch.no_grad(), network.apart(keeping=False), pinned():
        for start in range(0, len(units), BLOCK):
            rows = [
                row
                for place in range(start, min(start + BLOCK, len(units)))
                if (row := unit_row(network, task, tally, units[place], longest)) is not None
            ]
            if rows:
                with np.errstate(all="ignore"):
                    vectors = statistics.vectors(np.array(rows))
                    total += clipped_statistics(vectors, statistics.scales, grid)
    return total


def clipped_statistics(vectors: Floats, scales: Floats, grid: float | None = None) -> ClippedSum:
    """Scales units' statistics, clips each unit's vector as a whole, and sums.

    Args:
        vectors: Statistics of units, [N, D].
        scales: What each statistic is multiplied by, [D].
        grid: As of `held_out_sum`.
    """
    return clip_and_sum([torch.from_numpy((vectors * scales).astype(np.float32))], BOUND, grid)


def unit_row(
    network: Network, task: Task, tally: TaskTally, unit: UnitExamples, longest: int
) -> Floats | None:
    """Returns the mean of the tally's values over a unit's records; None: none can be scored."""
    outputs = len(task.labels) or network.vocabulary

    def scored(one: Example) -> Floats:
        batch = task.collate([one])
        with np.errstate(all="ignore"):
            row: Floats = tally.rows(_outputs(network, task, batch), batch)[0]
        return row

    def passed(one: Example) -> Tensor:
        return _outputs(network, task, task.collate([one]))

    found = [
        row
        for example in unit
        if fits(example, longest, network.vocabulary, outputs)
        and (row := alone(scored, example, passed, longest)) is not None
    ]
    return np.sum(found, axis=0) / len(found) if found else None


def _outputs(network: Network, task: Task, batch: Batch) -> Tensor:
    if isinstance(task, CausalChat):  # a vocabulary's logits are too large to move
        return network.token_losses(batch)
    return network.logits(batch).to(device="cpu", dtype=torch.float32)
