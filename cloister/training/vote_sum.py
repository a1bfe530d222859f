"""Sums the units' votes for public candidate texts, each unit's votes clipped as a whole.

A record votes for the candidate of its own label whose vector is nearest to its own (the largest
cosine; the lowest index if several are equal). Records and candidates go through the network one by
one, so a vote is a function of the record and the candidates alone, bit for bit.

Shapes: K candidates, H coordinates of a vector, N units of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cloister.data.records import TextRecord
from cloister.models.network import Network
from cloister.privacy.clipping import ClippedSum, clip_and_sum, empty_sum
from cloister.privacy.noised_ratio import Floats
from cloister.privacy.votes import BOUND
from cloister.protocol.candidates import CandidateText
from cloister.tasks.task import Example, Task
from cloister.training.lone_records import alone
from cloister.training.numerics import pinned
from cloister.training.passes import fits
from cloister.training.units import UnitExamples

# Units whose votes are in memory together: at the most candidates each takes 160 kB.
BLOCK = 64


def vote_sum(
    network: Network,
    task: Task,
    units: Sequence[UnitExamples],
    candidates: Sequence[CandidateText],
    grid: float | None = None,
) -> ClippedSum:
    """Returns the sum of the units' votes, [K].

    Args:
        network: The network; its present parameters give the vectors.
        task: The study's task, whose record is one text with one label.
        units: Encoded units; private, of any number, some of them empty.
        candidates: The public texts.
        grid: The grid of a sum with shared noise; None: that of the bound.

    Raises:
        Exception: The device or the process can no longer compute, for any text
            (`training.lone_records`); the round ends.

    Guarantees:
        One unit moves the sum by a vector of norm at most `BOUND`. A unit without records, or whose
        records have no finite vector or no candidate of their label, adds zero, and changes no
        other unit's votes. A candidate without a finite vector gets no vote.
    """
    total = empty_sum([torch.zeros(len(candidates))], BOUND, grid)
    with torch.no_grad(), network.apart(keeping=False), pinned():
        ballot = ballot_of(network, task, candidates)
        for start in range(0, len(units), BLOCK):
            rows = [
                row
                for place in range(start, min(start + BLOCK, len(units)))
                if (row := unit_votes(network, task, ballot, units[place])) is not None
            ]
            if rows:
                total += clipped_votes(np.array(rows), grid)
    return total


def clipped_votes(rows: Floats, grid: float | None = None) -> ClippedSum:
    """Clips each unit's votes as a whole, and sums them.

    Args:
        rows: Votes of units, [N, K].
        grid: As of `vote_sum`.
    """
    return clip_and_sum([torch.from_numpy(rows.astype(np.float32))], BOUND, grid)


@dataclass(frozen=True)
class Ballot:
    """The vectors of the candidates, by label.

    Attributes:
        candidates: K.
        by_label: By index of the label: the candidates' places in rising order, and their vectors
            of length 1, float64 [places, H].
    """

    candidates: int
    by_label: dict[int, tuple[NDArray[np.int64], Floats]]


def ballot_of(network: Network, task: Task, candidates: Sequence[CandidateText]) -> Ballot:
    """Computes the candidates' vectors, each alone.

    Args:
        network: The network.
        task: The study's task.
        candidates: Public texts whose labels are the task's.
    """
    found: dict[int, list[tuple[int, Floats]]] = {}
    for place, candidate in enumerate(candidates):
        vector = _candidate_vector(network, task, candidate)
        if vector is not None:
            label = task.labels.index(candidate.label)
            found.setdefault(label, []).append((place, vector))
    return Ballot(
        len(candidates),
        {
            label: (
                np.array([place for place, _ in rows], dtype=np.int64),
                np.stack([vector for _, vector in rows]),
            )
            for label, rows in found.items()
        },
    )


def unit_votes(network: Network, task: Task, ballot: Ballot, unit: UnitExamples) -> Floats | None:
    """Returns a unit's votes, [K], which add up to 1; None: no record of it can vote.

    The unit has one vote, which is split evenly among its records that can vote.
    """
    places = [
        place for example in unit if (place := _place(network, task, ballot, example)) is not None
    ]
    if not places:
        return None
    row = np.zeros(ballot.candidates)
    np.add.at(row, places, 1 / len(places))
    return row


def _place(network: Network, task: Task, ballot: Ballot, example: Example) -> int | None:
    """Returns the candidate that a record votes for; None: there is none."""
    if type(example.target) is not int or example.target not in ballot.by_label:
        return None
    vector = text_vector(network, task, example)
    if vector is None:
        return None
    places, vectors = ballot.by_label[example.target]
    # Elementwise products and NumPy's sum of each row: no matrix kernel, whose order of summation
    # could depend on threads.
    cosines = (vectors * vector).sum(axis=1)
    return int(places[int(np.argmax(cosines))])


def _candidate_vector(network: Network, task: Task, candidate: CandidateText) -> Floats | None:
    try:
        example = task.encode(TextRecord(candidate.text, candidate.label))
    except MemoryError:  # no fault of the public text: without it every unit's votes would change
        raise
    except Exception:  # a tokenizer may raise any error; the candidate then gets no vote
        return None
    return text_vector(network, task, example)


def text_vector(network: Network, task: Task, example: Example) -> Floats | None:
    """Returns a text's vector of length 1, float64 [H]; None: it has none that is finite.

    Raises:
        Exception: The device or the process can no longer compute, for any text
            (`training.lone_records`).
    """
    if not fits(example, task.max_length, network.vocabulary, len(task.labels)):
        return None

    def pooled(one: Example) -> Floats:
        found = network.pooled(task.collate([one]))
        on_cpu: Floats = found[0].to(device="cpu", dtype=torch.float64).numpy()
        return on_cpu

    vector = alone(pooled, example, pooled, task.max_length)
    if vector is None:
        return None
    with np.errstate(all="ignore"):
        length = float(np.sqrt((vector * vector).sum()))
    if not np.isfinite(length) or length == 0:
        return None
    return vector / length
