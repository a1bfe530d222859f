"""Measures a study's times on synthetic records of greatest length, before `ready`.

A site answers after periods that follow from declared numbers and from these times, so that how
long its own records take tells nothing (`client.moments`).
"""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cloister.client.admission import Admitted
from cloister.client.banding import NO_MARKS, Banding
from cloister.client.lone_times import scoring_seconds, voting_seconds
from cloister.client.personal import PersonalAdapter
from cloister.data.records import (
    ChatRecord,
    ItemsRecord,
    LabelsRecord,
    Message,
    PairRecord,
    Record,
    ScoreRecord,
    TextRecord,
    TokenRecord,
)
from cloister.data.synthetic_records import made_up_records
from cloister.errors import CloisterError, MisfitError, PreflightError
from cloister.models.network import trained_parameters
from cloister.models.state import write_adapter
from cloister.privacy.correlated_noise import BandedStep, RecentNoise
from cloister.privacy.entropy import OsEntropy
from cloister.privacy.plan import Plan
from cloister.tasks.bare_text import score_ends
from cloister.tasks.cut import MOST_ITEMS
from cloister.tasks.largest import largest_records
from cloister.tasks.recommendation import Recommendation
from cloister.tasks.task import Example
from cloister.training.local import local_update
from cloister.training.memory import OptimizerMemory
from cloister.training.shared import shared_gradient
from cloister.training.workspace import Workspace

# Standard deviations of a batch's size that a period allows for: by the Poisson law 2·10⁻⁶ of
# batches of 64 lie above, and 1.2·10⁻⁵ of batches of 8.
SPREAD = 5.0
# Units of the warm-up step; a few of them are drawn.
WARM = 16
# Seconds of a round besides its steps: two synced writes of the ledger, the accountant's ε, the
# message's encoding; measured on the tiny demos, where they are most of a round.
BESIDE = 0.1


@dataclass(frozen=True)
class Times:
    """Measured times of a study on synthetic records, in seconds.

    Attributes:
        step: One local step on the expected batch, every record of greatest length.
        encoding: Encoding one record of the largest size that is read (`tasks.cut`): the slowest of
            several kinds.
        scoring: Scoring one record of greatest length alone, as private evaluations do, or failing
            to, whichever takes longer; 0 where the plan has none.
        voting: Finding the vote of one record of greatest length, or failing to; 0 where the plan
            has no votes.
        candidate: Computing the vector of one candidate text, or failing to; 0 where the plan has
            no votes.
    """

    step: float
    encoding: float
    scoring: float = 0.0
    voting: float = 0.0
    candidate: float = 0.0

    def of_votes(self, plan: Plan, candidates: int) -> float:
        """Seconds of a round of votes.

        Args:
            plan: The site's.
            candidates: Number of candidate texts.
        """
        records = plan.public_records * plan.max_records
        # The coordinator chooses the candidates, so each may be a text that takes a tokenizer
        # longest; of records that has been done before the round.
        read = self.encoding + self.candidate
        return BESIDE + read * candidates + self.voting * records

    def of_evaluation(self, plan: Plan, units: int) -> float:
        """Seconds of an evaluation of held-out units, each with as many records as count.

        A keyed hash holds each unit out by itself, so where U are declared (at least 30) more than
        U + SPREAD · √U are held out in at most one of 250,000 data sets.

        Args:
            plan: The site's.
            units: U, the declared held-out units.
        """
        return BESIDE + self.scoring * (units + SPREAD * math.sqrt(units)) * plan.max_records

    def of_round(self, plan: Plan, processes: int = 1) -> float:
        """Seconds of a round if all its batches are as large as Poisson batches get.

        The size of a Poisson batch has a standard deviation of at most √B around B, and exceeds B
        by SPREAD of them at most once in 500,000 steps of 64 units or more. Each of several
        processes computes a share, on average B / processes, and the round waits for the slowest.

        Args:
            plan: The site's.
            processes: `machine.processes`.
        """
        share = plan.expected_batch_size / processes
        return BESIDE + plan.local_steps * self.step * (1 + SPREAD / math.sqrt(share))


def measured_times(admitted: Admitted, length: int) -> Times:
    """Measures as if no record had been seen before: nothing is cached, nothing is left behind.

    Args:
        admitted: The site, for one study.
        length: Most tokens of a record.

    Raises:
        PreflightError: A step on synthetic records fails.
    """
    with admitted.workspace.network.apart(keeping=False):
        return _measured_apart(admitted, length)


