"""The dashboard's pages and metrics, from small folders; and a real browser's look at them."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from cloister.cli.main import run
from cloister.privacy.ledger import key_file
from cloister.server.folder import ServerConfig, ServerFolder
from cloister.server.journal import Run, Standing, note, write_run
from cloister.server.members import changing, invited
from cloister.serving import facts, metrics, pages
from cloister.serving.app import View, make_app
from tests.support.ledgers import new_ledger, run_round

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>"
SITE = """
[site]
name = "ward"
data = "records.jsonl"
public_records = 40
ledger = "ward.ledger"

[budget]
epsilon = 8.0
delta = 1e-4

[accept]
tasks = ["sequence-classification"]
base_sha256 = ["{base}"]
"""


@pytest.fixture
def coordinator(tmp_path: Path) -> ServerFolder:
    """Two invited sites and a run of three rounds, one of them refused."""
    folder = ServerFolder.create(
        tmp_path / "desk", ServerConfig(name="desk", address="localhost:9443"), NOW
    )
    with changing(folder.members) as write:
        write(invited(invited({}, "east", NOW), "west", NOW))
    place = folder.run("first")
    place.mkdir()
    fresh = Run(name="first", standing=Standing.RUNNING, flower_run=7, sites=("east", "west"))
    write_run(place, fresh)
    rows = []
    for number in (1, 2, 3):
        for site in ("east", "west"):
            note(place, "asked", round=number, site=site)
            refused = site == "west" and number == 2
            note(place, "refused" if refused else "answered", round=number, site=site, text=HOSTILE)
        rows.append({"round": number, "test": {"accuracy": number / 4, "loss": 1.0},
                     "bytes_up": 1000 * number, "seconds": 2.5, "epsilon": {"east": 1.0},
                     "received": {}})  # fmt: skip
    note(place, "note", text=HOSTILE)
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site with two releases."""
    ledger = new_ledger(tmp_path / "ward.ledger")
    for number in (1, 2):
        run_round(ledger, number)
    path = tmp_path / "site.toml"
    path.write_text(SITE.format(base="ab" * 32))
    assert key_file(tmp_path / "ward.ledger").exists()
    return path


def shown(path: Path, out: Path) -> str:
    assert run(["dashboard", str(path), "--static", str(out)]) == 0
    return out.read_text(encoding="utf-8")


def test_the_coordinator_s_page(coordinator: ServerFolder, tmp_path: Path) -> None:
    page = shown(coordinator.path, tmp_path / "page.html")
    assert "does not run" in page
    assert page.count('class="m-answered"') == 5 + 1  # five of six, and the legend
    assert page.count('class="m-refused"') == 1 + 1
    assert "cloister run watch first" in page
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page


def test_the_site_s_page(site: Path, tmp_path: Path) -> None:
    page = shown(site, tmp_path / "page.html")
    assert "What left this building" in page
    assert "2 rounds of 1 study charged, 2 released" in page
    assert 'class="gauge fine"' in page


def test_the_auditor_s_page(site: Path, tmp_path: Path) -> None:
    page = shown(site.parent / "ward.ledger", tmp_path / "page.html")
    found = facts.auditor_facts(site.parent / "ward.ledger")
    assert found["head"]["hash"] in page
    assert f"{found['epsilon_pld']:.4f}" in page
    assert f"{found['epsilon_rdp']:.4f}" in page
    assert found["epsilon_pld"] < found["epsilon_rdp"]


def test_a_broken_ledger_has_no_page(site: Path, tmp_path: Path) -> None:
    ledger = site.parent / "ward.ledger"
    content = bytearray(ledger.read_bytes())
    at = content.find(b'"round":1')
    content[at + 8] = ord("7")
    ledger.write_bytes(content)
    assert run(["dashboard", str(ledger), "--static", str(tmp_path / "page.html")]) == 6
    assert not (tmp_path / "page.html").exists()


