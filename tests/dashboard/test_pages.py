"""The dashboard's pages show what small folders contain, and hide what is private."""

import json
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.client.site_file import read_site
from cloister.dashboard.coordinator import MOST_PICTURE, picture
from cloister.deployment.coordinator.journal import RunStatus
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.evidence.bundle import write_bundle
from cloister.ledger import stated
from cloister.ledger.reservation import Reservation
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.privacy.release_kind import ReleaseKind
from cloister.protocol.delivery import NOTE
from cloister.server.class_plot import plot_classes
from tests.cli.test_site_studies import make, study
from tests.support.dashboards import (
    HOSTILE,
    add_evaluations,
    coordinator_folder,
    site_folder,
)
from tests.support.evidence import bundle_of, keys_of
from tests.support.ledgers import charge, evaluated_plan, new_ledger, run_round


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sites = ("county-general", "riverside", HOSTILE.replace("/", "∕"))
    return coordinator_folder(tmp_path_factory.mktemp("desk"), sites=sites).path


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return site_folder(tmp_path_factory.mktemp("site") / "ward").path


def written(source: Path, out: Path, *more: str) -> dict[str, str]:
    assert run(["dashboard", str(source), "--static", str(out), *more]) == 0
    return {path.name: path.read_text("utf-8") for path in out.iterdir()}


