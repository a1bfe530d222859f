"""Secure sums of an audited study: several sites in this process, of which the first has no units.

Each answers through the code of a deployed site, and the sums are unmasked as a coordinator does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloister.audit.audited_site import AuditedSite
from cloister.audit.site_noise import overheard
from cloister.client.admission import admit
from cloister.client.app import make_client_app
from cloister.client.secure import EpochKeys
from cloister.client.site import Site
from cloister.ledger.ledger import Ledger
from cloister.ledger.storage import LedgerFile
from cloister.privacy.plan import Plan
from cloister.protocol.exchange import RoundReply
from cloister.protocol.signed_questions import Unsigned
from cloister.recipe import Recipe
from cloister.server.dispatch import Dispatcher, Timeouts
from cloister.server.replies import ReplyTerms
from cloister.server.secure import SecureRounds
from cloister.simulation.local_grid import LocalGrid
from cloister.simulation.policies import simulated_budget, simulated_policy

STUDY = "audit"
# A budget that ends no study: what is charged is tested, and not what is covered.
WIDE = 400.0


def names_of(plan: Plan) -> tuple[str, ...]:
    """Returns the names of the sites that share a plan's noise."""
    assert plan.sharing is not None
    return tuple(f"site {number}" for number in range(1, plan.sharing.sites + 1))


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
) -> tuple[list[NDArray[np.int64] | None], list[RoundReply]]:
    """Asks all sites for the sums of rounds 1 to `asked`.

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

    Returns:
        The unmasked sums in steps of their grid, None where nothing was unmasked; and all replies.
    """
    names, sharing = names_of(plan), plan.sharing
    assert sharing is not None
    workspace, budget = audited.workspace, simulated_budget(plan, WIDE)
    ledgers = [Ledger.create(path, budget, plan.unit) for path in paths]
    keys = {name: one.public_key for name, one in zip(names, ledgers, strict=True)}
    sites = [
        make(
            name=name,
            study=STUDY,
            plan=plan,
            training=recipe.training,
            unit=plan.unit,
            policy=simulated_policy(recipe, plan, budget, workspace, tuple(keys.values())),
            ledger=ledger,
            seed=recipe.study.seed,
            keys=EpochKeys(),
            **{"units": (), **units_of(place)},
        )
        for place, (name, ledger) in enumerate(zip(names, ledgers, strict=True))
    ]
    app = make_client_app(
        lambda at: admit(sites[int(str(at.node_config["partition-id"]))], workspace), Unsigned()
    )
    replies: list[RoundReply] = []
    grid = LocalGrid(overheard(app, replies.append), len(names))
    nodes = dict.fromkeys(grid.get_node_ids(), "")
    asker = Dispatcher(grid, lambda _: nodes, Timeouts(3600.0), Unsigned())
    terms = ReplyTerms(STUDY, names, keys)
    rounds = SecureRounds(asker, terms, keys, sharing, plan.evaluations is not None)
    totals = [
        rounds.run(number, question, values, nodes, evaluates=evaluates).total
        for number in range(1, asked + 1)
    ]
    return totals, replies


def charges_of(path: Path) -> list[tuple[int, str | None, object]]:
    """Returns round, kind and event of each charge in a ledger."""
    fields = [entry.fields for entry in LedgerFile(path).entries()]
    return [
        (one["round"], one.get("release_kind"), one["event"])
        for one in fields
        if one["kind"] == "reserve"
    ]
