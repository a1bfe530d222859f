"""The status of a site for its operator: releases, ε spent, refusals and their reasons."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from cloister.canonical import json_number
from cloister.client.site_file import SiteFile
from cloister.client.stamp import ContentStamp
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.connectivity import unreached
from cloister.deployment.site.decisions import Decisions
from cloister.deployment.site.joining import SiteMembership
from cloister.deployment.site.open_ledger import open_ledger
from cloister.deployment.site.studies import waiting_of
from cloister.errors import CloisterError, RefusedError
from cloister.ledger.replay import forecast
from cloister.ledger.stated import of_budget
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify


def budget_of(file: SiteFile) -> dict[str, Any]:
    """Returns what was spent of the budget, recomputed from the ledger, and what is left.

    Raises:
        LedgerError: The ledger is missing or invalid.
        BadFileError: `site.toml` has another budget or unit than the ledger.
    """
    open_ledger(file)
    verdict = verify(LedgerFile(file.ledger).entries(), str(file.ledger))
    ahead, alone = forecast(verdict.history), verdict.promise_alone
    return {
        "site": file.site.name,
        "promise": verdict.promise.to_json(),
        "promise_alone": None if alone is None else alone.to_json(),
        "spent": verdict.spent.to_json(),
        "used": verdict.used.to_json(),
        "budget": of_budget(
            verdict.history.budget, verdict.history.unit, verdict.history.plans.values()
        ).to_json(),
        "in_words": {
            "promise": str(verdict.promise),
            "promise_alone": None if alone is None else str(alone),
            "used": verdict.of_budget,
        },
        "rounds": verdict.charges,
        "releases": verdict.releases,
        "studies": len(verdict.history.studies),
        "rounds_left": None if ahead is None else ahead.rounds,
        "epsilon_then": json_number(ahead.curve[-1][1]) if ahead and ahead.curve else None,
        "delta_then": None if ahead is None else ahead.delta,
    }


def releases_of(file: SiteFile) -> list[dict[str, Any]]:
    """Returns every release, oldest first, from the ledger's entries."""
    charged: dict[int, dict[str, Any]] = {}
    rows = []
    for entry in LedgerFile(file.ledger).entries():
        fields = entry.fields
        if fields["kind"] == "reserve":
            charged[fields["seq"]] = fields
        elif fields["kind"] == "release":
            about = charged[fields["reservation"]]
            rows.append(
                {
                    "study": about["study"],
                    "round": about["round"],
                    "bytes": fields["bytes"],
                    "sha256": fields["sha256"],
                    "time": fields["time"],
                    "entry": fields["seq"],
                }
            )
    return rows


def records_of(file: SiteFile) -> dict[str, Any]:
    """Returns which records the agent serves, and whether their file has changed since.

    Returns:
        Empty before an agent served any. `changed`: whether the file was edited, replaced or
        removed since it was read. The agent keeps using the records that it read.
    """
    served = AgentFolder.of(file).records()
    if not served:
        return {}
    try:
        changed = not ContentStamp.from_document(served["stamp"]).is_current(file.data)
    except (KeyError, ValueError):
        changed = True
    return {**served, "changed": changed}


def decisions_of(file: SiteFile) -> tuple[list[dict[str, Any]], str]:
    """Returns approvals and rejections, oldest first, and the reason if they cannot be read."""
    try:
        return [asdict(one) for one in Decisions.of(file).read()], ""
    except RefusedError as error:
        return [], str(error)


def in_the_way(file: SiteFile) -> str:
    """Describes what keeps this site from taking part, with remedies; empty if nothing does.

    If the site's service runs, it checks whether the coordinator's port answers
    (`connectivity.unreached`).
    """
    membership, folder = SiteMembership.of(file), AgentFolder.of(file)
    if not (membership.path / "invite.json").exists():
        return (
            "it has not joined a federation: accept the coordinator's invite with cloister site "
            f"join {file.path} INVITE"
        )
    if not membership.is_welcome():
        return (
            f"the coordinator has not approved it yet: send it {membership.request}, then use its "
            f"welcome with cloister site join {file.path} WELCOME"
        )
    if folder.running() is None:
        return f"its service is not running: cloister site start {file.path}"
    try:
        step = unreached(membership)
    except CloisterError as error:
        return str(error)
    if step is None:
        return ""
    return (
        f"it cannot reach its coordinator ({step.name}: {step.detail}): {step.remedy}. The service "
        "keeps trying, and needs no restart"
    )


def site_status(file: SiteFile) -> dict[str, Any]:
    """Returns everything that `cloister site status` shows, except `in_the_way`.

    Raises:
        LedgerError: The ledger is missing or invalid.
        BadFileError: `site.toml` has another budget or unit than the ledger.
    """
    folder = AgentFolder.of(file)
    service, dropped = folder.running(), folder.refusals_dropped()
    decisions, trouble = decisions_of(file)
    return {
        "site": file.site.name,
        "running": service is not None,
        "processes": (service or {}).get("children", {}),
        "activity": folder.activity(),
        "connection": folder.connection(),
        "records": records_of(file),
        "study": folder.study(),
        "waiting": waiting_of(file, datetime.now(UTC)),
        "decisions": decisions,
        "decisions_trouble": trouble,
        "budget": budget_of(file),
        "releases": releases_of(file),
        "adapters": folder.delivered(),
        "refusals": folder.refusals(),
        "refusals_dropped": asdict(dropped) if dropped else None,
    }
