"""Makes the audit report from ledgers, bundles and audits of the mechanism."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloister.evidence.fonts import ABSENT, fonts_for
from cloister.evidence.outcome import Made, outcome_of, unchecked
from cloister.evidence.report_document import (
    Block,
    Bullets,
    Document,
    Heading,
    Paragraph,
    Picture,
    Table,
)
from cloister.evidence.report_plots import conformance_plot, empirical_plot, spending_plot
from cloister.evidence.report_terms import terms
from cloister.evidence.reported_study import ReportedStudy, facts_table, title_of
from cloister.evidence.spending_series import series_of
from cloister.ledger.chain import Entry
from cloister.ledger.replay import ChargedRound, Forecast, charged_rounds, forecast
from cloister.ledger.stated import COUPLED, promised_events, shown
from cloister.ledger.verify import Verdict
from cloister.names import counted
from cloister.privacy.accounting import rdp_epsilon, true_positive_rate

# False-positive rate of the test that explains an ε in plain words.
FALSE_POSITIVES = 0.01


@dataclass(frozen=True)
class AuditedLedger:
    """The facts of one site in a report.

    Attributes:
        name: The site.
        entries: Its whole ledger, checked.
        verdict: The result of that check.
        key_known: Whether its key came from another source than the ledger.
    """

    name: str
    entries: Sequence[Entry]
    verdict: Verdict
    key_known: bool


@dataclass(frozen=True)
class _Site:
    ledger: AuditedLedger
    rounds: tuple[ChargedRound, ...]
    ahead: Forecast | None


def audit_report(
    study: ReportedStudy,
    ledgers: Sequence[AuditedLedger],
    audits: Sequence[Mapping[str, Any]],
    *,
    checked: Sequence[str] = (),
    made: str,
) -> Document:
    """Makes the report as a document.

    Args:
        study: What is known about the study besides its ledgers.
        ledgers: At least one.
        audits: The output of `cloister audit run --json`.
        checked: The claims that a bundle's verification confirmed.
        made: The time of the report, as text.
    """
    sites = [
        _Site(
            ledger,
            charged_rounds(ledger.entries, ledger.verdict.history),
            forecast(ledger.verdict.history),
        )
        for ledger in ledgers
    ]
    charged = {site.ledger.name: site.rounds for site in sites}
    every = [one for rounds in charged.values() for one in rounds]
    histories = [ledger.verdict.history for ledger in ledgers]
    outcome = outcome_of((one.rounds, one.votes) for one in histories)
    blocks = [
        *_summary(sites, audits, made),
        facts_table(study, charged),
        *_promised(sites),
        *_spent(sites),
        *_mechanism(sites, audits),
        *_releases(sites),
        *_limits(checked, outcome),
        *terms(),
    ]
    return Document(title_of(study, every), blocks)


def _summary(
    sites: Sequence[_Site], audits: Sequence[Mapping[str, Any]], made: str
) -> Iterator[Block]:
    refuted = [audit["level"] for audit in audits if audit["refuted"]]
    if refuted:
        yield Paragraph(
            f"REFUTED: {', '.join(refuted)}. The implementation lacks a property that its ε "
            "depends on; do not rely on the figures below.",
            is_loud=True,
        )
    if any(math.isinf(site.ledger.verdict.promise.epsilon) for site in sites):
        yield Paragraph("ε = ∞ at a site: nothing protects its records.", is_loud=True)
    rounds = sum(len(site.rounds) for site in sites)
    yield Paragraph(
        f"Made {made} from {counted(len(sites), 'ledger')} with "
        f"{counted(rounds, 'charged round')}. Chain, signatures, every charge against its "
        "plan and its budget, and ε by two accountants were checked again; "
        + (
            "nothing was refuted. "
            if not refuted
            else "the ledgers themselves are valid, the mechanism is not. "
        )
        + "“Not refuted” is all that a check can say: it is no proof of privacy."
    )


def _promised(sites: Sequence[_Site]) -> Iterator[Block]:
    yield Heading("What was promised, and to whom")
    finite = [s for s in sites if math.isfinite(s.ledger.verdict.promise.epsilon) and s.rounds]
    if finite:
        worst = max(finite, key=lambda site: site.ledger.verdict.promise.epsilon)
        promised = worst.ledger.verdict.promise
        reached = _reached(worst.ledger.verdict)
        yield Paragraph(
            f"To every {promised.unit} at a site: whoever sees everything that the site sent "
            f"({promised.against}) and tests whether this {promised.unit} was in its data, with "
            f"a test that wrongly accuses {FALSE_POSITIVES:.0%} of those who were not, finds at "
            f"most {reached:.0%} of those who were, whatever else they know (at "
            f"{worst.ledger.name}, which promised least)."
        )
    yield Table(
        ("site", "one", "neighbours", "ε promised", "δ", "accountant", "of"),
        [
            (
                site.ledger.name,
                promised.unit,
                promised.neighbouring,
                shown(promised.epsilon),
                f"{promised.delta:g}",
                promised.accountant,
                promised.of_what,
            )
            for site in sites
            for promised in [site.ledger.verdict.promise]
        ],
        "The promise to each site's records",
    )
    for against in dict.fromkeys(site.ledger.verdict.promise.against for site in sites):
        yield Paragraph(f"The promise holds against {against}.")
    for site in sites:
        if (alone := site.ledger.verdict.promise_alone) is not None:
            yield Paragraph(f"The noise of {site.ledger.name} is shared with other sites. {alone}.")
        if site.ledger.verdict.history.couples_units:
            yield Paragraph(f"{site.ledger.name}: {COUPLED}.", is_loud=True)
    yield Paragraph(
        "A promise was fixed before anything was sent. It covers all rounds of one plan or, if a "
        "data set took part in more than one plan, its lifetime budget. Stopping earlier does not "
        "change it."
    )


def _reached(verdict: Verdict) -> float:
    """Bounds a test's true-positive rate, by the whole plan's curve or by the budget's (ε, δ)."""
    events = promised_events(verdict.history)
    if events:
        return true_positive_rate(events, FALSE_POSITIVES)
    promised = verdict.promise
    return min(1.0, math.exp(promised.epsilon) * FALSE_POSITIVES + promised.delta)


