"""The report: says what the ledgers give, holds everything, and stays readable in a browser."""

import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cloister.cli.main import run
from cloister.evidence.audit_report import AuditedLedger, audit_report
from cloister.evidence.document import Document, Heading, Paragraph, Table
from cloister.evidence.html import to_html
from cloister.evidence.pdf import to_pdf
from cloister.ledger.verify import verify
from tests.support.evidence import chain, key_of
from tests.support.ledgers import small_plan

CONFORMANCE = {
    "level": "conformance",
    "refuted": False,
    "plan": "p",
    "noise_multiplier": 1.0,
    "sample_rate": 0.1,
    "checks": [
        {
            "name": "influence",
            "law": "law",
            "figure": 0.99,
            "low": 0.0,
            "high": 1.0,
            "refuted": False,
        },
        {"name": "grid", "law": "law", "figure": 0.0, "low": 0.0, "high": 0.0, "refuted": False},
    ],
}
EMPIRICAL = {
    "level": "empirical",
    "refuted": False,
    "plan": "p",
    "noise_multiplier": 1.0,
    "sample_rate": 0.1,
    "attacks": [
        {
            "attack": "one step, frozen",
            "refuted": False,
            "trials": 100,
            "epsilon_lower_bound": 0.5,
            "epsilon_claimed": 2.0,
        }
    ],
}


def ledgers(sites: int = 2, rounds: int = 2, **options: Any) -> list[AuditedLedger]:
    found = []
    for number in range(sites):
        charged = [("study", r, small_plan(), r != 2) for r in range(1, rounds + 1)]
        entries = chain(key_of(number), charged, **options)
        name = f"site-{number} <b>&"
        found.append(AuditedLedger(name, entries, verify(entries, name), number == 0))
    return found


def report(*audits: dict[str, Any], **options: Any) -> Document:
    return audit_report("Audit", ledgers(**options), audits, made="today")


def told(document: Document) -> str:
    return " ".join(block.text for block in document.blocks if isinstance(block, Paragraph))


def loud(document: Document) -> list[str]:
    return [b.text for b in document.blocks if isinstance(b, Paragraph) and b.is_loud]


def test_it_says_what_was_promised_spent_and_checked() -> None:
    document = report(CONFORMANCE, EMPIRICAL)
    assert loud(document) == []
    text = to_html(document)
    for word in (
        "add-remove",
        "2.8545",
        "ε spent (RDP)",
        "50.0000",
        "3.5907",
        "promised for the whole plan",
        "an indication, not a promise",
        "one step, frozen",
        "influence",
        "not refuted",
        "cut off",
        "0" * 16,
    ):
        assert word in text, word
    assert "verified" not in text.lower()
    headings = [b.text for b in document.blocks if isinstance(b, Heading)]
    assert headings[-1] == "What this evidence shows, and what it cannot"


def test_a_refuted_audit_is_loud_and_first() -> None:
    document = report({**CONFORMANCE, "refuted": True})
    first = document.blocks[0]
    assert isinstance(first, Paragraph)
    assert first.is_loud
    assert "REFUTED: conformance" in first.text


def test_missing_and_foreign_audits_are_said() -> None:
    assert "No audit of the mechanism was given" in loud(report())[0]
    assert "of another plan" in loud(report({**CONFORMANCE, "noise_multiplier": 3.0}))[0]


def test_no_privacy_is_loud() -> None:
    document = report(CONFORMANCE, cap=None, seeded=True)
    assert any("ε = ∞" in text for text in loud(document))
    assert math.isinf(ledgers(cap=None, seeded=True)[0].verdict.epsilon_pld)


class Seen(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset") and not str(value).startswith("#"):
                self.links.append(str(value))


def test_the_page_holds_everything_and_runs_nothing() -> None:
    text = to_html(report(CONFORMANCE, EMPIRICAL))
    seen = Seen()
    seen.feed(text)
    assert seen.links == []
    assert not seen.tags & {"script", "link", "img", "iframe", "object", "embed"}
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "site-0 <b>" not in text
    assert "site-0 &lt;b&gt;&amp;" in text


def test_pages_of_a_pdf_hold_long_tables(tmp_path: Path) -> None:
    path = tmp_path / "report.pdf"
    to_pdf(report(CONFORMANCE, EMPIRICAL), path)
    content = path.read_bytes()
    assert content.startswith(b"%PDF")
    short = content.count(b"/Type /Page ")
    rows = [("x" * 20, "y $z_{1}$ " * 30)] * 300
    to_pdf(Document("Long", [Heading("h"), Table(("a", "b"), rows)]), path)
    assert path.read_bytes().count(b"/Type /Page ") > short


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    from tests.support.ledgers import new_ledger, run_round

    path = tmp_path / "ward.ledger"
    run_round(new_ledger(path), 1)
    return path


def test_a_ledger_is_reported_from_the_command_line(
    ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = tmp_path / "audit.json"
    audit.write_text(json.dumps(CONFORMANCE))
    command = ["audit", "report", str(ledger), "--html", "--pdf", "--out", str(tmp_path / "r")]
    assert run([*command, "--audit", str(audit)]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "r.html"), str(tmp_path / "r.pdf")]
    assert "a key that only the ledger itself names" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("content", "code"), [("", 3), ("[]", 2), ("{}", 2), ('{"level": "x"}', 2)]
)
def test_what_is_no_audit_is_refused(
    ledger: Path, tmp_path: Path, content: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = tmp_path / "audit.json"
    audit.write_text(content)
    assert run(["audit", "report", str(ledger), "--audit", str(audit)]) == code
    assert "audit" in capsys.readouterr().err


def test_what_cannot_be_reported_is_said(tmp_path: Path, ledger: Path) -> None:
    assert run(["audit", "report", str(tmp_path / "none")]) != 0
    assert run(["audit", "report", str(tmp_path)]) == 2
    (tmp_path / "text").write_text("no ledger")
    assert run(["audit", "report", str(tmp_path / "text")]) == 6
    assert run(["audit", "report", str(ledger), "--key", f"ward={'ab' * 32}"]) == 6


CHROMIUM = next(
    (c for name in ("chromium", "chromium-browser", "google-chrome") if (c := shutil.which(name))),
    None,
)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(to_html(report(CONFORMANCE, EMPIRICAL)), encoding="utf-8")
    picture = tmp_path / "page.png"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-quic",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1000,3000",
    ]
    command = [str(CHROMIUM), *options, "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert "What was promised, and to whom" in dom
    assert dom.count("<svg") == 3
    command = [str(CHROMIUM), *options, f"--screenshot={picture}", page.as_uri()]
    subprocess.run(command, capture_output=True, check=True, timeout=120)
    from matplotlib.image import imread

    shown = imread(picture)[..., :3]
    assert shown.std() > 0.05  # not blank
    assert (shown[2900:] > 0.98).mean() > 0.5  # the page ends in white, not in an error's grey
