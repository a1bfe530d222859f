"""Measures the exposure of a planted secret (Carlini et al. 2019, arXiv:1802.08232).

    exposure = log₂ |R| − log₂ rank(secret)

Records with other numbers of the space R are ranked together with the canary's record, by their
loss. R has 10⁹ numbers here, so a sample of N numbers is used. If the secret is more likely than
the whole sample, its exposure is at least log₂(N + 1) bits, which is the largest measured value.
The paper extrapolates beyond the sample with a fitted distribution; this module does not.

A model that knows nothing of a canary gives it a uniform rank: 1.44 bits on average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray

from cloister.data.canaries import Canary, secret_of
from cloister.data.records import Record
from cloister.serving.model import Model
from cloister.tasks.chat import CausalChat
from cloister.training.batches import physical_batches
from cloister.training.record_losses import record_losses
from cloister.training.units import singles


@dataclass(frozen=True)
class CanaryRank:
    """The rank of a canary among records with other numbers.

    Attributes:
        name: The canary's name.
        is_planted: Whether it was in the study's records.
        rank: From 1: the number of records, itself included, whose loss is not higher.
        others: N, the number of other records.
        surplus: The others' mean loss minus its loss, in standard deviations of the others.
    """

    name: str
    is_planted: bool
    rank: int
    others: int
    surplus: float

    @property
    def exposure(self) -> float:
        """Returns the exposure in bits."""
        return math.log2((self.others + 1) / self.rank)


def ranks(model: Model, canaries: Sequence[Canary], numbers: Sequence[str]) -> list[CanaryRank]:
    """Ranks each canary's own number among others.

    Args:
        model: The finished model.
        canaries: Canaries of the study's kind of record.
        numbers: Other numbers of the space, in the secrets' spelling.

    Guarantees:
        Any of the N + 1 numbers may have been the secret, and at most k of them have a rank of k
        or less, because equal losses count against the secret.
    """
    found = []
    for canary in canaries:
        others = [number for number in numbers if number != canary.secret]
        records = [canary.record(), *(canary.record(number) for number in others)]
        own, *rest = losses(model, records)
        spread = float(np.std(rest)) or 1.0
        found.append(
            CanaryRank(
                name=canary.name,
                is_planted=canary.is_planted,
                rank=1 + sum(not one > own for one in rest),  # NaN counts against it too
                others=len(others),
                surplus=(float(np.mean(rest)) - own) / spread,
            )
        )
    return found


def other_numbers(count: int, digits: int, seed: int) -> list[str]:
    """Draws different numbers, at most half of all numbers with these digits."""
    random = Random(seed)
    drawn: dict[str, None] = {}
    while len(drawn) < min(count, 10**digits // 2):
        drawn[secret_of(random, digits)] = None
    return list(drawn)


def losses(model: Model, records: Sequence[Record]) -> list[float]:
    """Returns each record's loss in nats: of a text's label, or of all tokens of the replies."""
    workspace = model.workspace
    task, network = workspace.task, workspace.network
    examples = workspace.encode(records)
    place = {id(example): number for number, example in enumerate(examples)}
    found: NDArray[np.float64] = np.zeros(len(examples))
    with torch.no_grad():
        for group in physical_batches(singles(examples), model.max_tokens):
            batch = task.collate([example for (example,) in group])
            if isinstance(task, CausalChat):
                sums = network.token_losses(batch).double().sum(dim=1)
            else:
                sums = record_losses(network, task, batch).double()
            for (example,), loss in zip(group, sums.tolist(), strict=True):
                found[place[id(example)]] = loss
    return [float(one) for one in found]