def _spent(sites: Sequence[_Site]) -> Iterator[Block]:
    yield Heading("What was spent so far: an indication, not a promise")
    yield Table(
        ("site", "ε spent (PLD)", "ε spent (RDP)", "of the budget's ε", "all at δ", "budget's δ"),
        [
            (
                site.ledger.name,
                shown(verdict.used.epsilon),
                shown(rdp_epsilon(verdict.history.spent.events, verdict.used.delta)),
                shown(verdict.budget_epsilon),
                f"{verdict.used.delta:g}",
                f"{verdict.budget_delta:g}",
            )
            for site in sites
            for verdict in [site.ledger.verdict]
        ],
        "Against the lifetime budget, at the δ at which its rule compares both",
    )
    yield Paragraph(
        "If the number of rounds depended on what was released, these figures bound nothing: "
        "they show how far a plan has come. The budget keeps half of its δ for each of two ways in "
        "which a charge may fit. RDP is a second, looser bound; a PLD above it would be refused."
    )
    lines = [
        series_of(s.ledger.name, s.rounds, s.ahead, s.ledger.verdict.budget_epsilon) for s in sites
    ]
    yield Picture(
        spending_plot(lines),
        "ε spent after each charged round, by PLD. Dotted: the capacity that is left, if rounds of "
        "the plan charged last used all of it. Red: the lifetime cap of the data set."
        + (f" {ABSENT}" if fonts_for(line.name for line in lines).absent else ""),
    )
    yield Table(
        (
            "site",
            "rounds charged",
            "released",
            "cut off",
            "training steps",
            "capacity left, in rounds",
        ),
        [
            (
                site.ledger.name,
                str(len(site.rounds)),
                str(site.ledger.verdict.releases),
                str(len(site.rounds) - site.ledger.verdict.releases),
                str(site.ledger.verdict.history.training_steps),
                _ahead(site.ahead),
            )
            for site in sites
        ],
    )
    yield Paragraph(
        "Capacity left: how many rounds of the plan charged last the budget would still allow. It "
        "says what the limit is, not that these rounds should be run."
    )


