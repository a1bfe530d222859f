"""How far a model prefers a planted secret to other numbers (Carlini et al. 2019, 1802.08232).

    exposure = log₂ |R| − log₂ rank(secret)

The rank is by the loss of the canary's record, among records with other numbers of the space R. R
has 10⁹ numbers here, so a sample of N of them stands for it: a secret that is likelier than the
whole sample has an exposure of at least log₂(N + 1) bits, and no more is measured. The paper
extrapolates beyond the sample by a fitted distribution; that is not done here.

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
    """A canary's place among records with other numbers.

    Attributes:
        name: The canary's.
        is_planted: Whether the study was given it.
        rank: From 1: of its own and the other records, how many have no higher loss.
        others: N, the number of other records.
        surplus: How many deviations its loss lies below the others' mean.
    """

    name: str
    is_planted: bool
    rank: int
    others: int
    surplus: float

    @property
    def exposure(self) -> float:
        """In bits."""
        return math.log2((self.others + 1) / self.rank)


def ranks(model: Model, canaries: Sequence[Canary], numbers: Sequence[str]) -> list[CanaryRank]:
    """Ranks each canary's own number among others.

    Args:
        model: The finished model.
        canaries: Of the study's kind of record.
        numbers: Other numbers of the space, as the secrets are written.

    Guarantees:
        Of N + 1 numbers, of which any may have been the secret, at most k have a rank of k or less:
        equal losses count against the secret.
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
    """Draws different numbers of the space, at most half of it."""
    random = Random(seed)
    drawn: dict[str, None] = {}
    while len(drawn) < min(count, 10**digits // 2):
        drawn[secret_of(random, digits)] = None
    return list(drawn)


def losses(model: Model, records: Sequence[Record]) -> list[float]:
    """The loss of each record in nats: of a text's label, or of all tokens of the replies."""
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
