"""The dashboard's pages are drawn in a real browser without a message on its console."""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
import uvicorn

from cloister.cli.main import run
from cloister.dashboard.app import make_app
from cloister.dashboard.coordinator import read_coordinator
from cloister.dashboard.sources import Page, Source
from tests.support.dashboards import coordinator_folder, site_folder

CHROMIUM = next(
    (c for name in ("chromium", "chromium-browser", "google-chrome") if (c := shutil.which(name))),
    None,
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def browse(address: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    plain = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-quic",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
        f"--user-data-dir={folder / 'profile'}",
    ]
    command = [str(CHROMIUM), *plain, *options, address]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    desk, ward = coordinator_folder(folder / "desk").path, site_folder(folder / "ward").path
    for source in (desk, ward):
        assert run(["dashboard", str(source), "--static", str(folder / "out")]) == 0
    return folder / "out"


@pytest.mark.parametrize(
    ("name", "pictures"),
    [
        ("coordinator", 4),
        *(pytest.param(*page, marks=pytest.mark.nightly) for page in (("site", 3), ("audit", 2))),
    ],
)
def test_a_browser_draws_the_page(pages: Path, tmp_path: Path, name: str, pictures: int) -> None:
    address = (pages / f"{name}.html").as_uri()
    seen = browse(address, tmp_path, "--dump-dom")
    assert seen.stdout.count('role="img"') == pictures
    assert "CONSOLE" not in seen.stderr  # a blocked style, an error
    from matplotlib.image import imread

    for size in ("1200,1400", "390,1400"):
        picture = tmp_path / "page.png"
        browse(address, tmp_path, f"--screenshot={picture}", f"--window-size={size}")
        assert imread(picture)[..., :3].std() > 0.03  # not blank


@contextmanager
def served(source: Source) -> Iterator[str]:
    app = make_app(source, None)
    config = uvicorn.Config(app, port=0, log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join(10)


def test_a_live_page_keeps_itself_fresh(tmp_path: Path) -> None:
    desk = coordinator_folder(tmp_path / "desk")
    members = desk.members.read_text().replace("hill-clinic", "new-clinic")

    def look(now: datetime) -> object:
        facts = read_coordinator(desk.path, now)
        desk.members.write_text(members)  # another site by the next look
        return facts

    with served(Source([Page("coordinator", "Coordinator", look)])) as address:
        # So much of the page's own time: one look of its refresher.
        seen = browse(address, tmp_path, "--dump-dom", "--virtual-time-budget=8000")
    assert "new-clinic" in seen.stdout
    assert "hill-clinic" not in seen.stdout
    assert "CONSOLE" not in seen.stderr