def _mechanism(sites: Sequence[_Site], audits: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    yield Heading("Whether the mechanism does what it claims")
    if not audits:
        yield Paragraph(
            "No audit of the mechanism was given to this report. “cloister audit run RECIPE --json "
            "> audit.json” makes one, the option “--audit audit.json” includes it.",
            is_loud=True,
        )
    charged = [plan for site in sites for plan in site.ledger.verdict.history.plans.values()]
    for audit in audits:
        if not any(_is_of(audit, plan.noise_multiplier, plan.sample_rate) for plan in charged):
            yield Paragraph(
                f"The {audit['level']} audit below is of another plan than any charged here (noise "
                f"multiplier {audit['noise_multiplier']:g}, sample rate "
                f"{audit['sample_rate']:.4g}).",
                is_loud=True,
            )
    for audit in audits:
        if "checks" in audit:
            yield from _conformance(audit)
    attacks = [attack for audit in audits for attack in audit.get("attacks", ())]
    if attacks:
        yield Picture(
            empirical_plot(attacks),
            "How much privacy loss attacks could show. A bound below the claim does not refute it; "
            "a bound far below is usual, and does not show that the true ε is as low.",
        )
        yield Table(
            ("attack", "runs", "ε lower bound", "claimed", "verdict"),
            [
                (
                    attack["attack"],
                    str(attack["trials"]),
                    f"{attack['epsilon_lower_bound']:.3f}",
                    shown(attack["epsilon_claimed"]),
                    "REFUTED" if attack["refuted"] else "not refuted",
                )
                for attack in attacks
            ],
        )
    yield from _illustrations(audits)


def _illustrations(audits: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    for audit in audits:
        for one in audit.get("illustrations", ()):
            yield Paragraph(_plain(f"{one['attack']}: {one['detail']}"))


def _conformance(audit: Mapping[str, Any]) -> Iterator[Block]:
    checks = audit["checks"]
    yield Picture(
        conformance_plot(checks),
        "The training path on synthetic records. A sound mechanism leaves one of these pairs of "
        "limits in at most one of 100,000 audits.",
    )
    yield Table(
        ("check", "figure", "least", "most", "verdict", "law"),
        [
            (
                check["name"],
                _figure(check["figure"]),
                f"{check['low']:.4g}",
                f"{check['high']:.4g}",
                "REFUTED" if check["refuted"] else "not refuted",
                _plain(check["law"]),
            )
            for check in checks
        ],
    )


def _releases(sites: Sequence[_Site]) -> Iterator[Block]:
    yield Heading("Every release")
    yield Paragraph(
        "What left each site, in the order of its ledger. Bytes and SHA-256 are of the message as "
        "it left. A round that was cut off sent nothing and stays spent."
    )
    for site in sites:
        yield Table(
            (
                "entry",
                "study",
                "round",
                "time",
                "steps",
                "noise",
                "rate",
                "spent: ε",
                "RDP",
                "bytes",
                "SHA-256",
            ),
            [
                (
                    str(charged.seq),
                    charged.study[:8],
                    charged.label,
                    charged.time,
                    str(charged.event.steps),
                    f"{charged.event.noise_multiplier:g}",
                    f"{charged.event.sample_rate:.4g}",
                    "" if charged.epsilon_pld is None else shown(charged.epsilon_pld),
                    "" if charged.epsilon_rdp is None else shown(charged.epsilon_rdp),
                    f"{charged.release.bytes:,}" if charged.release else "cut off",
                    charged.release.sha256[:16] if charged.release else "–",
                )
                for charged in site.rounds
            ],
            f"{site.ledger.name}: ends at entry {site.ledger.verdict.head.seq}, "
            f"{site.ledger.verdict.head.hash}, signed by {site.ledger.verdict.public_key}"
            + ("" if site.ledger.key_known else " (a key that only the ledger itself names)"),
        )


def _limits(checked: Sequence[str], outcome: Made) -> Iterator[Block]:
    yield Heading("What this evidence shows, and what it cannot")
    if checked:
        yield Paragraph("Checked, and holds:")
        yield Bullets(checked)
    yield Paragraph("Not checked, because no evidence here can show it:")
    yield Bullets(unchecked(outcome))


def _is_of(audit: Mapping[str, Any], noise: float, rate: float) -> bool:
    return bool(audit["noise_multiplier"] == noise and audit["sample_rate"] == rate)


def _ahead(ahead: Forecast | None) -> str:
    if ahead is None:
        return "–"
    return "no limit" if ahead.rounds is None else str(ahead.rounds)


def _plain(text: str) -> str:
    """Removes backticks, which the report would show as they are."""
    return text.replace("`", "")


def _figure(value: float | None) -> str:
    return "no number" if value is None else f"{value:.4g}"