class Seen(HTMLParser):
    """Tags of a page, its links, and its words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action"):
                self.links.append(str(value))
            if name.startswith("on") or name == "style":
                self.handlers.append(name)

    def handle_data(self, data: str) -> None:
        self.words += data + " "


def test_the_coordinator_s_page_shows_lanes_members_and_what_to_type_next(
    desk: Path, tmp_path: Path
) -> None:
    pages = written(desk, tmp_path)
    assert pages.keys() == {"coordinator.html"}
    page = pages["coordinator.html"]
    for words in (
        "does not run",
        "triage-2",
        "pilot",
        "hill-clinic",
        "invited",
        f"cloister run resume triage-2 --server {desk}",
        f"cloister evaluate {desk / 'runs' / 'pilot'} --data FILE",
        "the update has norm 71.2; at most 50 is allowed",
    ):
        assert words in page, words
    assert page.count('class="lanes"') == 2
    assert page.count('<td class="refused"') == 1
    assert page.count('<svg viewBox="0 0 400') == 4


def test_a_finished_run_shows_its_classes_inside_the_page(tmp_path: Path) -> None:
    folder = coordinator_folder(tmp_path / "desk").path
    scores = {"cough": {"precision": 0.5, "recall": 0.4, "f1": 0.44}}
    assert plot_classes(scores, "pilot", folder / "runs" / "pilot" / "classes.png")
    page = Seen(written(folder, tmp_path / "page")["coordinator.html"])
    assert page.tags.count("img") == 1
    assert [link for link in page.links if link.startswith("data:image/png;base64,")]
    assert "Scores by class" in page.words


def test_private_evaluations_are_shown_with_their_intervals(tmp_path: Path) -> None:
    folder = coordinator_folder(tmp_path / "desk")
    add_evaluations(folder, "triage-2", label=HOSTILE)
    page = written(folder.path, tmp_path / "page")["coordinator.html"]
    assert page.count('<svg viewBox="0 0 400') == 5
    assert page.count('class="interval s0"') == 3
    # The mark of the round whose score the noise hides is left out, its interval is not.
    assert "accuracy, round 4: –, 95 % for the population: 0.0000 to 1.0000" in page
    assert "accuracy 0.7100, 0.6400 to 0.7800 for the population, after round 12" in page
    seen = Seen(page)
    for words in ("Private evaluations (3)", "0.7000 to ∞", f"{HOSTILE}: recall", "2 sites"):
        assert words in seen.words, words
    assert "script" not in seen.tags
    assert "ε" not in page
    place = folder.run("triage-2") / "evaluations.jsonl"
    place.write_text('{"round": 1, "sites": [], "scores": {}, "classes": {}}\n')
    assert run(["dashboard", str(folder.path), "--static", str(tmp_path / "bad")]) == 3


def test_an_evaluation_is_told_from_a_round_in_an_audit(tmp_path: Path) -> None:
    ledger, plan = new_ledger(tmp_path / "east.ledger"), evaluated_plan()
    for number in (1, 2):
        run_round(ledger, number, plan)
    granted = ledger.reserve(charge(2, plan, kind=ReleaseKind.EVALUATION))
    assert isinstance(granted, Reservation)
    granted.release(b"statistics")
    page = written(tmp_path / "east.ledger", tmp_path / "page")["audit.html"]
    assert [page.count(f'<td class="n">{label}</td>') for label in ("2", "2 evaluation")] == [1, 1]


@pytest.mark.parametrize("content", [b"<svg onload=1>", b"\x89PNG\r\n\x1a\n" + bytes(MOST_PICTURE)])
def test_what_is_no_small_png_is_no_picture(content: bytes, tmp_path: Path) -> None:
    place = tmp_path / "classes.png"
    place.write_bytes(content)
    assert picture(place) == ""


def test_the_coordinator_s_page_holds_no_epsilon(desk: Path, tmp_path: Path) -> None:
    assert "ε" not in written(desk, tmp_path)["coordinator.html"]


def test_the_site_s_pages_show_what_left_what_is_left_and_why_not(
    ward: Path, tmp_path: Path
) -> None:
    (ward.parent / "s.ledger.key").rename(ward.parent / "kept.key")  # a page needs no key
    try:
        pages = written(ward, tmp_path)
    finally:
        (ward.parent / "kept.key").rename(ward.parent / "s.ledger.key")
    assert pages.keys() == {"site.html", "audit.html"}
    page = pages["site.html"]
    for words in (
        "What left my building",
        "Capacity left",
        "cut off, spent",
        "of the budget&#39;s 8, both at δ =",
        "an indication, not a promise",
        "promised, at δ =",
        "for everything that this data set ever releases",
        "One study may cost",
        "1 bundle came along",
        "its base model is not accepted",
        "has not joined a federation",
        'href="audit.html"',
    ):
        assert words in page, words
    assert page.count("<tr><td>") == 10 + 2  # charges, refusals


def test_a_delivered_adapter_is_on_its_site_s_page(tmp_path: Path) -> None:
    site = make(tmp_path / "ward")
    assert "Adapters of finished studies" not in written(site, tmp_path / "none")["site.html"]
    for digest, claim in (("ab" * 32, {"metric": "accuracy", "score": 0.75}), ("cd" * 32, {})):
        place = AgentFolder.of(read_site(site)).adapters / digest
        place.mkdir(parents=True)
        note = {
            "study": digest,
            "name": HOSTILE,
            "claim": claim,
            "received": "2027-01-02T03:04:05Z",
        }
        (place / NOTE).write_text(json.dumps(note))
    page = written(site, tmp_path / "out")["site.html"]
    assert "Adapters of finished studies" in page
    assert "accuracy 0.7500" in page
    assert "no score was given" in page
    assert str(place) in page
    assert HOSTILE in Seen(page).words
    assert HOSTILE not in page


def test_a_study_that_waits_is_on_its_site_s_page(tmp_path: Path) -> None:
    site = make(tmp_path / "ward")
    page = unescape("".join(written(site, tmp_path / "out").values()))
    digest = study().digest()
    assert "1 person must approve it" in page
    assert f"cloister site studies show {site} {digest[:12]}" in page
    assert run(["site", "studies", "approve", str(site), digest, "--yes"]) == 0
    page = "".join(written(site, tmp_path / "then").values())
    assert "must approve it" not in page


def test_the_auditor_s_page_states_the_head_and_two_accountants(ward: Path, tmp_path: Path) -> None:
    ledger = ward.parent / "s.ledger"
    page = written(ledger, tmp_path)["audit.html"]
    entries = LedgerFile(ledger).entries()
    assert entries[-1].hash in page
    verdict = verify(entries, "it")
    assert stated.shown(verdict.epsilon_pld, 4) in page
    assert stated.shown(verdict.epsilon_rdp, 4) in page
    assert stated.shown(verdict.promise.epsilon, 2) in page
    assert "a key that only the ledger names" in page


def test_ledgers_of_many_sites_are_shown_together(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.zip"
    write_bundle(bundle, bundle_of())
    page = written(bundle, tmp_path / "unknown")["audit.html"]
    assert page.count("a key that only the ledger names") == 2
    keys = tmp_path / "keys.json"
    keys.write_text(str(keys_of()).replace("'", '"'))
    page = written(bundle, tmp_path / "known", "--keys", str(keys))["audit.html"]
    assert page.count("the key that was given</span>") == 2
    assert "Checked, and holds" in page


def test_a_folder_of_ledgers_is_audited(ward: Path, tmp_path: Path) -> None:
    for name in ("east", "west"):
        for suffix in ("", ".head"):
            shutil.copy(ward.parent / f"s.ledger{suffix}", tmp_path / f"{name}.ledger{suffix}")
    page = written(tmp_path, tmp_path / "out")["audit.html"]
    assert "All sites" in page
    assert page.count('id="ledger-') == 2


def test_what_others_wrote_is_shown_as_text_and_nothing_is_fetched(
    desk: Path, ward: Path, tmp_path: Path
) -> None:
    pages = {**written(desk, tmp_path), **written(ward, tmp_path)}
    for name, page in pages.items():
        seen = Seen(page)
        assert not set(seen.tags) & {"script", "img", "iframe", "object", "embed", "form"}, name
        inside = {"site.html", "audit.html", "data:,"}
        assert all(link in inside or link.startswith("#") for link in seen.links), name
        assert seen.handlers == [], name
        assert "default-src 'none'" in unescape(page)
        assert "url(" not in page
        assert "@import" not in page
    assert HOSTILE in Seen(pages["site.html"]).words
    assert HOSTILE.replace("/", "∕") in Seen(pages["coordinator.html"]).words


def test_pictures_say_in_words_what_they_show(desk: Path, ward: Path, tmp_path: Path) -> None:
    pages = {**written(desk, tmp_path), **written(ward, tmp_path)}
    for page in pages.values():
        for mark in page.split("<svg")[1:]:
            opening = mark.split(">")[0]
            assert 'aria-label="' in opening or 'aria-hidden="true"' in opening
        assert page.count("<th") == page.count('<th scope="') + page.count("<thead")


def test_a_broken_ledger_has_no_page(
    ward: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for suffix in ("", ".head"):
        shutil.copy(ward.parent / f"s.ledger{suffix}", tmp_path / f"s.ledger{suffix}")
    ledger = tmp_path / "s.ledger"
    ledger.write_bytes(ledger.read_bytes().replace(b'"round":1', b'"round":9'))
    assert run(["dashboard", str(ledger), "--static", str(tmp_path / "out")]) == 6
    assert not (tmp_path / "out").exists()
    assert capsys.readouterr().err.count("\n") == 1


def test_what_is_none_of_these_is_said_in_one_line(
    desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.ledger").write_text("no ledger")
    (tmp_path / "empty").mkdir()
    damaged = tmp_path / "damaged"
    shutil.copytree(desk, damaged)
    (damaged / "runs" / "pilot" / "metrics.jsonl").write_text("{no json}\n")
    for path, code in (
        ("none", 3),
        ("none.toml", 3),
        ("empty", 3),
        ("text.ledger", 6),
        ("damaged", 3),
    ):
        assert run(["dashboard", str(tmp_path / path), "--static", str(tmp_path / "out")]) == code
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith("cloister: ")
        assert told.err.count("\n") == 1, told.err


def test_a_run_whose_file_is_damaged_hides_no_other(desk: Path, tmp_path: Path) -> None:
    shutil.copytree(desk, tmp_path / "desk")
    (tmp_path / "desk" / "runs" / "pilot" / "run.json").write_text("{")
    page = written(tmp_path / "desk", tmp_path / "out")["coordinator.html"]
    assert "damaged" in page
    assert "triage-2" in page


def test_a_run_that_nobody_was_asked_in_has_a_page(tmp_path: Path) -> None:
    folder = coordinator_folder(tmp_path / "desk", rounds=0, standing=RunStatus.SUBMITTED)
    page = written(folder.path, tmp_path / "out")["coordinator.html"]
    assert "No site has been asked yet." in page
    assert f"cloister server start {folder.path}" in page
