"""Measures how long one record takes alone, as in evaluations and votes, also one that fails.

A record on which the network fails takes its pass, a dummy of greatest length and a second try
(`training.lone_records`). How many fail depends on the data, so the period of a round has room for
all of them. The number of second tries in a round has no limit: with one, a record's second try
would depend on how many records of other units had failed before it.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from cloister.protocol.candidates import CandidateText
from cloister.tasks.tally.chosen import tally_of
from cloister.tasks.task import Example
from cloister.training.held_out_sum import held_out_sum, unit_row
from cloister.training.lone_records import alone
from cloister.training.numerics import pinned
from cloister.training.vote_sum import Ballot, ballot_of, text_vector, unit_votes
from cloister.training.workspace import Workspace

# Records that are computed to measure how long one takes.
MEASURED = 8


def scoring_seconds(workspace: Workspace, longest: Sequence[Example]) -> float:
    """Seconds to score one record alone, or to fail to; first ones also load kernels, and do not
    count.

    Args:
        workspace: The study's.
        longest: Records of greatest length.
    """
    network, task = workspace.network, workspace.task
    records = list(itertools.islice(itertools.cycle(longest), MEASURED))
    units = [(one,) for one in records]
    held_out_sum(network, task, units[:1], task.max_length)
    started = time.perf_counter()
    held_out_sum(network, task, units, task.max_length)
    scoring = (time.perf_counter() - started) / MEASURED
    tally = tally_of(task)
    with torch.no_grad(), network.apart(keeping=False), pinned():
        failing = failing_seconds(
            lambda one: unit_row(network, task, tally, (one,), task.max_length), records
        )
    return max(scoring, failing)


def voting_seconds(
    workspace: Workspace, longest: Sequence[Example], candidates: int, text: str
) -> tuple[float, float]:
    """Seconds to find one record's vote among so many candidates, and to compute one candidate's
    vector, or to fail to; first ones also load kernels, and do not count.

    Args:
        workspace: The study's.
        longest: Records of greatest length.
        candidates: Number of candidates.
        text: A candidate of greatest length.
    """
    network, task = workspace.network, workspace.task
    few = [CandidateText(text, task.labels[0])] * MEASURED
    records = list(itertools.islice(itertools.cycle(longest), MEASURED))
    with torch.no_grad(), network.apart(keeping=False), pinned():
        ballot_of(network, task, few[:1])
        started = time.perf_counter()
        known = ballot_of(network, task, few)
        candidate = (time.perf_counter() - started) / MEASURED
        width = len(next(iter(known.by_label.values()))[1][0]) if known.by_label else 1
        wide = np.full((candidates, width), 1 / math.sqrt(width))
        places = np.arange(candidates)
        ballot = Ballot(candidates, dict.fromkeys(range(len(task.labels)), (places, wide)))
        unit_votes(network, task, ballot, (records[0],))
        started = time.perf_counter()
        for one in records:
            unit_votes(network, task, ballot, (one,))
        voting = (time.perf_counter() - started) / MEASURED
        failing = failing_seconds(lambda one: text_vector(network, task, one), records)
    return max(voting, failing), max(candidate, failing)


def failing_seconds(compute: Callable[[Example], object], longest: Sequence[Example]) -> float:
    """Seconds of a record that fails at the end of its pass, and of its second try.

    Args:
        compute: Computes a record.
        longest: Records of greatest length, which also stand for the dummy.
    """

    def fails(one: Example) -> None:
        compute(one)
        raise ValueError("as a record may")

    def dummy(_: Example) -> None:
        compute(longest[0])

    started = time.perf_counter()
    for one in longest:
        alone(fails, one, dummy, len(one.input_ids))
    return (time.perf_counter() - started) / len(longest)
