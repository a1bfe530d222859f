"""Secure sums of an audited study: several sites in this process, of which the first has no units.

Each answers through the code of a deployed site, and the sums are unmasked as a coordinator does.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cloister.audit.asked import Asked
from cloister.audit.asked_site import STUDY, WIDE, Charged, charges_of
from cloister.audit.audited_site import AuditedSite
from cloister.audit.masks import MaskedRound, mask_checks, masked_rounds
from cloister.audit.recorded_noise import RecordedEntropy, RecordedSite
from cloister.audit.statistics import Check, Floats, exact_check
from cloister.audit.summed_sites import differing, summed_sites
from cloister.audit.watched_units import WatchedUnits
from cloister.client.secure import EpochKeys
from cloister.client.site import Site
from cloister.ledger.ledger import Ledger
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.sharing import Sharing
from cloister.protocol.exchange import RoundReply
from cloister.recipe import Recipe
from cloister.secagg.epoch_terms import EpochTerms
from cloister.simulation.policies import simulated_budget, simulated_policy
from cloister.training.config import TrainingConfig


def names_of(plan: Plan) -> tuple[str, ...]:
    """Returns the names of the sites that share a plan's noise."""
    assert plan.sharing is not None
    return tuple(f"site {number}" for number in range(1, plan.sharing.sites + 1))


def fewest_honest(sharing: Sharing) -> int:
    """Returns the fewest honest sites in a sum, by their definition: all sites less those that may
    be missing and those that may collude."""
    return sharing.sites - sharing.missing - sharing.colluding


@dataclass(frozen=True)
class SecureSums:
    """What sites' secure sums showed.

    Attributes:
        totals: The unmasked sums in steps of their grid, None where nothing was unmasked.
        drawn: What each site drew, if its noise was written down.
        masked: What the coordinator had of each sum.
        replies: All replies, exchange by exchange.
        charges: What each site charged.
        different: Number of masked answers that differed when they were asked for again, or that
            were sent for another question than the round's.
        early: Looks at units before the round's charge.
        beside: Looks at units of the side that the sums are not about: held-out ones, or trained
            ones; None: they are about both.
    """

    totals: list[NDArray[np.int64] | None]
    drawn: list[RecordedEntropy]
    masked: list[MaskedRound]
    replies: list[RoundReply]
    charges: list[list[Charged]]
    different: int
    early: int
    beside: int | None

    def rows(self, values: int) -> list[Floats]:
        """Returns the sums in steps of their grid, with zeros where nothing was unmasked."""
        none = np.zeros(values)
        return [none if total is None else total.astype(np.float64) for total in self.totals]

    def checks(self, what: str, expected: list[Charged], bits: int) -> list[Check]:
        """Tests what does not depend on what is summed: answers, masks, charges and their order.

        Args:
            what: What is summed, for the names of the checks.
            expected: What each site must have charged.
            bits: Bits of a value on the wire.
        """
        return [
            exact_check(
                f"answers to {what}",
                "fields that differ between a site with units and one without: "
                f"{', '.join(sorted(self.apart)) or 'none'}",
                len(self.apart),
            ),
            *mask_checks(what, self.masked, self.totals, bits),
            exact_check(
                f"charges of {what}",
                "sites that did not charge each round once, as its own kind",
                sum(found != expected for found in self.charges),
            ),
            exact_check(
                f"charge before {what}",
                "looks at units before the round's charge is in the ledger",
                self.early,
            ),
            *self._beside(what),
            exact_check(
                f"{what} asked again",
                "masked values that differ when they are asked for again, or that are sent for "
                "another question than the round's",
                self.different,
            ),
        ]

    def _beside(self, what: str) -> list[Check]:
        if self.beside is None:
            return []
        law = "looks at units that are on the other side than those that the sums are about"
        return [exact_check(f"other side of {what}", law, self.beside)]

    @property
    def apart(self) -> set[str]:
        """Fields of answers that differ between sites."""
        return differing(self.replies, len(self.charges))


def secure_sums(
    recipe: Recipe,
    audited: AuditedSite,
    plan: Plan,
    asked: Asked,
    rounds: int,
    kind: type[Site] = RecordedSite,
    training: TrainingConfig | None = None,
) -> SecureSums:
    """Asks all sites for the sums of rounds 1 to `rounds`, each for its masked values again.

    Args:
        recipe: The study.
        audited: The audited site; its workspace computes for all.
        plan: The plan of all sites.
        asked: What they are asked for.
        rounds: Number of rounds.
        kind: The kind of sites.
        training: Their `[training]` section; None: the recipe's.
    """
    names, sharing, workspace = names_of(plan), plan.sharing, audited.workspace
    assert sharing is not None
    evaluates, votes = asked.kind is ReleaseKind.EVALUATION, asked.kind is ReleaseKind.VOTE
    budget = simulated_budget(plan, WIDE)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.ledger" for name in names]
        ledgers = [Ledger.create(path, budget, plan.unit) for path in paths]
        keys = tuple(one.public_key for one in ledgers)
        watched = [WatchedUnits(audited.units, ledger) for ledger in ledgers[1:]]
        others = [WatchedUnits(audited.units) for _ in ledgers[1:]]
        sites = [
            kind(
                name=name,
                study=STUDY,
                plan=plan,
                training=training or recipe.training,
                unit=plan.unit,
                policy=simulated_policy(recipe, plan, budget, workspace, keys),
                ledger=ledger,
                seed=recipe.study.seed,
                keys=EpochKeys(),
                units=other if evaluates else own,
                held_out=own if evaluates else None if votes else other,
            )
            for name, ledger, own, other in zip(
                names, ledgers, [(), *watched], [(), *others], strict=True
            )
        ]
        has_evaluations = plan.evaluations is not None
        summed = summed_sites(
            sites, workspace, sharing, has_evaluations=has_evaluations, other=asked.other
        )
        totals = [
            summed.rounds.run(
                number, asked.question, asked.values, summed.nodes, evaluates=evaluates
            ).total
            for number in range(1, rounds + 1)
        ]
        charges = [charges_of(path) for path in paths]
    terms = EpochTerms(
        study=STUDY, epoch=1, members=dict(zip(names, keys, strict=True)), sharing=sharing
    )
    return SecureSums(
        totals,
        [site.recorded for site in sites if isinstance(site, RecordedSite)],
        masked_rounds(summed.heard, terms, asked.values),
        summed.replies,
        charges,
        len(summed.different),
        sum(one.early for one in watched),
        None if votes else sum(one.looks for one in others),
    )
