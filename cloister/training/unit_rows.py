"""Computes what each privacy unit adds to the sums from which a task's scores follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from cloister.models.network import Network
from cloister.tasks.chat import CausalChat
from cloister.tasks.tally.tallies import TaskTally
from cloister.tasks.task import Task
from cloister.training.batches import physical_batches
from cloister.training.units import UnitExamples, singles


def unit_rows(
    network: Network,
    task: Task,
    tally: TaskTally,
    units: Sequence[UnitExamples],
    max_tokens: int,
    on_batch: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """Returns each unit's mean over its records of the tally's values, float64 [N, D].

    So a person with many records counts as much as one with a single record.

    Args:
        network: The network; its present parameters are measured.
        task: The study's task.
        tally: The task's tally.
        units: Encoded units; each has at least one record.
        max_tokens: Padded tokens of a physical batch.
        on_batch: Called with the number of records after each batch, for progress.
    """
    # An object of its own for each record: packed units make theirs anew at each access.
    kept = [tuple(unit) for unit in units]
    place = {id(example): number for number, unit in enumerate(kept) for example in unit}
    found: list[np.ndarray] = []
    owners: list[int] = []
    with torch.no_grad():
        for group in physical_batches(singles([e for unit in kept for e in unit]), max_tokens):
            batch = task.collate([example for (example,) in group])
            if isinstance(task, CausalChat):  # a vocabulary's logits are too large to move
                outputs = network.token_losses(batch).detach()
            else:
                outputs = network.logits(batch).to(device="cpu", dtype=torch.float32)
            found.append(tally.rows(outputs, batch))
            owners += [place[id(example)] for (example,) in group]
            on_batch(len(group))
    rows = np.concatenate(found)
    sums = np.zeros((len(kept), rows.shape[1]))
    np.add.at(sums, owners, rows)
    sums /= np.array([len(unit) for unit in kept])[:, None]
    return sums
