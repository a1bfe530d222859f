"""Secure sums of an audited study: several sites in this process, of which the first has no units.

Each answers through the code of a deployed site, and the sums are unmasked as a coordinator does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloister.audit.asked_site import STUDY, WIDE
from cloister.audit.audited_site import AuditedSite
from cloister.audit.summed_sites import summed_sites
from cloister.client.secure import EpochKeys
from cloister.client.site import Site
from cloister.ledger.ledger import Ledger
from cloister.privacy.plan import Plan
from cloister.privacy.sharing import Sharing
from cloister.protocol.exchange import RoundReply
from cloister.recipe import Recipe
from cloister.simulation.policies import simulated_budget, simulated_policy


def names_of(plan: Plan) -> tuple[str, ...]:
    """Returns the names of the sites that share a plan's noise."""
    assert plan.sharing is not None
    return tuple(f"site {number}" for number in range(1, plan.sharing.sites + 1))


@dataclass(frozen=True)
class SecureTotals:
    """What sites' secure sums gave.

    Attributes:
        totals: The unmasked sums in steps of their grid, None where nothing was unmasked.
        replies: All replies, exchange by exchange.
        different: Number of masked answers that differed when they were asked for again.
    """

    totals: list[NDArray[np.int64] | None]
    replies: list[RoundReply]
    different: int


def fewest_honest(sharing: Sharing) -> int:
    """Returns the fewest honest sites in a sum, by their definition: all sites less those that may
    be missing and those that may collude."""
    return sharing.sites - sharing.missing - sharing.colluding


def secure_totals(
    recipe: Recipe,
    audited: AuditedSite,
    plan: Plan,
    paths: Sequence[Path],
    question: bytes,
    values: int,
    asked: int,
    make: Callable[..., Site],
    units_of: Callable[[int], Mapping[str, Any]],
    *,
    evaluates: bool = False,
) -> SecureTotals:
    """Asks all sites for the sums of rounds 1 to `asked`, each for its masked values twice.

    Args:
        recipe: The study.
        audited: The audited site; its workspace computes for all.
        plan: The plan of all sites.
        paths: A new ledger for each site.
        question: What is asked about: an adapter, or candidates.
        values: Number of values of a sum.
        asked: Number of rounds.
        make: Makes a site from its fields.
        units_of: By the site's place, the fields of a site that hold units.
        evaluates: Whether held-out units are scored.
    """
    names, sharing = names_of(plan), plan.sharing
    assert sharing is not None
    workspace, budget = audited.workspace, simulated_budget(plan, WIDE)
    ledgers = [Ledger.create(path, budget, plan.unit) for path in paths]
    keys = tuple(one.public_key for one in ledgers)
    sites = [
        make(
            name=name,
            study=STUDY,
            plan=plan,
            training=recipe.training,
            unit=plan.unit,
            policy=simulated_policy(recipe, plan, budget, workspace, keys),
            ledger=ledger,
            seed=recipe.study.seed,
            keys=EpochKeys(),
            **{"units": (), **units_of(place)},
        )
        for place, (name, ledger) in enumerate(zip(names, ledgers, strict=True))
    ]
    has_evaluations = plan.evaluations is not None
    summed = summed_sites(sites, workspace, sharing, has_evaluations=has_evaluations, twice=True)
    totals = [
        summed.rounds.run(number, question, values, summed.nodes, evaluates=evaluates).total
        for number in range(1, asked + 1)
    ]
    return SecureTotals(totals, summed.replies, len(summed.different))
