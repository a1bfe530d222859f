"""A site of an audit that is asked for releases of one kind, and what its ledger charged for them.

Votes and private evaluations are audited in the same way: a site without units is asked for every
release, the first ones twice, each time as another process opens it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.client.admission import Admitted, admit
from cloister.client.site import Site
from cloister.ledger.ledger import Ledger
from cloister.ledger.storage import LedgerFile
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.protocol.exchange import RoundReply
from cloister.recipe import Recipe
from cloister.simulation.policies import simulated_budget, simulated_policy
from cloister.training.workspace import Workspace

NAME, STUDY = "site", "audit"
# A budget that ends no study: what is charged is tested, and not what is covered.
WIDE = 400.0
# Releases that are asked for twice.
TWICE = 2

# The round, the kind and the event of a charge, as the ledger states them.
Charged = tuple[int, str | None, object]


def open_site(
    recipe: Recipe,
    workspace: Workspace,
    path: Path,
    plan: Plan,
    kind: type[Site] = Site,
    **records: Any,
) -> Admitted:
    """Opens a site as another process does, with the ledger that it has.

    Args:
        recipe: The study.
        workspace: Its base and network.
        path: The site's ledger; begun if there is none.
        plan: The site's.
        kind: The kind of site.
        records: The site's `units`, and its `held_out` units if it has any.
    """
    budget = simulated_budget(plan, WIDE)
    site = kind(
        name=NAME,
        study=STUDY,
        plan=plan,
        policy=simulated_policy(recipe, plan, budget, workspace),
        training=recipe.training,
        unit=plan.unit,
        ledger=Ledger(path) if path.exists() else Ledger.create(path, budget, plan.unit),
        seed=recipe.study.seed,
        **records,
    )
    return admit(site, workspace)


@dataclass(frozen=True)
class Repeated:
    """What a site answered.

    Attributes:
        replies: One for each release.
        different: Releases that differed, or were charged anew, when they were asked for again.
    """

    replies: list[RoundReply]
    different: int


def ask_all(
    opened: Callable[[], Admitted], ask: Callable[[Admitted, int], RoundReply], count: int
) -> Repeated:
    """Asks a site for every release, and for the first `TWICE` again.

    Args:
        opened: Opens the site.
        ask: Asks it for the release of a round, from 1.
        count: Number of releases.
    """
    admitted, replies, different = opened(), list[RoundReply](), 0
    for number in range(1, count + 1):
        replies.append(ask(admitted, number))
        if number <= TWICE:
            head = admitted.site.ledger.head
            again, after = ask(opened(), number), opened().site.ledger.head
            different += again != replies[-1] or after != head
    return Repeated(replies, different)


def expected_charges(
    rounds: Iterable[int],
    kind: ReleaseKind,
    noise_multiplier: float,
    sample_rate: float = 1.0,
    steps: int = 1,
) -> list[Charged]:
    """Returns one charge of a kind for each round; by default of every unit, once."""
    event = {
        "noise_multiplier": noise_multiplier,
        "sample_rate": sample_rate,
        "steps": steps,
        "is_private": True,
    }
    stated = None if kind is ReleaseKind.TRAINING else kind.value
    return [(number, stated, event) for number in rounds]


def charges_of(path: Path) -> list[Charged]:
    """Returns what a ledger charged, in its order."""
    fields = [entry.fields for entry in LedgerFile(path).entries()]
    return [
        (one["round"], one.get("release_kind"), one["event"])
        for one in fields
        if one["kind"] == "reserve"
    ]


def wrong_charges(path: Path, expected: list[Charged]) -> int:
    """Counts the expected charges that a ledger lacks, and the others that it has."""
    found = charges_of(path)
    return sum(one not in found for one in expected) + sum(one not in expected for one in found)
