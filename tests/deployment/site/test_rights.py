"""A site's files are readable by their owner only, whatever the umask."""

import json
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.client.personal import PersonalAdapter
from cloister.deployment.coordinator.folder import ServerConfig, ServerFolder
from cloister.deployment.site.checks import CheckLevel
from cloister.deployment.site.doctor_rights import rights
from cloister.deployment.site.open_ledger import open_ledger
from cloister.deployment.site.service import SiteService
from cloister.ledger.ledger import Ledger
from cloister.ledger.storage import LedgerFile
from cloister.owner_only import exposed, tighten
from tests.deployment.site.test_backup import go_on, make_site
from tests.support.ledgers import new_ledger, run_round
from tests.support.papers import NOW
from tests.support.rights import open_to_others, open_umask

# The operator's own: written by hand, or by their editor.
OPERATOR_S = {"site.toml", "records.jsonl"}


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody can reach, as a home on a shared machine may be."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_nothing_of_a_site_is_others_to_read(place: Path) -> None:
    with open_umask():
        file = make_site(place / "ward")
        SiteService(file)
        go_on(file, 3, 3)
    assert set(open_to_others(place / "ward")) == OPERATOR_S
    assert (place / "ward" / "ward.federation" / "node.key").exists()
    assert (place / "ward" / "records.personal").exists()


def test_a_new_site_toml_is_nobody_else_s_to_change(place: Path) -> None:
    with open_umask():
        assert run(["site", "init", str(place / "site.toml")]) == 0
    assert stat.S_IMODE((place / "site.toml").stat().st_mode) == 0o644


def test_what_was_open_is_closed_when_it_is_opened(place: Path) -> None:
    """Ledgers of earlier versions took the umask's rights."""
    file = make_site(place / "ward")
    for path in (place / "ward").rglob("*"):
        path.chmod(0o777 if path.is_dir() else 0o666)
    for path in (file.path, file.data):
        path.chmod(0o600)
    open_ledger(file)
    go_on(file, 3, 3)
    assert PersonalAdapter.beside(file.ledger, "s" * 64).before(2, {"x.lora_B.weight": (2,)})
    SiteService(file)
    assert set(open_to_others(place / "ward")) == {"records.ledger.key"}  # said aloud, not closed


@pytest.mark.parametrize(
    ("open_up", "level"),
    [
        ("records.jsonl 644", CheckLevel.WARN),
        ("records.jsonl 660", CheckLevel.FAIL),
        ("site.toml 646", CheckLevel.FAIL),
        ("records.ledger 640", CheckLevel.WARN),
        ("records.ledger.key 604", CheckLevel.WARN),
        ("records.ledger.head 602", CheckLevel.FAIL),
        ("ward.agent/own 755", CheckLevel.WARN),
        ("ward.federation 777", CheckLevel.FAIL),
        ("records.personal 750", CheckLevel.WARN),
        (". 777", CheckLevel.FAIL),
        (". 755", CheckLevel.WARN),
        (". 1733", CheckLevel.PASS),
        ("site.toml 644", CheckLevel.PASS),
        ("ward.agent 711", CheckLevel.PASS),
    ],
)
def test_the_doctor_says_what_others_may(place: Path, open_up: str, level: CheckLevel) -> None:
    file = make_site(place / "ward")
    for path in (place / "ward").rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    (place / "ward").chmod(0o711)
    name, mode = open_up.split()
    if name == "ward.agent/own":  # as where the agent has a user of its own
        (place / "ward" / "ward.agent").chmod(0o711)
    (place / "ward" / name).chmod(int(mode, 8))
    outcome = rights(file)
    assert outcome.level is level
    if level is not CheckLevel.PASS:
        path = place / "ward" / name
        assert str(path) in outcome.detail
        assert f"'{path}'" in outcome.remedy
    place.chmod(0o700)  # nobody gets in, so nothing is others'
    assert rights(file).level is CheckLevel.PASS


def test_the_doctor_looks_before_it_closes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = make_site(place / "ward")
    (place / "ward").chmod(0o755)
    file.ledger.chmod(0o644)
    file.data.chmod(0o600)
    run(["site", "doctor", str(file.path), "--json"])
    checks = {row["check"]: row for row in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["rights"]["level"] == "WARN"
    assert "may read" in checks["rights"]["detail"]
    assert stat.S_IMODE(file.ledger.stat().st_mode) == 0o600  # opened since


def test_a_ledger_and_its_journal_are_private_from_their_first_byte(place: Path) -> None:
    """SQLite makes files as the umask says, and a journal like its ledger."""
    with open_umask():
        path = place / "new" / "folder" / "x.ledger"
        ledger = new_ledger(path)
        run_round(ledger, 1)
        with LedgerFile(path).writing() as transaction:
            transaction._connection.execute("PRAGMA cache_size=1")  # so that pages are spilled
            transaction._connection.execute("UPDATE entries SET signature = zeroblob(9000)")
            seen = {file.name: file.stat().st_mode & 0o077 for file in path.parent.iterdir()}
    assert "x.ledger-journal" in seen
    assert set(seen.values()) == {0}
    assert open_to_others(place) == {}
    assert Ledger(path).steps == 5


def test_a_folder_that_somebody_else_made_is_left_as_it_is(place: Path) -> None:
    """A ledger may lie in a home or in /srv: closing these would lock others out of theirs."""
    new_ledger(place / "x.ledger")
    assert stat.S_IMODE(place.stat().st_mode) == 0o755


def test_nothing_of_a_coordinator_is_others_to_read(place: Path) -> None:
    config = ServerConfig(name="desk", address="localhost:9443")
    with open_umask():
        folder = ServerFolder.create(place / "desk", config, NOW)
        assert open_to_others(place) == {}
        for path in (folder.path, folder.state, folder.logs, folder.runs):
            path.chmod(0o777)
        (folder.logs / "gate.log").write_text("x")
        ServerFolder.open(folder.path)  # one that was made by an earlier version
    assert open_to_others(place) == {}


def test_rights_are_what_the_folders_above_let_through(place: Path) -> None:
    inner = place / "a"
    inner.mkdir()
    (inner / "f").touch()
    (inner / "f").chmod(0o646)
    inner.chmod(0o755)
    assert exposed(inner / "f") == "read and write"
    inner.chmod(0o750)
    assert exposed(inner / "f") == "read"
    inner.chmod(0o700)
    assert exposed(inner / "f") == ""
    assert exposed(place / "none") == ""
    assert tighten(place / "none")


def test_a_simulation_s_ledgers_are_private(place: Path, tmp_path: Path) -> None:
    from cloister.server.run_directory import RunDirectory
    from cloister.simulation.ledgers import begin_ledgers
    from cloister.simulation.study import prepare
    from tests.support.studies import small_recipe

    recipe = small_recipe(tmp_path)
    with open_umask():
        run_folder = RunDirectory.create(place / "run", recipe)
        study = prepare(recipe)
        begin_ledgers(study, run_folder)
        (run_folder.path / "ledgers").chmod(0o777)
        begin_ledgers(study, run_folder)  # resumed, from before it was so
    assert set(open_to_others(place / "run")) == {".begun", "recipe.toml"}  # both say nothing
    assert not {name for name in open_to_others(place) if "ledger" in name}
