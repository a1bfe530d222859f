"""Conformance of votes: what one unit can change, for whom it votes, noise, charge and their order.

The accountant counts one Gaussian release at rate 1 for each round, of sensitivity 1. That holds if
a unit's votes are a function of it and the candidates alone, of norm at most 1, if every count is
noised, and if a round is charged once, before a record is looked at, and sent again as it was.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cloister.adapter.wire import decode
from cloister.audit.asked_site import (
    STUDY,
    ask_all,
    expected_charges,
    open_site,
    wrong_charges,
)
from cloister.audit.audited_site import AuditedSite
from cloister.audit.noise_tests import Releases, noise_check
from cloister.audit.recorded_noise import RecordedSite, is_sum_with_noise
from cloister.audit.statistics import Check, Floats, exact_check
from cloister.audit.watched_units import WatchedUnits
from cloister.client.admission import Admitted
from cloister.client.round import run_round
from cloister.client.site import Site
from cloister.data.records import TextRecord
from cloister.errors import RefusedError, RoundSpentError
from cloister.models.state import write_adapter
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.entropy import Entropy, OsEntropy
from cloister.privacy.gaussian_table import Integers
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.votes import BOUND, FEWEST, HISTOGRAM, votes_shapes
from cloister.protocol.candidates import CandidateText, encode_candidates
from cloister.protocol.exchange import RoundReply, RoundRequest, Step
from cloister.recipe import Recipe
from cloister.training import vote_sum as summing
from cloister.training.numerics import pinned
from cloister.training.units import UnitExamples

# Most candidates that are audited: every round computes each one's vector.
MOST_AUDITED = 64
# Rounds of a site without units; and rounds of one with units, with little noise, so that a few
# units' sum stands out if it is not the exact one.
ASKED, ASKED_WITH_UNITS, QUIET = 24, 4, 0.5
# Lengths of votes that are beyond any bound, and how many of them.
LONG, LONGS = 50.0, 40


def vote_checks(recipe: Recipe, audited: AuditedSite, plan: Plan) -> list[Check]:
    """Tests the assumptions of a study of votes.

    Args:
        recipe: The study's sections but `[votes]`.
        audited: A site with synthetic records.
        plan: The study's plan.
    """
    candidates = ballot_for(audited, plan)
    plan = with_candidates(plan, len(candidates))
    with tempfile.TemporaryDirectory() as folder:
        study = _VotingStudy(recipe, audited, plan, candidates, Path(folder))
        return [
            *vote_influence(audited, candidates),
            study.noise(),
            study.exactly(),
            *study.entries(),
        ]


def ballot_for(audited: AuditedSite, plan: Plan) -> list[CandidateText]:
    """Returns candidates for an audit: the records' own texts, so that votes are spread; repeated,
    so that some are tied.

    Args:
        audited: A site with synthetic records.
        plan: A plan of votes.
    """
    assert plan.votes is not None
    count = max(FEWEST, min(plan.votes, MOST_AUDITED))
    texts = [record for record in audited.records if isinstance(record, TextRecord)]
    chosen = [texts[place % len(texts)] for place in range(count)]
    return [CandidateText(one.text, one.label) for one in chosen]


def with_candidates(plan: Plan, count: int) -> Plan:
    """Returns a plan of votes for another number of candidates."""
    return replace(plan, votes=count, message=tuple(votes_shapes(count).items()))


def vote_influence(
    audited: AuditedSite, candidates: Sequence[CandidateText], grid: float | None = None
) -> list[Check]:
    """Leaves out each unit in turn, compares its votes with those by hand, and clips long ones.

    Args:
        audited: A site with synthetic records.
        candidates: The candidates.
        grid: The grid of a sum with shared noise; None: that of the bound.
    """
    workspace, units = audited.workspace, list(audited.units)
    write_adapter(workspace.network, workspace.start)

    def total(of: Sequence[UnitExamples]) -> ClippedSum:
        return summing.vote_sum(workspace.network, workspace.task, of, candidates, grid)

    whole, longest, companions, wrong = total(units), 0.0, 0, 0
    vectors = [_unit_vector(audited, candidate) for candidate in candidates]
    for place, unit in enumerate(units):
        rest, alone = total(units[:place] + units[place + 1 :]), total([unit])
        moved = _values(whole) - _values(rest)
        longest = max(longest, float(np.linalg.norm(moved)) * whole.grid)
        companions += not np.array_equal(moved, _values(alone))
        given = _values(alone) * alone.grid
        wrong += not np.allclose(given, _by_hand(audited, unit, candidates, vectors), atol=1e-4)
    rng = np.random.default_rng(0)
    for _ in range(LONGS):
        found = summing.clipped_votes(rng.normal(0, LONG, (1, len(candidates))), grid)
        longest = max(longest, float(np.linalg.norm(_values(found))) * found.grid)
    return [
        exact_check(
            "influence of a voting unit",
            "largest norm of what one unit adds to the counts, over the bound",
            longest / BOUND,
            1.0,
        ),
        exact_check(
            "votes of a unit",
            "units whose votes are not for the nearest candidates of their labels, by hand",
            wrong,
        ),
        exact_check(
            "companions of a voting unit",
            "units whose votes differ between alone and among others",
            companions,
        ),
    ]


def _unit_vector(audited: AuditedSite, candidate: CandidateText) -> Floats:
    return _vector_of(audited, audited.workspace.task.encode(TextRecord(*_fields(candidate))))


def _fields(candidate: CandidateText) -> tuple[str, str]:
    return candidate.text, candidate.label


def _vector_of(audited: AuditedSite, example: Any) -> Floats:
    network = audited.workspace.network
    with torch.no_grad(), network.apart(keeping=False), pinned():
        pooled = network.pooled(audited.workspace.task.collate([example]))
    vector: Floats = pooled[0].double().cpu().numpy()
    return vector / np.linalg.norm(vector)


def _by_hand(
    audited: AuditedSite,
    unit: UnitExamples,
    candidates: Sequence[CandidateText],
    vectors: Sequence[Floats],
) -> Floats:
    """Returns a unit's votes by the definition: every candidate is compared with every record."""
    votes, labels = np.zeros(len(candidates)), audited.workspace.task.labels
    for example in unit:
        own, best, nearest = _vector_of(audited, example), -2.0, -1
        for place, candidate in enumerate(candidates):
            if labels.index(candidate.label) != example.target:
                continue
            cosine = float((own * vectors[place]).sum())
            if cosine > best:
                best, nearest = cosine, place
        if nearest >= 0:
            votes[nearest] += 1
    shared: Floats = votes / max(votes.sum(), 1.0)
    return shared


