"""The report has the ledgers' figures, contains every field, and is readable in a browser."""

import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cloister.cli.main import run
from cloister.evidence import fonts, pdf
from cloister.evidence.audit_report import AuditedLedger, audit_report
from cloister.evidence.html import to_html
from cloister.evidence.pdf import to_pdf
from cloister.evidence.report_document import Bullets, Document, Heading, Paragraph, Table
from cloister.evidence.reported_study import ReportedStudy, of_adapter
from cloister.evidence.verification import examine
from cloister.ledger.verify import verify
from cloister.recipe import Recipe
from cloister.server.run_directory import RunDirectory
from tests.support.evidence import bundle_of, chain, key_of, keys_of
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
STUDY = ReportedStudy(name="triage", coordinator="hub", model="bert", records_per_person="one each")


def ledgers(sites: int = 2, rounds: int = 2, **options: Any) -> list[AuditedLedger]:
    found = []
    for number in range(sites):
        charged = [("study", r, small_plan(), r != 2) for r in range(1, rounds + 1)]
        entries = chain(key_of(number), charged, **options)
        name = f"site-{number} <b>&"
        found.append(AuditedLedger(name, entries, verify(entries, name), number == 0))
    return found


def report(*audits: dict[str, Any], **options: Any) -> Document:
    return audit_report(STUDY, ledgers(**options), audits, made="today")


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
        "2.8546",
        "ε spent (RDP)",
        "50.0000",
        "3.5908",
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
    assert headings[-2:] == ["What this evidence shows, and what it cannot", "What the words mean"]


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


def test_it_is_called_by_its_study_and_says_what_is_known_of_it() -> None:
    document = report(CONFORMANCE)
    assert document.title == "Privacy report: triage"
    (facts,) = [b for b in document.blocks if isinstance(b, Table) and b.title == "The study"]
    rows = {row[0]: row[1] for row in facts.rows}
    assert rows["coordinator"] == "hub"
    assert rows["base model"] == "bert"
    assert rows["records of a person"] == "one each"
    assert rows["dates"] == "then to then (first and last charge, by the sites' clocks)"
    assert rows["purpose"] == "not stated (--purpose adds it)"


def test_a_study_without_a_name_is_called_by_its_digest() -> None:
    known = ledgers(sites=1)
    document = audit_report(ReportedStudy(), known, [], made="today")
    assert document.title == "Privacy report: study study"
    entries = chain(key_of(0), [("a", 1, small_plan(), True), ("b", 1, small_plan(), True)])
    several = [AuditedLedger("ward", entries, verify(entries, "ward"), True)]
    document = audit_report(ReportedStudy(), several, [], made="today")
    assert document.title == "Privacy report: 2 studies"


def test_every_word_of_its_tables_is_explained_on_it() -> None:
    (words,) = [
        block.items
        for block in report(CONFORMANCE).blocks
        if isinstance(block, Bullets) and block.items[0].startswith("ε")
    ]
    text = "\n".join(words)
    for word in ("Cap", "δ", "Rate:", "Noise:", "Step:", "Cut off:", "Entry:", "RDP", "PLD"):
        assert word in text


def test_what_is_left_is_called_a_capacity_and_no_advice() -> None:
    document = report(CONFORMANCE)
    assert "not that these rounds should be run" in told(document)
    assert any("capacity left, in rounds" in b.columns for b in tables(document))


def test_one_is_one_and_no_mark_up_of_a_terminal_is_shown() -> None:
    marked = {**CONFORMANCE["checks"][0], "law": "as `privacy.noise` has it"}
    one = audit_report(STUDY, ledgers(sites=1, rounds=1), [], made="today")
    assert "1 ledger with 1 charged round." in told(one)
    assert "`" not in to_html(report({**CONFORMANCE, "checks": [marked]}))
    assert "`" not in to_html(one)  # without an audit it says how to make one
    held = examine(bundle_of(1), keys_of(1)).checked
    assert held[0].startswith("The one certificate is signed")


