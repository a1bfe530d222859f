"""Prometheus metrics of both sides. Exact ε is on a site's own endpoint alone: across sites it is
sensitive. Labels are bounded: sites, runs, outcomes and processes, never a record's or a person's.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from cloister import __version__

# What Prometheus expects a scrape to be.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Registry:
    """Gauges of one scrape, made as they are named."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._gauges: dict[str, Gauge] = {}
        self.set("cloister_build_info", "The version that runs.", 1, version=__version__)

    def set(self, name: str, help_: str, value: float, **labels: str) -> None:
        """Sets a gauge."""
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, help_, list(labels), registry=self._registry)
        found = self._gauges[name]
        (found.labels(**labels) if labels else found).set(value)

    def text(self) -> bytes:
        """The scrape."""
        return generate_latest(self._registry)


def coordinator_metrics(facts: dict[str, Any], now: datetime) -> bytes:
    """A coordinator's scrape, from its page's facts; no ε is in it."""
    made = _Registry()
    made.set("cloister_up", "Whether the service runs.", float(facts["running"]))
    days = 86_400 * facts["certificate_days"]
    made.set("cloister_certificate_seconds", "Until the endpoint's certificate is over.", days)
    for child in facts["processes"]:
        made.set("cloister_process_up", "Whether a process runs.", float(bool(child["pid"])),
                 process=child["name"])  # fmt: skip
        made.set("cloister_process_starts_total", "How often it was started.", child["starts"],
                 process=child["name"])  # fmt: skip
    for site in facts["sites"]:
        approved = float(site["standing"] == "approved")
        made.set("cloister_site_approved", "Whether a site may connect.", approved,
                 site=site["site"])  # fmt: skip
        if site["seen"]:
            seen = datetime.fromisoformat(site["seen"]).timestamp()
            made.set("cloister_site_last_seen_timestamp_seconds", "When a site was heard of.", seen,
                     site=site["site"])  # fmt: skip
    for run in facts["runs"]:
        made.set("cloister_round_current", "Last closed round.", run["round"], run=run["name"])
        running = float(run["standing"] in ("submitted", "running"))
        made.set("cloister_run_active", "Whether a run goes on.", running, run=run["name"])
        made.set("cloister_run_failed", "Whether a run failed.",
                 float(run["standing"] == "failed"), run=run["name"])  # fmt: skip
        made.set("cloister_update_bytes_total", "Bytes of updates received.",
                 sum(size for _, size in run["bytes"]), run=run["name"])  # fmt: skip
        if run["seconds"]:
            made.set("cloister_round_duration_seconds", "Of the last closed round.",
                     run["seconds"][-1][1], run=run["name"])  # fmt: skip
        outcomes = Counter(what for lane in run["lanes"].values() for what in lane.values())
        for outcome, count in sorted(outcomes.items()):
            made.set("cloister_updates_total", "Rounds of sites, by what came of them.", count,
                     run=run["name"], outcome=outcome)  # fmt: skip
    made.set("cloister_scrape_timestamp_seconds", "When this was gathered.", now.timestamp())
    return made.text()


def site_metrics(facts: dict[str, Any], now: datetime) -> bytes:
    """A site's scrape, from its page's facts; for the site's own eyes."""
    made, budget = _Registry(), facts["budget"]
    site = facts["site"]
    infinite = float("inf")
    for name, help_, value in (
        ("cloister_up", "Whether the service runs.", float(facts["running"])),
        ("cloister_epsilon_spent", "ε spent, by PLD.", budget["epsilon"]),
        ("cloister_epsilon_cap", "ε of the data set's life.", budget["cap"]),
        ("cloister_budget_rounds_left", "More rounds of the plan charged last.",
         budget["rounds_left"]),
        ("cloister_ledger_charges_total", "Rounds charged.", budget["rounds"]),
        ("cloister_ledger_releases_total", "Rounds released.", budget["releases"]),
        ("cloister_update_bytes_total", "Bytes that left.",
         sum(row["bytes"] for row in facts["releases"])),
        ("cloister_policy_refusals_total", "Refusals that are kept.", len(facts["refusals"])),
        ("cloister_foreign_bundles_total", "Bundles of code that were dropped unread.",
         facts["activity"].get("bundles", 0)),
    ):  # fmt: skip
        made.set(name, help_, infinite if value is None else float(value), site=site)
    for name, child in facts["processes"].items():
        made.set("cloister_process_up", "Whether a process runs.", float(bool(child["pid"])),
                 process=name)  # fmt: skip
        made.set("cloister_process_starts_total", "How often it was started.", child["starts"],
                 process=name)  # fmt: skip
    made.set("cloister_scrape_timestamp_seconds", "When this was gathered.", now.timestamp())
    return made.text()
