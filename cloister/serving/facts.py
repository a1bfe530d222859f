"""What the three pages say, gathered from files that others wrote; plain values, no markup."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import Any

from cloister.client.overview import overview_of
from cloister.client.policy_words import in_words
from cloister.client.site_file import SiteFile
from cloister.privacy.chain import json_epsilon
from cloister.privacy.charged import charged_rounds, forecast
from cloister.privacy.ledger_file import LedgerFile
from cloister.privacy.verify import verify
from cloister.server.folder import ServerFolder
from cloister.server.journal import events, read_run
from cloister.server.run_directory import RunDirectory
from cloister.server.service import status_of
from cloister.serving.charts import MARKS

# Charges of a ledger for which ε is recomputed on a page: one takes some 20 ms.
SHOWN = 40


def coordinator_facts(folder: ServerFolder, now: datetime) -> dict[str, Any]:
    """A coordinator's page: service, members, and every run with its lanes and scores."""
    facts = status_of(folder, now)
    runs = [_run_facts(folder, row) for row in reversed(facts["runs"])]
    return {**facts, "runs": runs, "time": now.isoformat(timespec="seconds")}


def _run_facts(folder: ServerFolder, row: dict[str, Any]) -> dict[str, Any]:
    place = folder.run(row["name"])
    run = read_run(place)
    lanes: dict[str, dict[int, str]] = {site: {} for site in run.sites}
    notes = []
    for _, event in events(place):
        if event["what"] in MARKS and event.get("site") in lanes:
            lanes[event["site"]][int(event["round"])] = event["what"]
        elif "text" in event:
            notes.append(event)
    metrics = RunDirectory(place).metrics()
    scores: dict[str, list[tuple[float, float]]] = {}
    for line in metrics:
        for name, value in line.get("test", {}).items():
            if value is not None and name != "loss":
                scores.setdefault(name, []).append((line["round"], value))
    return {
        **row,
        "lanes": lanes,
        "scores": scores,
        "bytes": [(f"round {line['round']}", line["bytes_up"]) for line in metrics],
        "seconds": [(line["round"], line["seconds"]) for line in metrics],
        "notes": notes[-5:],
        "folder": str(place),
    }


def site_facts(file: SiteFile) -> dict[str, Any]:
    """A site's page: budget, forecast, what left, refusals, policy in words.

    Raises:
        LedgerError: The ledger is missing or not sound.
    """
    return {**overview_of(file), "policy": in_words(file.policy), **_curves(file.ledger)}


def auditor_facts(ledger: Path) -> dict[str, Any]:
    """An auditor's page: the chain, ε by two accountants, every charge and release.

    Raises:
        LedgerError: The ledger is missing or not sound.
    """
    entries = LedgerFile(ledger).entries()
    verdict = verify(entries, str(ledger))
    rounds = charged_rounds(entries, verdict.history, most=SHOWN)
    return {
        "ledger": str(ledger),
        "key": verdict.history.public_key,
        "entries": len(entries),
        "head": {"seq": verdict.head.seq, "hash": verdict.head.hash},
        "unit": verdict.unit,
        "epsilon_pld": json_epsilon(verdict.epsilon_pld),
        "epsilon_rdp": json_epsilon(verdict.epsilon_rdp),
        "delta": verdict.delta,
        "cap": json_epsilon(verdict.budget_epsilon),
        "cap_delta": verdict.budget_delta,
        "charges": [
            {
                "entry": one.seq,
                "study": one.study,
                "round": one.round,
                "time": one.time,
                "noise_multiplier": one.event.noise_multiplier,
                "sample_rate": one.event.sample_rate,
                "steps": one.event.steps,
                "epsilon_pld": _shown(one.epsilon_pld),
                "epsilon_rdp": _shown(one.epsilon_rdp),
                "sha256": one.release.sha256 if one.release else "",
                "bytes": one.release.bytes if one.release else 0,
            }
            for one in rounds
        ],
    }


def _shown(value: float | None) -> float | None:
    return None if value is None else json_epsilon(value)


def _curves(ledger: Path) -> dict[str, Any]:
    """ε after each charge, and how it would go on with the plan charged last."""
    entries = LedgerFile(ledger).entries()
    history = verify(entries, str(ledger)).history
    spent = [
        (number, one.epsilon_pld)
        for number, one in enumerate(charged_rounds(entries, history, most=SHOWN), start=1)
        if one.epsilon_pld is not None and math.isfinite(one.epsilon_pld)
    ]
    ahead = forecast(history)
    begun = spent[-1:] if spent else []
    charged = len(history.rounds)
    coming = [(charged + further, value) for further, value in (ahead.curve if ahead else ())]
    return {"spent": spent, "coming": [*begun, *coming] if coming else []}
