"""Files are complete or do not exist, and no symbolic link redirects a write."""

import os
import secrets
import stat
import threading
from pathlib import Path

import pytest

from cloister.files import whole_file, write_whole


def test_a_file_is_written_with_its_mode(tmp_path: Path) -> None:
    for mode in (0o600, 0o644):
        path = tmp_path / f"{mode}"
        write_whole(path, b"first", mode)
        write_whole(path, b"second", mode)
        assert path.read_bytes() == b"second"
        assert stat.S_IMODE(path.stat().st_mode) == mode
    assert len(list(tmp_path.iterdir())) == 2


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    elsewhere, path = tmp_path / "elsewhere", tmp_path / "path"
    elsewhere.write_text("kept")
    path.symlink_to(elsewhere)
    write_whole(path, b"new")
    assert elsewhere.read_text() == "kept"
    assert not path.is_symlink()


def test_a_link_in_the_way_of_the_first_byte_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write to the folder, and guesses the name, must not choose what is written."""
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setattr(secrets, "token_hex", lambda size: "guessed")
    (tmp_path / ".path.guessed").symlink_to(elsewhere)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "path", b"secret")
    assert not elsewhere.exists()


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "path"
    write_whole(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["path"]


def test_writers_at_the_same_time_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "path"
    contents = {bytes([letter]) * 100_000 for letter in b"abcd"}
    threads = [threading.Thread(target=write_whole, args=(path, one)) for one in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert [file.name for file in tmp_path.iterdir()] == ["path"]


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "path"
    write_whole(path, b"old")
    with pytest.raises(KeyboardInterrupt), whole_file(path, 0o600) as file:  # noqa: PT012
        file.write(b"new")
        file.flush()
        assert Path(file.name).read_bytes() == b"new"
        assert stat.S_IMODE(Path(file.name).stat().st_mode) == 0o600
        assert path.read_bytes() == b"old"
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["path"]


def test_a_new_file_never_replaces_one_that_appeared_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "path"
    with pytest.raises(FileExistsError), whole_file(path, is_new=True) as file:  # noqa: PT012
        file.write(b"ours")
        path.write_text("theirs")
    assert path.read_text() == "theirs"
    assert [file.name for file in tmp_path.iterdir()] == ["path"]


def test_a_name_of_the_longest_length_can_be_written(tmp_path: Path) -> None:
    for name in ("n" * 255, "名" * 85):
        write_whole(tmp_path / name, b"new")
        assert (tmp_path / name).read_bytes() == b"new"


def test_an_error_without_a_path_gets_the_file_s(tmp_path: Path) -> None:
    path = tmp_path / "path"
    with pytest.raises(OSError, match="No space") as caught, whole_file(path):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(path)


def test_what_is_synced_before_the_name_is_the_whole_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the renaming must find the content on disk: sync first, then rename."""
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        order.append("folder" if is_folder else f"{os.fstat(descriptor).st_size} bytes")
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        order.append("name")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    with whole_file(tmp_path / "path") as file:
        file.write(b"12345")
    assert order == ["5 bytes", "name", "folder"]