def test_what_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dashboard", str(tmp_path)]) == 3
    assert run(["dashboard", str(tmp_path / "none.ledger")]) == 2
    assert run(["dashboard", str(tmp_path / "none.toml")]) == 3
    assert run(["dashboard", str(tmp_path), "--host", "0.0.0.0"]) == 2
    assert run(["dashboard", str(tmp_path), "--host", "hospital"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_no_page_asks_for_anything_elsewhere(
    coordinator: ServerFolder, site: Path, tmp_path: Path
) -> None:
    for source in (coordinator.path, site, site.parent / "ward.ledger"):
        page = shown(source, tmp_path / "page.html")
        assert not re.findall(r"""(?:src|href)\s*=|url\(|@import|https?://""", page)


def asked(
    app: Starlette, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(ask())


@pytest.mark.parametrize("token", [None, "secret"])
def test_the_application_is_read_only_and_guarded(token: str | None) -> None:
    app = make_app(View(lambda: "<p>page</p>", lambda: b"up 1\n"), token)
    headers = {"authorization": "Bearer secret"}
    stranger = 401 if token else 200
    for path in ("/", "/metrics", "/refresh.js"):
        assert asked(app, path).status_code == stranger
        other = asked(app, path, headers={"authorization": "Bearer other"})
        assert other.status_code == stranger
        answer = asked(app, path, headers=headers)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert asked(app, path, method, headers).status_code == 405
    assert asked(app, "/etc/passwd").status_code == 404


def test_a_token_shown_once_is_remembered_by_the_browser() -> None:
    app = make_app(View(lambda: "page"), "secret")
    first = asked(app, "/?token=secret")
    assert first.status_code == 200
    assert "httponly" in first.headers["set-cookie"].lower()
    cookie = {"cookie": first.headers["set-cookie"].split(";")[0]}
    assert asked(app, "/", headers=cookie).status_code == 200
    assert asked(app, "/metrics", headers=cookie).status_code == 404  # a ledger alone has none


def names_of(text: bytes) -> dict[str, set[str]]:
    return {
        family.name: {label for sample in family.samples for label in sample.labels}
        for family in text_string_to_metric_families(text.decode())
    }


def test_metrics_hold_bounded_labels_and_no_epsilon_at_the_coordinator(
    coordinator: ServerFolder, site: Path
) -> None:
    from cloister.client.site_file import read_site

    ours = names_of(metrics.coordinator_metrics(facts.coordinator_facts(coordinator, NOW), NOW))
    theirs = names_of(metrics.site_metrics(facts.site_facts(read_site(site)), NOW))
    assert not [name for name in ours if "epsilon" in name]
    assert {"cloister_epsilon_spent", "cloister_epsilon_cap"} <= theirs.keys()
    for labels in (*ours.values(), *theirs.values()):
        assert labels <= {"site", "run", "outcome", "process", "version"}
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    used = set(re.findall(r"cloister_\w+", json.dumps([rule["expr"] for group in rules["groups"]
                                                       for rule in group["rules"]])))  # fmt: skip
    made = set(ours) | set(theirs)
    # What only appears once there is something to tell.
    made |= {"cloister_site_last_seen_timestamp_seconds", "cloister_process_starts_total"}
    assert used <= made


CHROMIUM = next((c for name in ("chromium", "chromium-browser", "google-chrome")
                 if (c := shutil.which(name))), None)  # fmt: skip
PAGES: dict[str, tuple[Callable[[Path, ServerFolder], Any], int]] = {
    "coordinator": (lambda site, coordinator: coordinator.path, 2),
    "site": (lambda site, coordinator: site, 3),
    "auditor": (lambda site, coordinator: site.parent / "ward.ledger", 1),
}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("kind", PAGES)
def test_a_browser_shows_the_page(
    kind: str, coordinator: ServerFolder, site: Path, tmp_path: Path
) -> None:
    of, charts = PAGES[kind]
    page = tmp_path / "page.html"
    shown(of(site, coordinator), page)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic",
               "--disable-background-networking", "--disable-component-update", "--disable-sync",
               f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1100,1200"]  # fmt: skip
    command = [str(CHROMIUM), *options, "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert dom.count("<svg") == charts
    assert "read only" in dom
    picture = tmp_path / "page.png"
    command = [str(CHROMIUM), *options, f"--screenshot={picture}", page.as_uri()]
    subprocess.run(command, capture_output=True, check=True, timeout=120)
    from matplotlib.image import imread

    assert imread(picture)[..., :3].std() > 0.03  # not blank


def test_a_gauge_and_lanes_of_strange_values() -> None:
    from cloister.serving.charts import bars, gauge, lanes, line

    assert "over" in gauge(9.5, 10.0, "x")
    assert "nothing yet" in line({}, "x")
    assert "nothing yet" in bars([], "x")
    assert "no round" in lanes({"a": {}})
    assert "&lt;b&gt;" in lanes({"<b>": {1: "answered"}})
    assert "polyline" in line({"flat": [(1, 2.0), (2, 2.0)]}, "x", cap=2.0)
    assert pages.number(None) == "–"
