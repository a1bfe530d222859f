"""Makes Prometheus metrics of coordinator and site, at every scrape.

Exact ε is only on a site's own endpoint: across sites it is sensitive. Labels are bounded: sites,
runs, outcomes and reasons; they never name a record or a person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from cloister.dashboard.coordinator import CoordinatorFacts, RunFacts
from cloister.dashboard.formatting import moment
from cloister.dashboard.site import SiteView
from cloister.dashboard.timeline import CellState
from cloister.ledger.stated import Stated, of_budget

# Upper bounds of a round's seconds: from a tiny model on one machine to a night.
BUCKETS = (5, 15, 60, 300, 900, 3600, 14_400, 43_200)
# A site is away if its last message is older: Flower's nodes send one every 30 seconds.
HEARD = 90
OUTCOMES = {
    CellState.SENT: "accepted",
    CellState.LATE: "late",
    CellState.LOST: "lost",
    CellState.REFUSED: "refused",
    CellState.SPENT: "spent",
    CellState.RETIRED: "retired",
}
# Reasons of refusals by the kind of error; any other kind is "other".
REASONS = {
    "RefusedError": "policy",
    "RecipeError": "recipe",
    "BudgetError": "budget",
    "RoundSpentError": "spent",
    "LedgerError": "ledger",
    "DataError": "data",
    "ModelFileError": "model",
    "PreflightError": "model",
    "AdapterFormatError": "message",
}

Sample = tuple[Mapping[str, str], float]


def coordinator_metrics(facts: CoordinatorFacts, now: datetime) -> bytes:
    """Returns a coordinator's metrics, without any ε."""
    status = facts.status
    seen = [
        ({"site": row["site"]}, at.timestamp())
        for row in status["sites"]
        if (at := moment(row["seen"])) is not None
    ]
    until = [
        ({"site": row["site"]}, at.timestamp())
        for row in status["sites"]
        if row["standing"] == "approved" and (at := moment(row["expires"])) is not None
    ]
    return _scrape(
        [
            _gauge("up", "Whether the service runs.", [({}, bool(status["running"]))]),
            _gauge(
                "cert_expiry_timestamp_seconds",
                "When the endpoint's certificate expires.",
                [({}, facts.over.timestamp())],
            ),
            _gauge(
                "site_up",
                "Whether a site connected in the last 90 seconds.",
                [(on, now.timestamp() - at < HEARD) for on, at in seen],
            ),
            _gauge("site_last_seen_timestamp_seconds", "When a site last connected.", seen),
            _gauge("membership_expiry_timestamp_seconds", "When a membership expires.", until),
            _starts(status["processes"]),
            *_runs(facts.runs, now),
        ]
    )


def failure_metrics(site: str, failures: int) -> bytes:
    """Returns a site's metrics while its ledger is damaged: only that fact."""
    return _scrape([_failures({"site": site}, failures)])


def _of(figure: Stated) -> dict[str, str]:
    """Returns labels with unit and δ of an ε: a ledger has one or two of each in its life."""
    return {
        "unit": figure.unit.value,
        "neighbouring": figure.neighbouring.value,
        "delta": f"{figure.delta:g}",
        "accountant": figure.accountant.value,
        "against": "+".join(figure.adversaries),
        "basis": figure.basis.value,
    }


def site_metrics(facts: SiteView, failures: int = 0) -> bytes:
    """Returns a site's metrics, which only the site itself may see.

    Args:
        facts: The site's facts.
        failures: Scrapes so far that found the ledger not valid.
    """
    site, verdict = {"site": facts.name}, facts.ledger.verdict
    history = verdict.history
    budget = of_budget(history.budget, history.unit, history.plans.values())
    left = [charged.release.bytes for charged in facts.ledger.rounds if charged.release]
    reasons = Counter(REASONS.get(str(row["kind"]), "other") for row in facts.refusals)
    last = {REASONS.get(str(row["kind"]), "other"): moment(row["time"]) for row in facts.refusals}
    until, ahead = moment(facts.member_until), facts.ledger.ahead
    affords = ahead.rounds if ahead is not None else None
    released = [("released", verdict.releases), ("cut_off", verdict.charges - verdict.releases)]
    return _scrape(
        [
            _gauge("up", "Whether the service runs.", [(site, facts.running)]),
            _gauge(
                "epsilon_promised",
                "ε of the whole plan, or of the budget: a guarantee.",
                [(site | _of(verdict.promise), verdict.promise.epsilon)],
            ),
            _gauge(
                "epsilon_spent",
                "ε of what ran so far, by PLD: an indication, no guarantee; "
                "of epsilon_cap, at half of its delta, where the budget's rule compares them.",
                [(site | _of(verdict.used), verdict.used.epsilon)],
            ),
            _gauge(
                "epsilon_cap",
                "ε of the data set's lifetime budget.",
                [(site | _of(budget), budget.epsilon)],
            ),
            _gauge(
                "budget_rounds_left",
                "Rounds like the last that still fit.",
                [(site, affords)] if affords is not None else [],
            ),
            _counter("ledger_entries", "Entries of the ledger.", [(site, facts.ledger.entries)]),
            _failures(site, failures),
            _counter(
                "updates",
                "Rounds charged, by outcome.",
                [({**site, "outcome": name}, count) for name, count in released],
            ),
            _counter(
                "update_bytes", "Bytes that were sent.", [({**site, "outcome": "sent"}, sum(left))]
            ),
            _gauge(
                "policy_refusals",
                "Refusals that are kept (the first, the latest), by reason.",
                [({**site, "reason": name}, count) for name, count in sorted(reasons.items())],
            ),
            _gauge(
                "policy_refusal_last_timestamp_seconds",
                "When a reason last came up.",
                [
                    ({**site, "reason": name}, at.timestamp())
                    for name, at in sorted(last.items())
                    if at is not None
                ],
            ),
            _counter(
                "foreign_bundles",
                "Bundles of code that were dropped without being read.",
                [(site, int(facts.activity.get("bundles", 0)))],
            ),
            _counter(
                "foreign_questions",
                "Questions that the coordinator did not sign, refused.",
                [(site, int(facts.activity.get("strangers", 0)))],
            ),
            _gauge(
                "membership_expiry_timestamp_seconds",
                "When the membership expires.",
                [(site, until.timestamp())] if until is not None else [],
            ),
            _starts(facts.processes),
        ]
    )