def _values(total: ClippedSum) -> Floats:
    return total.tensors[0].double().numpy()


class _NoNoise(OsEntropy):
    """A source that fails when noise is drawn, as after a charge."""

    def gaussian(self, deviation: float, count: int) -> Integers:
        """Draws nothing."""
        raise OSError("no noise")


class _CutOff(Site):
    """A site that is cut off between a round's charge and its release."""

    def entropy(self, plan: Plan, round_number: int) -> Entropy:
        """Returns the source that fails."""
        return _NoNoise()


class _VotingStudy:
    """A site without units, asked for the votes of a study; and the same with units, under another
    ledger."""

    def __init__(
        self,
        recipe: Recipe,
        audited: AuditedSite,
        plan: Plan,
        candidates: Sequence[CandidateText],
        folder: Path,
    ) -> None:
        self._recipe, self._audited, self._plan = recipe, audited, plan
        self._path, self._other = folder / "site.ledger", folder / "other.ledger"
        self._third, self._fourth = folder / "third.ledger", folder / "fourth.ledger"
        self._candidates, self._body = candidates, encode_candidates(candidates)
        self._different = self._early = 0

    def _opened(
        self,
        path: Path,
        plan: Plan,
        units: Sequence[UnitExamples],
        kind: type[Site] = Site,
    ) -> Admitted:
        return open_site(self._recipe, self._audited.workspace, path, plan, kind, units=units)

    def _open(self) -> Admitted:
        return self._opened(self._path, replace(self._plan, num_rounds=ASKED), ())

    def _ask(self, admitted: Admitted, number: int) -> RoundReply:
        request = RoundRequest(STUDY, number, b"", Step.VOTE, self._body)
        return run_round(admitted, request, lambda: None)

    def _sent(self, reply: RoundReply) -> Floats:
        shapes = dict(self._plan.message)
        return decode(reply.delta, shapes)[HISTOGRAM].astype(np.float64)

    def noise(self) -> Check:
        """Asks all rounds, the first ones twice, and tests what comes without any unit, and what is
        left with units once their sum is taken off. Both have one seed and one study, so that noise
        which follows from these shows as equal rows."""
        answers = ask_all(self._open, self._ask, ASKED)
        self._different = answers.different + self._otherwise()
        rows = [self._sent(reply) for reply in answers.replies]
        workspace, watched = self._audited.workspace, WatchedUnits(self._audited.units)
        loud = self._plan.noise_multiplier
        quiet = replace(self._plan, num_rounds=ASKED_WITH_UNITS, noise_multiplier=QUIET)
        other = self._opened(self._other, quiet, watched)
        exact = summing.vote_sum(
            workspace.network, workspace.task, self._audited.units, self._candidates
        )
        for number in range(1, ASKED_WITH_UNITS + 1):
            watched.ledger = other.site.ledger
            sent = self._sent(self._ask(other, number))
            rows.append((sent - _values(exact) * exact.grid) * (loud / QUIET))
        self._early = watched.early
        return noise_check(
            "noise of votes",
            "properties of the noise of every count, of a site without units and with",
            Releases(np.array(rows), (len(self._candidates),), loud * BOUND),
        )

    def _otherwise(self) -> int:
        """Counts answers that would be a second release of a round: with other candidates than
        those for which it was released, and after it was cut off."""
        first, *rest = self._candidates
        others = encode_candidates([replace(first, text=f"{first.text} x"), *rest])
        given = 0
        with suppress(RefusedError):
            asked = RoundRequest(STUDY, 1, b"", Step.VOTE, others)
            run_round(self._open(), asked, lambda: None)
            given += 1
        for kind in (_CutOff, Site):
            with suppress(RoundSpentError):
                self._ask(self._opened(self._fourth, self._plan, (), kind), 1)
                given += 1
        return given

    def exactly(self) -> Check:
        """Asks a site whose noise is written down, and takes it off bit for bit."""
        audited, plan = self._audited, self._plan
        asked = self._opened(self._third, plan, audited.units, RecordedSite)
        sent = self._sent(self._ask(asked, 1))
        site, workspace = asked.site, audited.workspace
        assert isinstance(site, RecordedSite)
        write_adapter(workspace.network, workspace.start)
        exact = summing.vote_sum(workspace.network, workspace.task, audited.units, self._candidates)
        good = is_sum_with_noise(sent, exact, plan.noise_multiplier, site.recorded)
        return exact_check(
            "counts and their noise",
            "rounds that are not the exact counts plus the noise drawn for them, bit for bit",
            not good,
        )

    def entries(self) -> list[Check]:
        """Compares the ledger with one charge of its own kind for each round."""
        noise = self._plan.noise_multiplier
        expected = expected_charges(range(1, ASKED + 1), ReleaseKind.VOTE, noise)
        return [
            exact_check(
                "charges of votes",
                "rounds of votes without a charge of their own kind, and other charges",
                wrong_charges(self._path, expected),
            ),
            exact_check(
                "charge before votes",
                "looks at units before the round's charge is in the ledger",
                self._early,
            ),
            exact_check(
                "votes asked again",
                "votes that differ or are charged anew when they are asked again, and answers to a "
                "round that was released for other candidates, or cut off",
                self._different,
            ),
        ]
