"""Checks that votes and private evaluations with noise of a site's own have in common.

What is accounted is one Gaussian release at rate 1 for each round. That holds if every value is
noised, if what leaves follows from the noised sum and the plan alone, and if a round is charged
once, before a unit is looked at, and sent again as it was.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, encode
from cloister.audit.answer_fields import HASHES, entries_apart, unexplained_fields
from cloister.audit.asked import UnitSum
from cloister.audit.asked_site import ask_all, expected_charges, open_site, wrong_charges
from cloister.audit.audited_site import AuditedSite
from cloister.audit.noise_tests import Releases, noise_check
from cloister.audit.recorded_noise import RecordedSite, sum_with_noise
from cloister.audit.second_answers import second_answers
from cloister.audit.statistics import Check, Floats, exact_check
from cloister.audit.unit_influence import values_of
from cloister.audit.watched_units import WatchedUnits
from cloister.client.admission import Admitted
from cloister.client.round import run_round
from cloister.client.site import Site
from cloister.ledger.storage import LedgerFile
from cloister.privacy.clipping import grid_of
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.protocol.exchange import RoundReply
from cloister.recipe import Recipe
from cloister.training.units import UnitExamples

# Rounds of a site without units: with a few dozen values enough to notice one without noise.
ASKED = 24
# Rounds of a site with units under another ledger, and their noise: little, so that a few units'
# sum stands out if it is not the exact one.
ASKED_WITH_UNITS, QUIET = 4, 0.5


def own_checks(recipe: Recipe, audited: AuditedSite, plan: Plan, released: UnitSum) -> list[Check]:
    """Asks a site for a release in every round, and tests noise, answers and charges.

    Args:
        recipe: The study.
        audited: A site with synthetic records.
        plan: The study's plan; its noise is not shared.
        released: What is released.
    """
    with tempfile.TemporaryDirectory() as folder:
        study = _Study(recipe, audited, plan, released, Path(folder))
        return [study.noise(), *study.exactly(), *study.entries()]


class _Study:
    """A site without units, asked for the releases of a study; and the same with units, under
    another ledger."""

    def __init__(
        self, recipe: Recipe, audited: AuditedSite, plan: Plan, released: UnitSum, folder: Path
    ) -> None:
        self._recipe, self._audited, self._plan = recipe, audited, plan
        self._released, self._folder = released, folder
        self._different = self._early = 0

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.ledger"

    def _open(
        self,
        name: str,
        units: Sequence[UnitExamples],
        rounds: int,
        kind: type[Site] = Site,
        noise: float | None = None,
    ) -> Admitted:
        """As another process opens the site with a ledger of this name."""
        released, plan = self._released, self._released.planned(self._plan, rounds, noise)
        evaluates = released.asked.kind is ReleaseKind.EVALUATION
        own: dict[str, Any] = {"units": (), "held_out": units} if evaluates else {"units": units}
        return open_site(self._recipe, self._audited.workspace, self._path(name), plan, kind, **own)

    def _empty(self) -> Admitted:
        return self._open("empty", (), ASKED)

    def _ask(self, admitted: Admitted, number: int) -> RoundReply:
        return run_round(admitted, self._released.asked.request(number), lambda: None)

    def _sent(self, reply: RoundReply) -> Floats:
        (values,) = decode(reply.delta, self._released.shapes).values()
        return values.astype(np.float64)

    def noise(self) -> Check:
        """Asks all rounds, the first ones twice, and tests what comes without any unit, and what is
        left with units once their sum is taken off. Both have one seed and one study, so that noise
        which follows from these shows as equal rows."""
        released, asked = self._released, self._released.asked
        answers = ask_all(self._empty, self._ask, ASKED)
        self._different = answers.different + second_answers(
            asked,
            self._empty,
            answers.replies[0],
            lambda kind: self._open("cut off", (), ASKED, kind),
            ASKED,
        )
        rows = [self._sent(reply) for reply in answers.replies]
        loud, watched = released.noise_multiplier, WatchedUnits(self._audited.units)
        other = self._open("quiet", watched, ASKED_WITH_UNITS, noise=QUIET)
        exact = released.exact(self._audited.units, None)
        watched.ledger = other.site.ledger
        for number in range(1, ASKED_WITH_UNITS + 1):
            sent = self._sent(self._ask(other, number))
            rows.append((sent - values_of(exact) * exact.grid) * (loud / QUIET))
        self._early = watched.early
        return noise_check(
            f"noise of {released.what}",
            f"properties of the noise of all {released.values}, of a site without units and with",
            Releases(np.array(rows), (asked.values,), loud * released.bound),
        )

    def exactly(self) -> list[Check]:
        """Asks sites whose noise is written down, one of them without units: payloads must follow
        from noise and sum byte for byte, all else from plan and ledger."""
        released, wrong, unexplained = self._released, 0, list[str]()
        ledgers: list[list[dict[str, Any]]] = []
        for name, units in (("written", self._audited.units), ("written empty", ())):
            admitted = self._open(name, units, 1, RecordedSite)
            site, reply = admitted.site, self._ask(admitted, 1)
            assert isinstance(site, RecordedSite)
            exact = released.exact(units, None)
            right = sum_with_noise(exact, released.noise_multiplier, site.recorded)
            (tensor,) = released.shapes
            wrong += right is None or reply.delta != encode(Adapter({tensor: right}))
            wrong += exact.grid != grid_of(released.bound)  # a coarser one would show in the bits
            unexplained += unexplained_fields(reply, site, 1)
            # Keys differ, which the first entry states, and so may the times of two answers.
            ledgers.append([one.fields for one in LedgerFile(self._path(name)).entries()][1:])
        apart = entries_apart(ledgers, HASHES | {"time"})
        return [
            exact_check(
                f"{released.values} and their noise",
                f"payloads that are not the exact {released.values} plus the noise drawn for "
                "them, byte for byte",
                wrong,
            ),
            exact_check(
                f"answers to {released.what}",
                "fields of answers and entries of ledgers that do not follow from the plan: "
                f"{', '.join(sorted(set(unexplained))) or 'no field'}, {apart} entries",
                len(unexplained) + apart,
            ),
        ]

    def entries(self) -> list[Check]:
        """Compares the ledger with one charge of its own kind for each round."""
        released, what = self._released, self._released.what
        expected = expected_charges(
            range(1, ASKED + 1), released.asked.kind, released.noise_multiplier
        )
        return [
            exact_check(
                f"charges of {what}",
                f"{what} without a charge of their own kind, and other charges",
                wrong_charges(self._path("empty"), expected),
            ),
            exact_check(
                f"charge before {what}",
                "looks at units before the round's charge is in the ledger",
                self._early,
            ),
            exact_check(
                f"{what} asked again",
                f"{what} that differ or are charged anew when they are asked again, and answers "
                "to another question in their round, to a round that was cut off, or to one that "
                "the plan does not list",
                self._different,
            ),
        ]
