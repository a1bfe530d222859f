"""Writes a card's section on the finished run with whose adapter a study began."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cloister.evidence.began import Began, FormerSite, added, in_one_ledger
from cloister.evidence.site_facts import SiteFacts
from cloister.ledger.stated import Basis

Scores = Mapping[str, float | None]  # by metric; None: not a number


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """Scores on an earlier study's public test set, before and after this study.

    Attributes:
        before: Scores of the adapter before round 1.
        after: Scores of the released adapter.
    """

    before: Scores
    after: Mapping[str, float]


def began_section(
    began: Began | None,
    forgetting: Forgetting | None,
    sites: Mapping[str, SiteFacts | str],
    *,
    is_central: bool = False,
) -> list[str]:
    """Returns the section as a list of one text; empty if neither a run nor scores are given.

    Args:
        began: The finished run; None: the study began with a fresh adapter.
        forgetting: Scores on an older test set; None: the recipe names none.
        sites: By site of this study, the facts of its certificate or ledger, or why it has none.
        is_central: Whether the coordinator added noise for whole sites, which no ledger counts.

    Guarantees:
        For a site of both studies it never states the second study's ε alone: it states the
        lifetime budget if one ledger covers both, and otherwise the sum of both ε.
    """
    lines = []
    if began is not None:
        lines += _origin(began)
        lines += _table(began, sites)
        if is_central:
            lines.append(
                "The promise of the coordinator's noise for a whole site covers one study: the ε "
                "of both studies add up.\n"
            )
    if forgetting is not None:
        lines += _forgotten(forgetting)
    if not lines:
        return []
    title = "## Older test set\n" if began is None else "## Began with a finished run\n"
    return ["\n".join([title, *lines])]


def _origin(began: Began) -> list[str]:
    return [
        f"This study did not begin afresh: it began with the adapter of the run `{began.run}` "
        f"({began.rounds} rounds), SHA-256 `{began.adapter}`, of the study with the recipe's "
        f"SHA-256 `{began.study}`. So this adapter also depends on the records of that study. For "
        "a person with records in both studies, the ε of both add up. A site that kept its ledger "
        "counts both studies in it.\n"
    ]


def _table(began: Began, sites: Mapping[str, SiteFacts | str]) -> list[str]:
    lines = [
        "| site | ε promised when that run ended | head of its ledger then | promised for both | "
        "spent by all that its ledger charged (an indication) |",
        "|---|---|---|---|---|",
    ]
    for site in sorted({*began.sites, *sites}):
        former, now = began.sites.get(site), sites.get(site)
        lines.append(
            f"| {site} | {_before(site, began, former)} | {_head(former)} | "
            f"{_both(former, now, site in began.sites)} | {_spent(now)} |"
        )
    return [*lines, ""]


def _before(site: str, began: Began, former: FormerSite | None) -> str:
    if site not in began.sites:
        return "took no part"
    return "not known" if former is None else former.promise.short


def _head(former: FormerSite | None) -> str:
    return "–" if former is None else f"entry {former.head.seq}, `{former.head.hash}`"


def _both(former: FormerSite | None, now: SiteFacts | str | None, was_in: bool) -> str:
    """Returns the promise to a site over both studies, in words."""
    if now is None:
        return "took no part in this study: as before"
    if isinstance(now, str):
        return "not known"
    promise = now.promise
    if not was_in:
        return f"{promise.short}, of this study alone"
    if former is None and promise.basis is not Basis.LIFETIME_BUDGET:
        return f"not known: its ledger has this study alone ({promise.short})"
    if former is None or in_one_ledger(former, promise, now.key):
        return f"{promise.short}: its lifetime budget, whatever its ledger charges"
    total = added(former.promise, promise)
    if math.isinf(total.epsilon):
        return "ε = ∞"
    return f"{total.short}: the sum, because it has another ledger now"


def _spent(now: SiteFacts | str | None) -> str:
    return now.lifetime.short if isinstance(now, SiteFacts) and now.lifetime else "–"


def _forgotten(found: Forgetting) -> list[str]:
    lines = [
        "Scores on the public test set of the earlier study; what is lower after this study was "
        "forgotten (a lower perplexity is better):\n",
        "| | before round 1 | this adapter |",
        "|---|---|---|",
    ]
    lines += [
        f"| {name} | {_cell(found.before.get(name))} | {_cell(value)} |"
        for name, value in found.after.items()
    ]
    return [*lines, ""]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