def _runs(runs: Sequence[RunFacts], now: datetime) -> Iterable[Metric]:
    named = [({"run": facts.run.name}, facts) for facts in runs]
    yield _gauge("round_current", "The last closed round.", [(on, f.round) for on, f in named])
    yield _counter(
        "rounds",
        "Closed rounds; skipped are those without any update.",
        [({**on, "outcome": outcome}, count) for on, f in named for outcome, count in _rounds(f)],
    )
    yield _gauge(
        "run_standing",
        "1 for a run's status.",
        [({**on, "outcome": f.run.standing.value}, 1) for on, f in named],
    )
    updates = [
        ({**on, "site": site, "outcome": OUTCOMES[state]}, count)
        for on, f in named
        for site, lane in f.lanes.lanes.items()
        for state, count in sorted(Counter(cell.state for cell in lane).items())
        if state in OUTCOMES
    ]
    yield _counter("updates", "Rounds of sites, by outcome.", updates)
    yield _counter(
        "update_bytes",
        "Bytes of adapters, received from sites and sent to them.",
        [
            ({**on, "outcome": outcome}, sum(row.get(name, 0) for row in f.rows))
            for on, f in named
            for outcome, name in (("received", "bytes_up"), ("sent", "bytes_down"))
        ],
    )
    yield _gauge(
        "checkpoint_age_seconds",
        "Seconds since a run's state was last saved.",
        [
            (on, max(0.0, now.timestamp() - f.checkpoint))
            for on, f in named
            if f.checkpoint is not None
        ],
    )
    yield _durations(named)


def _rounds(facts: RunFacts) -> list[tuple[str, int]]:
    skipped = sum(not row.get("received") for row in facts.rows)
    return [("closed", len(facts.rows) - skipped), ("skipped", skipped)]


def _durations(named: Sequence[tuple[Mapping[str, str], RunFacts]]) -> Metric:
    family = HistogramMetricFamily(
        "cloister_round_duration_seconds",
        "Seconds from a round's first message to its saved state.",
        labels=["run"],
    )
    for on, facts in named:
        seconds = [float(row["seconds"]) for row in facts.rows]
        buckets = [
            (str(float(bound)), float(sum(s <= bound for s in seconds))) for bound in BUCKETS
        ]
        buckets.append(("+Inf", float(len(seconds))))
        family.add_metric(list(on.values()), buckets, sum(seconds))
    return family


def _starts(children: Sequence[Mapping[str, object]]) -> Metric:
    total = sum(int(str(child["starts"])) for child in children)
    says = "Number of starts of the service's processes, in all."
    return _counter("process_starts", says, [({}, total)] if children else [])


def _gauge(name: str, says: str, samples: Sequence[Sample]) -> Metric:
    family = GaugeMetricFamily(f"cloister_{name}", says, labels=_labels(samples))
    for labels, value in samples:
        family.add_metric(list(labels.values()), float(value))
    return family


def _counter(name: str, says: str, samples: Sequence[Sample]) -> Metric:
    """Makes a counter; `_total` is added to its name."""
    family = CounterMetricFamily(f"cloister_{name}", says, labels=_labels(samples))
    for labels, value in samples:
        family.add_metric(list(labels.values()), float(value))
    return family


def _failures(site: Mapping[str, str], failures: int) -> Metric:
    says = "Scrapes since the start that found the ledger not valid."
    return _counter("ledger_verify_failures", says, [(site, failures)])


def _labels(samples: Sequence[Sample]) -> list[str]:
    return list(samples[0][0]) if samples else []


class _Facts(Collector):
    """A collector of metric families that exist already."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Yields the metric families of one scrape."""
        return self._families


def _scrape(families: Iterable[Metric]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Facts([family for family in families if family.samples]))
    return generate_latest(registry)