def tables(document: Document) -> list[Table]:
    return [block for block in document.blocks if isinstance(block, Table)]


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
    rows = [("x" * 20, "y $z_{1}$ " * 30)] * 60
    to_pdf(Document("Long", [Heading("h"), Table(("a", "b"), rows)]), path)
    assert path.read_bytes().count(b"/Type /Page ") > short


def only_dejavu(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [e for e in fonts.fontManager.ttflist if e.name.startswith(("DejaVu", "Last Resort"))]
    monkeypatch.setattr(fonts.fontManager, "ttflist", known)


def test_characters_that_no_font_has_are_code_points_and_the_page_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    only_dejavu(monkeypatch)
    found = fonts.fonts_for(["St-Mary's é ε", "北京, 2"])
    assert found.absent == {"北", "京"}
    assert found.written("北京, 2") == "U+5317 U+4EAC, 2"
    assert found.families("北京") == ["DejaVu Sans"]
    lines = written_pages(monkeypatch, tmp_path)
    assert lines[0] == "Privacy report: U+5317 U+4EAC"
    assert not any("北" in line for line in lines)
    assert fonts.ABSENT[:40] in " ".join(lines)


def test_a_font_that_has_the_characters_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = fonts._characters
    other = replace(fonts.fontManager.ttflist[0], name="Han", fname="han.ttf", weight=400)
    monkeypatch.setattr(fonts.fontManager, "ttflist", [other, *fonts.fontManager.ttflist])
    monkeypatch.setattr(
        fonts, "_characters", lambda path: {"北", "京"} if path == "han.ttf" else real(path)
    )
    found = fonts.fonts_for(["北京"])
    assert not found.absent
    assert found.written("北京") == "北京"
    assert found.families("北京") == ["DejaVu Sans", "Han"]
    assert found.families("Beijing") == ["DejaVu Sans"]


def written_pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Lines of text that a report's pages draw, of a study with a Chinese name."""
    lines: list[str] = []
    draw = pdf._Line.draw

    def noted(self: Any, *arguments: Any) -> None:
        lines.append(self.text)
        draw(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pdf._Line, "draw", noted)
        study = ReportedStudy(name="北京")
        document = audit_report(study, ledgers(sites=1, rounds=1), [], made="today")
        to_pdf(Document(document.title, document.blocks[:3]), tmp_path / "r.pdf")
    return lines


def test_wide_characters_take_two_places_and_cells_stay_in_their_columns() -> None:
    lines = list(pdf._table(Table(("site", "ε"), [("北京", "1"), ("ward", "2")])))
    assert [line.text for line in lines] == ["site  ε", "北京  1", "ward  2"]
    assert lines[1]._parts() == [(0, "北京"), (6, "1")]
    assert lines[2]._parts() == [(0, "ward  2")]


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


def test_a_run_is_reported_under_its_study_s_name(tmp_path: Path) -> None:
    from tests.support.ledgers import new_ledger, run_round

    run_folder = RunDirectory.create(tmp_path / "folder-7", Recipe())
    path = run_folder.ledger("ward")
    path.parent.mkdir(exist_ok=True)
    run_round(new_ledger(path), 1)
    assert run(["audit", "report", str(run_folder.path), "--purpose", "to test it"]) == 0
    text = (run_folder.path / "report.html").read_text(encoding="utf-8")
    assert "<h1>Privacy report: hospital-triage</h1>" in text
    assert "folder-7" not in text
    for word in ("all-MiniLM-L6-v2", "to test it", "none: simulated on one machine"):
        assert word in text


def test_a_recipe_is_taken_for_a_bundle_if_its_digest_is_the_study_s(
    ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = RunDirectory.create(tmp_path / "other", Recipe()).recipe_file
    assert run(["audit", "report", str(ledger), "--recipe", str(recipe)]) == 2
    assert "which these ledgers lack" in capsys.readouterr().err


def test_a_bundle_s_adapter_tells_its_model() -> None:
    told = b'{"model": {"base": "a/b\\n", "sha256": "ba"}, "task": {"kind": "causal-lm"}}'
    assert of_adapter(told).model == "a/b\\x0a (weights SHA-256 ba…)"
    for content in (None, b"[", b"[]", b'{"model": 1}', b"[" * 10_000):
        assert of_adapter(content) == ReportedStudy()


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