def _measured_apart(admitted: Admitted, length: int) -> Times:
    workspace, plan = admitted.workspace, admitted.plan
    ends, names = score_ends(workspace.task), workspace.task.labels
    if isinstance(workspace.task, Recommendation):
        names = workspace.task.by_length()
    records = made_up_records(
        workspace.task.record_kind,
        names,
        max(2, min(plan.public_records, 2 * plan.expected_batch_size)),
        1,
        ends,
    )
    try:
        longest = [workspace.task.encode(_long(record, length, names)) for record in records]
        encoding = max(
            _encoding_seconds(workspace, record)
            for record in largest_records(workspace.task.record_kind, names, length, ends[1])
        )
        write_adapter(workspace.network, workspace.start)
        if plan.votes is not None:
            text = _repeated("text", workspace.task.max_length)
            voting, candidate = voting_seconds(workspace, longest, plan.votes, text)
            return Times(0.0, encoding, voting=voting, candidate=candidate)
        workspace.train_names(frozenset(workspace.start))
        _step_seconds(
            admitted, longest, WARM
        )  # first use also loads kernels, which is not part of a step
        return Times(
            _step_seconds(admitted, longest, plan.public_records),
            encoding,
            scoring_seconds(workspace, longest) if plan.evaluations is not None else 0.0,
        )
    except PreflightError:
        raise
    except (CloisterError, RuntimeError, ValueError, LookupError, TypeError, MemoryError) as error:
        raise PreflightError(
            f"preflight: a step on synthetic records of task.max_length = {length} tokens fails "
            f"({type(error).__name__}: {error}); ask the coordinator for shorter records, or "
            "another base"
        ) from error


def _step_seconds(admitted: Admitted, longest: list[Example], count: int) -> float:
    """Seconds of one step of the study, on `count` synthetic units."""
    workspace, site = admitted.workspace, admitted.site
    plan = replace(admitted.plan, local_steps=1)
    found = itertools.cycle(longest)
    units = [tuple(itertools.islice(found, plan.max_records)) for _ in range(count)]
    started = time.perf_counter()
    if plan.sharing is not None:
        shared_gradient(
            workspace.network,
            workspace.task,
            units,
            workspace.start,
            plan,
            site.training,
            entropy=OsEntropy(),
            shapes=admitted.shapes,
            summing=workspace.summing,
        )
    else:
        memory = OptimizerMemory.empty(site.training, workspace.start.shapes)
        banded = _any_banded(admitted, count)
        local_update(
            workspace.network,
            workspace.task,
            units,
            workspace.start,
            plan,
            site.training,
            round_number=1,
            entropy=OsEntropy(),
            rank=site.rank,
            shapes=admitted.shapes,
            summing=workspace.summing,
            memory=memory,
            banded=banded,
        )
        if banded is not None:
            with tempfile.TemporaryDirectory() as folder:
                Banding(Path(folder), site.study, NO_MARKS, "").save(plan, banded.recent)
        if site.optimizer is not None:  # a round writes the same number of bytes
            with tempfile.TemporaryDirectory() as folder:
                PersonalAdapter(Path(folder) / "tried", site.study).save(1, memory.state)
    return time.perf_counter() - started


def _any_banded(admitted: Admitted, count: int) -> BandedStep | None:
    """A step with correlated noise that works as long as any: all earlier noise is there, and each
    group has its part of the units."""
    bands = admitted.plan.bands
    if not bands:
        return None
    trained = trained_parameters(admitted.workspace.network)
    values = sum(parameter.numel() for _, parameter in trained)
    earlier = [np.zeros(values, dtype=np.int64) for _ in bands[1:]]
    marks = np.arange(count, dtype=np.uint64)
    return BandedStep(len(bands), marks, RecentNoise(len(bands), earlier))


def _encoding_seconds(workspace: Workspace, record: Record) -> float:
    """Seconds to encode one record, also one that the template rejects."""
    started = time.perf_counter()
    with suppress(MisfitError):
        workspace.task.encode(record)
    return time.perf_counter() - started


def _long(record: Record, length: int, names: tuple[str, ...]) -> Record:
    """Returns a record of at least `length` words, and so of at least as many tokens.

    For items it is a person with items of the longest text, which `names` has last.
    """
    if isinstance(record, ItemsRecord):
        return replace(record, items=names[-MOST_ITEMS:])
    if isinstance(record, PairRecord):
        second = _repeated(record.text_b, length)
        return replace(record, text=_repeated(record.text, length), text_b=second)
    if isinstance(record, TextRecord | LabelsRecord | ScoreRecord):
        return replace(record, text=_repeated(record.text, length))
    if isinstance(record, TokenRecord):
        times = -(-length // len(record.tokens))
        return replace(record, tokens=record.tokens * times, tags=record.tags * times)
    assert isinstance(record, ChatRecord)
    turns = tuple(Message(m.role, _repeated(m.content, length)) for m in record.messages)
    return replace(record, messages=turns)


def _repeated(text: str, length: int) -> str:
    return " ".join([text] * -(-length // len(text.split())))
