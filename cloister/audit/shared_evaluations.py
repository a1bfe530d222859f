"""Conformance of private evaluations with shared noise: shares, the unmasked sum, and charges.

What is accounted is the noise of the fewest honest sites in a sum, on every statistic. That holds
if each site's share has the plan's size on the plan's grid, if a unit moves the sum by at most the
bound after rounding to that grid, and if the sum has the shares of all sites and nothing else.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cloister.adapter.wire import encode
from cloister.audit.asked_site import charges_of, expected_charges
from cloister.audit.audited_site import AuditedSite
from cloister.audit.evaluation_conformance import influence_checks, sides_check
from cloister.audit.noise_tests import Releases, noise_check
from cloister.audit.recorded_noise import is_sum_with_shares, recorded_sites
from cloister.audit.secure_sums import names_of, secure_totals
from cloister.audit.statistics import Check, Floats, exact_check
from cloister.audit.summed_sites import differing
from cloister.client.site import Site
from cloister.models.state import write_adapter
from cloister.privacy.evaluations import BOUND, Evaluations
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.sharing import Sharing
from cloister.protocol.exchange import RoundReply
from cloister.recipe import Recipe
from cloister.training import held_out_sum as summing

# Evaluations of the study: with a few dozen statistics enough to notice one without noise.
ASKED = 24
# A share may be larger than σ/√h by what its grid adds (`privacy.shared_noise.SMOOTHING`): 0.2 %
# at the smallest deviation.
MOST_SHARE = 1.01


def shared_evaluation_checks(recipe: Recipe, audited: AuditedSite) -> list[Check]:
    """Tests the assumptions of private evaluations with shared noise.

    Args:
        recipe: The study.
        audited: Its site, with synthetic records; its plan has evaluations and shared noise.
    """
    plan = audited.plan
    evaluations, sharing = plan.evaluations, plan.sharing
    assert evaluations is not None
    assert sharing is not None
    rounds = tuple(range(1, ASKED + 1))
    asked = Evaluations(rounds=rounds, noise_multiplier=evaluations.noise_multiplier)
    study = _SummedEvaluations(
        recipe, audited, replace(plan, num_rounds=ASKED, evaluations=asked), sharing
    )
    return [
        sides_check(audited),
        *influence_checks(audited, study.grid),
        study.share(),
        study.exactly(),
        *study.asked(),
    ]


@dataclass(frozen=True)
class _SummedEvaluations:
    """The secure sums of a study's evaluations, over sites of which the first holds nothing out.

    Attributes:
        recipe: The study.
        audited: The audited site.
        plan: Its plan, with as many evaluations as are asked.
        sharing: How the noise is shared.
    """

    recipe: Recipe
    audited: AuditedSite
    plan: Plan
    sharing: Sharing

    @property
    def statistics(self) -> int:
        """Number of statistics."""
        ((size,),) = summing.released_shapes(self.audited.workspace.task).values()
        return size

    @property
    def names(self) -> tuple[str, ...]:
        """The sites' names."""
        return names_of(self.plan)

    @property
    def grid(self) -> float:
        """The grid of the sums."""
        return self.plan.shared_evaluation_noise(self.statistics).grid

    def share(self) -> Check:
        """Compares a site's share with the plan's noise by hand."""
        noise, evaluations = (
            self.plan.shared_evaluation_noise(self.statistics),
            self.plan.evaluations,
        )
        assert evaluations is not None
        least = evaluations.noise_multiplier * BOUND / math.sqrt(self.sharing.honest)
        return Check(
            name="share of evaluations",
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
            paths = [Path(folder) / f"{name}.ledger" for name in self.names]
            ((left,), _) = self._sums(paths, 1, written_down)
        share = self.plan.shared_evaluation_noise(self.statistics).share
        return exact_check(
            "summed statistics and their noise",
            "sums that are not the exact statistics plus the shares of noise drawn for them",
            not is_sum_with_shares(np.rint(left / self.grid), share, recorded),
        )

    def asked(self) -> list[Check]:
        """Asks all sites for every evaluation, and tests what is left of the sums once the exact
        statistics are taken off, the answers, and what was charged."""
        names = self.names
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{number}.ledger" for number in range(len(names))]
            rows, replies = self._sums(paths, ASKED, Site)
            charges = [charges_of(path) for path in paths]
        noise = self.plan.shared_evaluation_noise(self.statistics)
        evaluations = self.plan.evaluations
        assert evaluations is not None
        noise_multiplier = evaluations.noise_multiplier
        expected = expected_charges(evaluations.rounds, ReleaseKind.EVALUATION, noise_multiplier)
        return [
            noise_check(
                "noise of summed evaluations",
                "properties of the noise of all statistics in the unmasked sums of all sites",
                Releases(
                    np.array(rows),
                    (self.statistics,),
                    noise.share * noise.grid * math.sqrt(len(names)),
                ),
            ),
            exact_check(
                "answers to summed evaluations",
                "fields that differ between a site with held-out units and one without",
                len(differing(replies, len(names))),
            ),
            exact_check(
                "charges of summed evaluations",
                "sites that did not charge each evaluation once, as its own kind",
                sum(found != expected for found in charges),
            ),
        ]

    def _sums(
        self, paths: Sequence[Path], asked: int, make: Callable[..., Site]
    ) -> tuple[list[Floats], list[RoundReply]]:
        audited, count = self.audited, len(paths)
        workspace, units = audited.workspace, audited.units
        found = secure_totals(
            self.recipe,
            audited,
            self.plan,
            paths,
            encode(workspace.whole),
            self.statistics,
            asked,
            make,
            lambda place: {"held_out": units if place else ()},
            evaluates=True,
        )
        write_adapter(workspace.network, workspace.whole)
        exact = summing.held_out_sum(
            workspace.network, workspace.task, units, workspace.task.max_length, self.grid
        )
        sure = (count - 1) * exact.tensors[0].numpy()
        none = np.zeros(self.statistics)
        rows = [none if total is None else (total - sure) * self.grid for total in found.totals]
        return rows, found.replies
