"""Conformance of private evaluations: who is scored, what one unit can change, noise and charge.

The accountant counts one Gaussian release at rate 1 for each evaluation, of sensitivity 1. That
holds if a unit is on one side for the data set's life, if its vector is clipped as a whole, if
every statistic is noised, and if an evaluation is charged once and sent again as it was. Training
is tested on the same plan without evaluations.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cloister.adapter.formats import Shapes
from cloister.adapter.wire import decode, encode
from cloister.audit.asked_site import (
    STUDY,
    ask_all,
    expected_charges,
    open_site,
    wrong_charges,
)
from cloister.audit.audited_site import AuditedSite
from cloister.audit.banded_conformance import by_hand
from cloister.audit.noise_tests import Releases, noise_check
from cloister.audit.recorded_noise import RecordedSite, is_sum_with_noise
from cloister.audit.statistics import Check, Floats, exact_check
from cloister.client.admission import Admitted
from cloister.client.round import run_round
from cloister.client.site import Site
from cloister.client.stamp import ContentStamp
from cloister.data.held_out import PURPOSE, HeldOut
from cloister.data.unit_hash import MARKS, side_digests
from cloister.deployment.site.records import SiteRecords
from cloister.models.state import write_adapter
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.evaluations import BOUND, Evaluations
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.units import Unit
from cloister.protocol.exchange import RoundReply, RoundRequest, Step
from cloister.recipe import Recipe
from cloister.tasks.tally.chosen import statistics_of, tally_of
from cloister.training import held_out_sum as summing
from cloister.training.units import UnitExamples

# Evaluations of a site without held-out units; with a thousand statistics or more, or with a few.
ASKED = 24
# Evaluations that the same site is asked with held-out units and another ledger, and their noise:
# little, so that a few units' sum stands out if it is not the exact one.
ASKED_WITH_UNITS, QUIET = 4, 0.5
# Lengths of statistics that are beyond any bound, and how many of them.
LONG, LONGS = 50.0, 40
SECRET, SHARE = b"audit" * 7, 0.5


def evaluation_checks(recipe: Recipe, audited: AuditedSite) -> list[Check]:
    """Tests the assumptions of private evaluations.

    Args:
        recipe: The study.
        audited: Its site, with synthetic records; its plan has evaluations.
    """
    with tempfile.TemporaryDirectory() as folder:
        study = _EvaluatedStudy(recipe, audited, Path(folder))
        return [
            sides_check(audited),
            *influence_checks(audited),
            study.noise(),
            study.exactly(),
            *study.entries(),
        ]


def sides_check(audited: AuditedSite) -> Check:
    """Compares both sides of a site's records with those by hand, in other orders and with records
    left out."""
    records, wrong = list(audited.records), 0
    held_out = HeldOut(SECRET, SHARE)
    for order in (records, records[::-1], records[1:], records[: len(records) // 2]):
        whole = SiteRecords(
            tuple(order),
            tuple(range(len(order))),
            (),
            (),
            ContentStamp(0, 0, ""),
            "",
            side_digests(order),
        )
        held = [
            record
            for record in order
            if by_hand(record, Unit.PERSON, SECRET, PURPOSE) < SHARE * MARKS
        ]
        trained = [record for record in order if record not in held]
        wrong += list(whole.kept_apart(held_out).records) != held
        wrong += list(whole.trained_on(held_out).records) != trained
    return exact_check(
        "sides of units",
        "lists of trained or of held-out records that differ from those of the keyed hash by hand",
        wrong,
    )


def influence_checks(audited: AuditedSite, grid: float | None = None) -> list[Check]:
    """Leaves out each unit in turn, and clips vectors that are far too long.

    Args:
        audited: The audited site.
        grid: The grid of sums with shared noise; None: that of the bound.
    """
    workspace, units = audited.workspace, list(audited.units)
    task = workspace.task
    write_adapter(workspace.network, workspace.start)

    def total(of: Sequence[UnitExamples]) -> ClippedSum:
        return summing.held_out_sum(workspace.network, task, of, task.max_length, grid)

    whole, longest, companions = total(units), 0.0, 0
    for place, unit in enumerate(units):
        rest, alone = total(units[:place] + units[place + 1 :]), total([unit])
        moved = _values(whole) - _values(rest)
        longest = max(longest, float(np.linalg.norm(moved)) * whole.grid)
        companions += not np.array_equal(moved, _values(alone))
    rng = np.random.default_rng(0)
    scales = statistics_of(tally_of(task)).scales
    bent = 0.0
    for _ in range(LONGS):
        vector = rng.normal(0, LONG, (1, len(scales))) / scales
        found = summing.clipped_statistics(vector, scales, grid)
        clipped = _values(found) * found.grid
        longest = max(longest, float(np.linalg.norm(clipped)))
        direction = (vector * scales)[0] / np.linalg.norm(vector * scales)
        bent = max(bent, float(np.abs(clipped - direction).max()) - _rounding(len(clipped), grid))
    return [
        exact_check(
            "influence of a held-out unit",
            "largest norm of what one unit adds to the statistics, over the bound",
            longest / BOUND,
            1.0,
        ),
        exact_check(
            "direction of statistics",
            "largest change of a direction by the clip, which scales a vector as a whole",
            bent,
            1e-5,
        ),
        exact_check(
            "companions of a held-out unit",
            "units whose statistics differ between alone and among others",
            companions,
        ),
    ]


def _rounding(size: int, grid: float | None) -> float:
    """How far a grid moves a value of a vector of norm 1: half a step, and what the clip leaves
    below the bound for all of them."""
    return 0.0 if grid is None else (1 + math.sqrt(size)) * grid / 2


def _sent(reply: RoundReply, shapes: Shapes) -> Floats:
    (values,) = decode(reply.delta, shapes).values()
    return values.astype(np.float64)


def _values(total: ClippedSum) -> Floats:
    return total.tensors[0].double().numpy()


class _EvaluatedStudy:
    """A site without held-out units, asked for the evaluations of a study; and the same with units,
    under another ledger."""

    def __init__(self, recipe: Recipe, audited: AuditedSite, folder: Path) -> None:
        self._recipe, self._audited, self._path = recipe, audited, folder / "site.ledger"
        self._other, self._third = folder / "other.ledger", folder / "third.ledger"
        evaluations = audited.plan.evaluations
        assert evaluations is not None
        self._noise = evaluations.noise_multiplier
        self._different = 0

    def _plan(self, asked: int, noise: float) -> Plan:
        rounds = tuple(range(1, asked + 1))
        evaluations = Evaluations(rounds=rounds, noise_multiplier=noise)
        return replace(self._audited.plan, num_rounds=asked, evaluations=evaluations)

    def _open(self) -> Admitted:
        """As another process opens the site."""
        return self._opened(self._path, self._plan(ASKED, self._noise), ())

    def _opened(
        self,
        path: Path,
        plan: Plan,
        held_out: Sequence[UnitExamples],
        kind: type[Site] = Site,
    ) -> Admitted:
        workspace = self._audited.workspace
        return open_site(self._recipe, workspace, path, plan, kind, units=(), held_out=held_out)

    def _ask(self, admitted: Admitted, number: int) -> RoundReply:
        adapter = encode(admitted.workspace.whole)
        request = RoundRequest(STUDY, number, adapter, Step.EVALUATE)
        return run_round(admitted, request, lambda: None)

    def noise(self) -> Check:
        """Asks all evaluations, the first ones twice, and tests what comes without any unit, and
        what is left with units once their sum is taken off. Both have one seed and one study, so
        that noise which follows from these shows as equal rows."""
        answers = ask_all(self._open, self._ask, ASKED)
        self._different = answers.different
        shapes = self._open().evaluated
        rows = [_sent(reply, shapes) for reply in answers.replies]
        workspace, units = self._audited.workspace, self._audited.units
        other = self._opened(self._other, self._plan(ASKED_WITH_UNITS, QUIET), units)
        for number in range(1, ASKED_WITH_UNITS + 1):
            sent = _sent(self._ask(other, number), shapes)
            exact = summing.held_out_sum(
                workspace.network, workspace.task, units, workspace.task.max_length
            )
            rows.append((sent - _values(exact) * exact.grid) * (self._noise / QUIET))
        (shape,) = shapes.values()
        return noise_check(
            "noise of evaluations",
            "properties of the noise of all statistics, of a site without held-out units and with",
            Releases(np.array(rows), (shape[0],), self._noise * BOUND),
        )

    def exactly(self) -> Check:
        """Asks a site whose noise is written down, and takes it off bit for bit."""
        workspace, units = self._audited.workspace, self._audited.units
        asked = self._opened(self._third, self._plan(1, self._noise), units, RecordedSite)
        sent = _sent(self._ask(asked, 1), asked.evaluated)
        site = asked.site
        assert isinstance(site, RecordedSite)
        write_adapter(workspace.network, workspace.whole)
        exact = summing.held_out_sum(
            workspace.network, workspace.task, units, workspace.task.max_length
        )
        return exact_check(
            "statistics and their noise",
            "evaluations that are not the exact statistics plus the noise drawn for them, bit for "
            "bit",
            not is_sum_with_noise(sent, exact, self._noise, site.recorded),
        )

    def entries(self) -> list[Check]:
        """Compares the ledger with one charge of its own kind for each evaluation."""
        expected = expected_charges(range(1, ASKED + 1), ReleaseKind.EVALUATION, self._noise)
        return [
            exact_check(
                "charges of evaluations",
                "evaluations without a charge of their own kind, and other charges",
                wrong_charges(self._path, expected),
            ),
            exact_check(
                "evaluations asked again",
                "evaluations that differ, or are charged anew, when they are asked again",
                self._different,
            ),
        ]
