"""Conformance of private evaluations: who is scored, what one unit can change, noise and charge.

The accountant counts one Gaussian release at rate 1 for each evaluation, of sensitivity 1. That
holds if a unit is on one side for the data set's life and in that side's releases alone, if its
vector is clipped as a whole, and if noise, answers and charges are as of all releases with noise of
a site's own (`audit.own_releases`). Training is tested on the same plan without evaluations.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cloister.audit.asked import Asked, UnitSum
from cloister.audit.asked_site import expected_charges, open_site, wrong_charges
from cloister.audit.audited_site import AuditedSite
from cloister.audit.banded_conformance import by_hand
from cloister.audit.noise_tests import angle_p
from cloister.audit.own_releases import own_checks
from cloister.audit.recorded_noise import RecordedSite
from cloister.audit.statistics import Check, Floats, exact_check, p_check
from cloister.audit.unit_influence import UnitInfluence, values_of
from cloister.audit.watched_units import WatchedUnits
from cloister.client.round import run_round
from cloister.client.stamp import ContentStamp
from cloister.data.held_out import PURPOSE, HeldOut
from cloister.data.unit_hash import MARKS, side_digests
from cloister.deployment.site.records import SiteRecords
from cloister.models.network import Network
from cloister.models.state import write_adapter
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.evaluations import BOUND
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.units import Unit
from cloister.recipe import Recipe
from cloister.tasks.tally.chosen import statistics_of, tally_of
from cloister.training import held_out_sum as summing
from cloister.training.units import UnitExamples

# Lengths of statistics that are beyond any bound, and how many of them.
LONG, LONGS = 50.0, 40
SECRET, SHARE = b"audit" * 7, 0.5


def evaluation_checks(recipe: Recipe, audited: AuditedSite) -> list[Check]:
    """Tests the assumptions of private evaluations.

    Args:
        recipe: The study.
        audited: Its site, with synthetic records; its plan has evaluations.
    """
    return [
        sides_check(audited),
        *influence_checks(audited),
        *own_checks(recipe, audited, audited.plan, evaluation_of(audited)),
        *beside_training(recipe, audited),
    ]


def evaluation_of(audited: AuditedSite) -> UnitSum:
    """Returns the release of one evaluation.

    Args:
        audited: A site with synthetic records; its plan has evaluations.
    """
    evaluations, workspace = audited.plan.evaluations, audited.workspace
    assert evaluations is not None

    def exact(units: Sequence[UnitExamples], grid: float | None) -> ClippedSum:
        write_adapter(workspace.network, workspace.whole)
        task = workspace.task
        return summing.held_out_sum(workspace.network, task, units, task.max_length, grid)

    shapes = summing.released_shapes(workspace.task)
    ((size,),) = shapes.values()
    return UnitSum(
        what="evaluations",
        values="statistics",
        asked=Asked.about(ReleaseKind.EVALUATION, workspace.whole, size),
        shapes=shapes,
        noise_multiplier=evaluations.noise_multiplier,
        bound=BOUND,
        exact=exact,
    )


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
    workspace, units = audited.workspace, audited.units
    task = workspace.task
    write_adapter(workspace.network, workspace.start)

    def total(network: Network, of: Sequence[UnitExamples]) -> ClippedSum:
        return summing.held_out_sum(network, task, of, task.max_length, grid)

    found = UnitInfluence.measured(total, workspace.network, units)
    longest, bent, spread = _long_vectors(statistics_of(tally_of(task)).scales, grid)
    return [
        exact_check(
            "influence of a held-out unit",
            "largest norm of what one unit adds to the statistics, over the bound",
            max(found.longest, longest) / BOUND,
            1.0,
        ),
        exact_check(
            "direction of statistics",
            "largest change of a direction by the clip, which scales a vector as a whole",
            bent,
            1e-5,
        ),
        exact_check(
            "statistics that are not finite",
            "vectors with NaN or infinities that add something, or change what others add",
            spread,
        ),
        *found.checks("held-out unit", total, workspace.network, units, summing.BLOCK),
    ]


def _long_vectors(scales: Floats, grid: float | None) -> tuple[float, float, int]:
    """Clips statistics that are far too long, or not finite.

    Returns:
        The largest norm of a clipped vector, the largest change of a direction, and the number of
        vectors that are not finite and still change a sum.
    """
    rng = np.random.default_rng(0)
    longest = bent = 0.0
    for _ in range(LONGS):
        vector = rng.normal(0, LONG, (1, len(scales))) / scales
        found = summing.clipped_statistics(vector, scales, grid)
        clipped = values_of(found) * found.grid
        longest = max(longest, float(np.linalg.norm(clipped)))
        direction = (vector * scales)[0] / np.linalg.norm(vector * scales)
        bent = max(bent, float(np.abs(clipped - direction).max()) - _rounding(len(clipped), grid))
    sound = values_of(summing.clipped_statistics(vector, scales, grid))
    spread = 0
    for place, value in enumerate((np.nan, np.inf, -np.inf)):
        broken = vector.copy()
        broken[0, place % len(scales)] = value
        with np.errstate(all="ignore"):
            both = summing.clipped_statistics(np.concatenate([broken, vector]), scales, grid)
        spread += not np.array_equal(values_of(both), sound)
    return longest, bent, spread


def _rounding(size: int, grid: float | None) -> float:
    """How far a grid moves a value of a vector of norm 1: half a step, and what the clip leaves
    below the bound for all of them."""
    return 0.0 if grid is None else (1 + math.sqrt(size)) * grid / 2


def beside_training(recipe: Recipe, audited: AuditedSite) -> list[Check]:
    """Has a site train a round and evaluate after it, with units on either side, and asks for both
    again.

    Args:
        recipe: The study.
        audited: Its site, with synthetic records; its plan has evaluations.
    """
    evaluated, workspace = evaluation_of(audited), audited.workspace
    # Questions hold the start, whole and exact, whatever the study's adapter is rounded to.
    recipe = replace(recipe, training=replace(recipe.training, adapter_dtype=None))
    names = workspace.trained_in_round(recipe.training, 1)
    size = workspace.start.select(names).size
    trained = Asked.about(ReleaseKind.TRAINING, workspace.whole, size)
    steps = -(-evaluated.asked.values // trained.values)  # as many values of noise, or more
    plan = replace(evaluated.planned(audited.plan, 1), bands=(), local_steps=steps)
    units, held_out = WatchedUnits(audited.units), WatchedUnits(audited.units)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "site.ledger"
        own = {"units": units, "held_out": held_out}
        admitted = open_site(recipe, workspace, path, plan, RecordedSite, **own)
        site = admitted.site
        assert isinstance(site, RecordedSite)
        before = held_out.looks
        first = run_round(admitted, trained.request(1), lambda: None)
        looks, before = held_out.looks - before, units.looks
        second = run_round(admitted, evaluated.asked.request(1), lambda: None)
        looks += units.looks - before
        different = 0
        for asked, reply in ((trained, first), (evaluated.asked, second)):
            again = run_round(admitted, asked.request(1), lambda: None)
            different += (again.delta, again.head) != (reply.delta, reply.head)
        charges = [
            *expected_charges(
                (1,), ReleaseKind.TRAINING, plan.noise_multiplier, plan.sample_rate, steps
            ),
            *expected_charges((1,), ReleaseKind.EVALUATION, evaluated.noise_multiplier),
        ]
        wrong = wrong_charges(path, charges)
        *updates, last = [values / deviation for deviation, values in site.recorded.drawn]
    update = np.concatenate([*updates, np.zeros(0)])[: len(last)]
    same = len(update) == len(last) == evaluated.asked.values
    return [
        exact_check(
            "looks at the other side",
            "looks at held-out units in a trained round, and at trained units in an evaluation",
            looks,
        ),
        exact_check(
            "charges beside training",
            "charges of a round that is trained and evaluated that are not one of either kind, and "
            "releases of it that differ when they are asked again",
            wrong + different,
        ),
        p_check(
            "noise beside training",
            "angle between the noise of an evaluation and that of its round's update",
            angle_p(np.array([update, last])) if same else [float("nan")],
        ),
    ]
