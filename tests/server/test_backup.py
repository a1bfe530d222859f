"""A coordinator's backup: all that sites pin comes back, and nothing of Flower's."""

import stat
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.errors import BadFileError, UsageError
from cloister.server.backup import back_up, restore
from cloister.server.folder import ServerConfig, ServerFolder
from cloister.server.heads import Heads
from cloister.server.members import changing, invited, read_members

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
    with pytest.raises(UsageError, match="not written over"):
        back_up(folder, file)
    with pytest.raises(UsageError, match="empty folder"):
        restore(file, folder.path)


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(BadFileError, match="no sound backup"):
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
