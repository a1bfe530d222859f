"""Conformance of votes with shared noise: shares, the unmasked counts, answers and charges.

What is accounted is the noise of the fewest honest sites in a sum, on every count. That holds if
each site's share has the plan's size on the plan's grid, if a unit moves the sum by at most 1 after
rounding to that grid, and if the sum has the shares of all sites and nothing else.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from cloister.audit.asked_site import charges_of, expected_charges
from cloister.audit.audited_site import AuditedSite
from cloister.audit.noise_tests import Releases, noise_check
from cloister.audit.recorded_noise import is_sum_with_shares, recorded_sites
from cloister.audit.secure_sums import fewest_honest, names_of, secure_totals
from cloister.audit.statistics import Check, Floats, exact_check, p_check
from cloister.audit.summed_sites import differing
from cloister.audit.vote_conformance import ballot_for, vote_influence, with_candidates
from cloister.audit.watched_units import WatchedUnits
from cloister.client.site import Site
from cloister.models.state import write_adapter
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.votes import BOUND, COUNT_BITS
from cloister.protocol.candidates import CandidateText, encode_candidates
from cloister.protocol.exchange import RoundReply
from cloister.recipe import Recipe
from cloister.secagg.keystream import word
from cloister.training import vote_sum as summing

# Rounds of the study: with a few dozen counts enough to notice one without noise.
ASKED = 24
# Rounds that are asked once more under other ledgers, with the same seed, study and names: noise
# that follows from these shows as equal rows.
ASKED_ELSEWHERE = 2
# A share may be larger than σ/√h by what its grid adds (`privacy.shared_noise.SMOOTHING`): 0.2 %
# at the smallest deviation.
MOST_SHARE = 1.01


def shared_vote_checks(recipe: Recipe, audited: AuditedSite, plan: Plan) -> list[Check]:
    """Tests the assumptions of a study of votes whose noise is shared.

    Args:
        recipe: The study.
        audited: A site with synthetic records.
        plan: The study's plan.
    """
    candidates = ballot_for(audited, plan)
    asked = replace(with_candidates(plan, len(candidates)), num_rounds=ASKED)
    study = _SummedVotes(recipe, audited, asked, candidates)
    return [
        *vote_influence(audited, candidates, asked.shared_vote_noise().grid),
        study.share(),
        study.exactly(),
        *study.asked(),
    ]


@dataclass(frozen=True)
class _SummedVotes:
    """The secure sums of a study of votes, over sites of which the first has no units.

    Attributes:
        recipe: The study.
        audited: The audited site.
        plan: Its plan, with as many rounds as are asked.
        candidates: The candidates of each round.
    """

    recipe: Recipe
    audited: AuditedSite
    plan: Plan
    candidates: Sequence[CandidateText]

    def share(self) -> Check:
        """Compares a site's share with the plan's noise by hand."""
        noise, sharing = self.plan.shared_vote_noise(), self.plan.sharing
        assert sharing is not None
        least = self.plan.noise_multiplier * BOUND / math.sqrt(fewest_honest(sharing))
        return Check(
            name="share of votes",
            law="a site's share over σ/√(fewest honest sites), at least 1",
            figure=noise.share * noise.grid / least,
            low=1.0,
            high=MOST_SHARE,
            is_exact=True,
        )

    def exactly(self) -> Check:
        """Asks sites whose noise is written down once, and takes it off the sum, step for step."""
        written_down, recorded = recorded_sites()
        with tempfile.TemporaryDirectory() as folder:
            (left,) = self._sums(self._paths(folder), 1, written_down).rows
        noise = self.plan.shared_vote_noise()
        return exact_check(
            "summed counts and their noise",
            "sums that are not the exact counts plus the shares of noise drawn for them",
            not is_sum_with_shares(np.rint(left / noise.grid), noise.share, recorded),
        )

    def asked(self) -> list[Check]:
        """Asks all sites for every round, and tests what is left of the sums once the exact counts
        are taken off, the answers, and what was charged."""
        with tempfile.TemporaryDirectory() as folder:
            paths = self._paths(folder)
            summed = self._sums(paths, ASKED, Site)
            charges = [charges_of(path) for path in paths]
        with tempfile.TemporaryDirectory() as folder:
            elsewhere = self._sums(self._paths(folder), ASKED_ELSEWHERE, Site)
        noise, sites = self.plan.shared_vote_noise(), len(paths)
        rounds = range(1, ASKED + 1)
        expected = expected_charges(rounds, ReleaseKind.VOTE, self.plan.noise_multiplier)
        return [
            noise_check(
                "noise of summed votes",
                "properties of the noise of all counts in the unmasked sums of all sites",
                Releases(
                    np.array(summed.rows + elsewhere.rows),
                    (len(self.candidates),),
                    noise.share * noise.grid * math.sqrt(sites),
                ),
            ),
            exact_check(
                "answers to summed votes",
                "fields that differ between a site with units and one without",
                len(differing(summed.replies, sites)),
            ),
            p_check(
                "masked counts",
                "what a site sends, against uniform values (Kolmogorov-Smirnov)",
                [_uniform_p(summed.replies, len(self.candidates))],
            ),
            exact_check(
                "charges of summed votes",
                "sites that did not charge each round of votes once, as its own kind",
                sum(found != expected for found in charges),
            ),
            exact_check(
                "charge before summed votes",
                "looks at units before the round's charge is in the ledger",
                summed.early,
            ),
            exact_check(
                "summed votes asked again",
                "masked counts that differ when they are asked for again",
                summed.different,
            ),
        ]

    def _paths(self, folder: str) -> list[Path]:
        return [Path(folder) / f"{name}.ledger" for name in names_of(self.plan)]

    def _sums(self, paths: Sequence[Path], asked: int, make: Callable[..., Site]) -> _Summed:
        workspace, units = self.audited.workspace, self.audited.units
        watched = [WatchedUnits(units) for _ in paths[1:]]

        def watching(**fields: Any) -> Site:
            site = make(**fields)
            if isinstance(site.units, WatchedUnits):
                site.units.ledger = site.ledger
            return site

        found = secure_totals(
            self.recipe,
            self.audited,
            self.plan,
            paths,
            encode_candidates(self.candidates),
            len(self.candidates),
            asked,
            watching,
            lambda place: {"units": watched[place - 1] if place else ()},
        )
        grid = self.plan.shared_vote_noise().grid
        write_adapter(workspace.network, workspace.start)
        exact = summing.vote_sum(workspace.network, workspace.task, units, self.candidates, grid)
        sure = (len(paths) - 1) * exact.tensors[0].numpy()
        none = np.zeros(len(self.candidates))
        rows = [none if total is None else (total - sure) * grid for total in found.totals]
        early = sum(one.early for one in watched)
        return _Summed(rows, found.replies, early, found.different)


@dataclass(frozen=True)
class _Summed:
    """What sums of votes showed.

    Attributes:
        rows: What is left of each sum without the exact counts.
        replies: What left the sites.
        early: Looks at units before their charge.
        different: Masked counts that differed when they were asked for again.
    """

    rows: list[Floats]
    replies: list[RoundReply]
    early: int
    different: int


def _uniform_p(replies: Sequence[RoundReply], values: int) -> float:
    """The p-value of masked values being uniform modulo 2^32; only they have a release's entry."""
    sent = [reply.delta[-values * COUNT_BITS // 8 :] for reply in replies if reply.head]
    words = np.frombuffer(b"".join(sent), dtype=word(COUNT_BITS))
    return float(stats.kstest(words / 2.0**COUNT_BITS, "uniform").pvalue)
