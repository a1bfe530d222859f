"""Computes what frozen layers give for a batch's new records before its passes, in full passes.

A pass reads the cached states of its records and computes those that are missing
(`models.prefix`, `models.head_inputs`). After some rounds few of a pass's records are new: then it
would compute a few rows, padded to the next row count, in each of many passes. Collected over the
batch, the same records fill passes of their own.

It changes time, never a bit: every row count of an edge gives a record the same states
(`training.shapes`), and the cut follows the same rules (`training.passes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch

from cloister.models.head_inputs import HeadInputs
from cloister.models.kept_states import Read
from cloister.models.network import Network
from cloister.models.prefix import FrozenPrefix
from cloister.tasks.task import Example, Task
from cloister.training.passes import passes
from cloister.training.shapes import BatchShapes
from cloister.training.units import UnitExamples


def fill_caches(
    network: Network, task: Task, units: Sequence[UnitExamples], shapes: BatchShapes
) -> None:
    """Caches what the next passes over some units read of frozen layers, as far as there is room.

    Args:
        network: Its trained names are those of the passes.
        task: Pads the records.
        units: The logical batch.
        shapes: The shapes of its passes.
    """
    cache = _cache_of(network)
    if cache is None:
        return
    new: dict[Read, Example] = {}
    for unit in units:
        for example in unit:
            edge = shapes.edge(len(example.input_ids))
            record = example.input_ids, example.segments
            if cache.lacks(record, (edge, shapes.rows(edge))):
                new[record] = example
    # A record that cannot be computed fails again in its own pass, which knows whose unit it is.
    with torch.no_grad(), suppress(Exception):
        for group in passes([tuple(new.values())], shapes):
            examples = [row.example for row in group.rows]
            batch = task.collate(examples, group.shape)
            if isinstance(cache, HeadInputs):
                cache.of(batch, network.computed_head_inputs)
            else:
                cache.states(network.inputs(batch), batch.examples, batch.shape)
            fixed = (group.shape.length, group.shape.counts)
            if any(cache.lacks((one.input_ids, one.segments), fixed) for one in examples):
                return  # the cache is full: the rest is computed in each pass


def _cache_of(network: Network) -> HeadInputs | FrozenPrefix | None:
    """Returns the cache that passes read first; None: there is none."""
    if network.head_inputs is not None and network.head_inputs.can_serve():
        return network.head_inputs
    return network.prefix
