"""A coordinator's backup restores everything that sites pin, and nothing of Flower's."""

import io
import os
import shutil
import signal
import stat
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from cloister.cli.main import run
from cloister.deployment.coordinator.backup import back_up, restore
from cloister.deployment.coordinator.folder import ServerConfig, ServerFolder
from cloister.deployment.coordinator.members import changing, invited, read_members
from cloister.errors import BadFileError, UsageError
from cloister.server.ledger_heads import Heads

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    made = ServerFolder.create(
        tmp_path / "desk", ServerConfig(name="desk", address="localhost:9443"), NOW
    )
    with changing(made.members) as write:
        write(invited({}, "ward", NOW))
    Heads(made.heads).add("ab" * 32, "cd" * 32)
    (made.runs / "first").mkdir()
    (made.runs / "first" / "recipe.toml").write_text("x = 1\n")
    (made.state / "superlink.db").write_bytes(b"Flower's")
    return made


def test_what_was_backed_up_comes_back(folder: ServerFolder, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar.gz"
    assert back_up(folder, file) > 5
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    back = restore(file, tmp_path / "new")
    assert back.config == folder.config
    assert back.authority.pem == folder.authority.pem
    assert back.key.read_bytes() == folder.key.read_bytes()
    assert Heads(back.heads).last("ab" * 32) == "cd" * 32
    assert read_members(back.members) == read_members(folder.members)
    assert (back.runs / "first" / "recipe.toml").read_text() == "x = 1\n"
    assert not (back.state / "superlink.db").exists()
    for key in back.path.glob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_nothing_is_written_over(folder: ServerFolder, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar.gz"
    back_up(folder, file)
    with pytest.raises(UsageError, match="not overwritten"):
        back_up(folder, file)
    with pytest.raises(UsageError, match="empty folder"):
        restore(file, folder.path)


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(BadFileError, match="not a valid backup"):
        restore(tmp_path / "text", tmp_path / "a")
    (tmp_path / "evil").write_text("x")
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "evil", "../outside")
    with pytest.raises(BadFileError):
        restore(tmp_path / "evil.tar.gz", tmp_path / "b")
    assert not (tmp_path / "outside").exists()


def test_the_commands(folder: ServerFolder, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar.gz"
    assert run(["server", "backup", str(folder.path), "--out", str(file)]) == 0
    assert run(["server", "restore", str(file), str(tmp_path / "new")]) == 0
    assert run(["server", "status", str(tmp_path / "new"), "--json"]) == 0
    assert run(["server", "backup", str(tmp_path / "none"), "--out", str(tmp_path / "x")]) == 3


def test_what_it_may_not_hold_leaves_nothing(folder: ServerFolder, tmp_path: Path) -> None:
    """Links, devices, two of a name, headers that fill the memory: whoever made the archive."""
    whole = tmp_path / "backup.tar.gz"
    back_up(folder, whole)

    def hostile(case: str, **fields: object) -> Path:
        path = tmp_path / f"{case}.tar.gz"
        with tarfile.open(whole) as old, tarfile.open(path, "w:gz") as new:
            for member in old:
                new.addfile(member, old.extractfile(member))
            info = tarfile.TarInfo("added")
            for key, value in fields.items():
                setattr(info, key, value)
            zeros = io.BytesIO(bytes(info.size))
            new.addfile(info, zeros)
        return path

    cases = [
        hostile("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        hostile("hard", type=tarfile.LNKTYPE, linkname="ca.key"),
        hostile("device", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
        hostile("pipe", type=tarfile.FIFOTYPE),
        hostile("folder", type=tarfile.DIRTYPE, mode=0o777),
        hostile("twice", name="ca.key"),
        hostile("parent", name="../outside"),
        hostile("absolute", name=str(tmp_path / "outside")),
        hostile("pax", type=tarfile.XHDTYPE, size=2**20),
        hostile("long", type=tarfile.GNUTYPE_LONGNAME, size=2**20),
    ]
    content = whole.read_bytes()
    for cut in (20, len(content) // 2, len(content) - 6):
        cases.append(tmp_path / f"{cut}.cut")
        cases[-1].write_bytes(content[:cut])
    before = sorted(tmp_path.iterdir())
    for case in cases:
        with pytest.raises(BadFileError):
            restore(case, tmp_path / "new")
        assert sorted(tmp_path.iterdir()) == before, case


def test_a_coordinator_is_restored_as_a_whole_or_not_at_all(
    folder: ServerFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "backup.tar.gz"
    back_up(folder, file)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(BadFileError, match="room"):
        restore(file, tmp_path / "new")
    monkeypatch.undo()
    monkeypatch.setattr(Path, "replace", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    child = os.fork()
    if child == 0:
        restore(file, tmp_path / "new")
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    monkeypatch.undo()
    assert not (tmp_path / "new").exists()
    assert restore(file, tmp_path / "new").config == folder.config
    assert not list(tmp_path.glob(".*"))
