"""A file whose writer was killed is continued, and ends with the bytes of an unbroken run."""

import errno
import fcntl
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.cli.begun_file import begun_file
from cloister.errors import BadFileError, CloisterError, UsageError
from tests.support.examples import tries

OF = {"adapter": "a", "data": "d", "top": None}


class Killed(BaseException):
    """What ends a writer in the middle."""


def rows(count: int) -> list[str]:
    return [f"row {number}{'é' * (number % 3)}\n" for number in range(count)]


def until(texts: list[str], count: int) -> Iterator[str]:
    yield from texts[:count]
    raise Killed


def go_on(out: Path, texts: list[str], step: int, made_of: dict[str, object] | None = None) -> int:
    with begun_file(out, made_of or OF) as begun:
        return begun.write(islice(texts, begun.rows, None), step)


@given(
    count=st.integers(0, 12),
    step=st.integers(1, 5),
    kills=st.lists(st.integers(0, 12), max_size=3),
    torn=st.binary(max_size=9),
)
@settings(max_examples=tries(80), deadline=None)
def test_a_killed_writer_s_file_goes_on_to_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, count: int, step: int, kills: list[int], torn: bytes
) -> None:
    out, texts = tmp_path_factory.mktemp("begun") / "out.jsonl", rows(count)
    done = 0
    for kill in kills:
        with begun_file(out, OF) as begun:
            assert begun.rows == done
            with pytest.raises(Killed):
                begun.write(until(texts[begun.rows :], kill), step)
        done = min(done + kill, count) // step * step if kill else done
        assert not out.exists()
        with out.with_name(".out.jsonl.begun").open("ab") as file:  # a row that was cut off
            file.write(torn)
    assert go_on(out, texts, step) == count
    assert out.read_text() == "".join(texts)
    assert out.stat().st_mode & 0o777 == 0o600
    assert list(out.parent.iterdir()) == [out]


def begun_with(out: Path, count: int = 4) -> None:
    with pytest.raises(Killed), begun_file(out, OF) as begun:
        begun.write(until(rows(9), count), 2)


def test_what_was_begun_of_something_else_does_not_go_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    begun_with(out)
    for name, value in (("adapter", "b"), ("data", "e"), ("top", 3), ("more", 1)):
        with pytest.raises(UsageError, match=f"begun with another {name};"):
            go_on(out, rows(9), 2, {**OF, name: value})
    assert go_on(out, rows(9), 2) == 9


def test_what_was_changed_does_not_go_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    begun_with(out)
    begun, counted = tmp_path / ".out.begun", tmp_path / ".out.begun.json"
    whole = begun.read_bytes()
    begun.write_bytes(b"R" + whole[1:])
    with pytest.raises(BadFileError, match="was changed after it was written"):
        go_on(out, rows(9), 2)
    begun.write_bytes(whole[:-1])
    with pytest.raises(BadFileError, match="was changed after it was written"):
        go_on(out, rows(9), 2)
    begun.write_bytes(whole)
    for damage in (b"", b"{}", b"[]", b'{"version": 2, "rows": 0, "bytes": 0, "sha256": ""}'):
        kept = counted.read_bytes()
        counted.write_bytes(damage)
        with pytest.raises(BadFileError, match="damaged"):
            go_on(out, rows(9), 2)
        counted.write_bytes(kept)
    assert go_on(out, rows(9), 2) == 9


def test_a_first_step_that_was_cut_off_begins_again(tmp_path: Path) -> None:
    (tmp_path / ".out.begun").write_bytes(b"row 0\nro")
    (tmp_path / ".out.begun").chmod(0o600)
    assert go_on(tmp_path / "out", rows(3), 2) == 3
    assert (tmp_path / "out").read_text() == "".join(rows(3))


def test_what_was_counted_of_a_file_that_is_gone_is_old(tmp_path: Path) -> None:
    begun_with(tmp_path / "out")
    (tmp_path / ".out.begun").unlink()  # it got its name, and its writer was killed before the end
    assert go_on(tmp_path / "out", rows(3), 2, {"adapter": "other"}) == 3


def test_two_writers_and_planted_links_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with begun_file(out, OF), pytest.raises(UsageError, match="another process"):
        go_on(out, rows(1), 1)
    (tmp_path / ".out.begun").unlink()
    secret = tmp_path / "secret"
    secret.write_text("kept")
    (tmp_path / ".out.begun").symlink_to(secret)
    with pytest.raises(BadFileError):
        go_on(out, rows(1), 1)
    assert secret.read_text() == "kept"
    (tmp_path / ".out.begun").unlink()
    os.mkfifo(tmp_path / ".out.begun")
    with pytest.raises(CloisterError):
        go_on(out, rows(1), 1)
    with pytest.raises(BadFileError):
        go_on(tmp_path / "none" / "out", rows(1), 1)


def test_a_planted_file_is_not_written_into(tmp_path: Path) -> None:
    """Its owner would read the predictions; and what it is a link to would be cut off."""
    begun = tmp_path / ".out.begun"
    begun.touch(0o644)
    begun.chmod(0o644)
    with pytest.raises(BadFileError, match="others may use this file"):
        go_on(tmp_path / "out", rows(1), 1)
    begun.unlink()
    (tmp_path / "mine").write_text("kept")
    (tmp_path / "mine").chmod(0o600)
    os.link(tmp_path / "mine", begun)
    with pytest.raises(BadFileError, match="has another name too"):
        go_on(tmp_path / "out", rows(1), 1)
    assert (tmp_path / "mine").read_text() == "kept"
    begun.unlink()
    assert go_on(tmp_path / "out", rows(1), 1) == 1


def test_a_file_that_got_its_name_meanwhile_is_not_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun_with(tmp_path / "out")
    real = fcntl.flock

    def finished_by_another(file: int, how: int) -> None:
        (tmp_path / ".out.begun").rename(tmp_path / "out")
        (tmp_path / ".out.begun.json").unlink()
        real(file, how)

    monkeypatch.setattr("fcntl.flock", finished_by_another)
    with pytest.raises(BadFileError, match="has another name"):
        go_on(tmp_path / "out", rows(9), 2)
    assert (tmp_path / "out").read_text() == "".join(rows(4))


def test_the_lock_ends_with_the_writer(tmp_path: Path) -> None:
    begun_with(tmp_path / "out")
    with (tmp_path / ".out.begun").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_of_a_full_disk_is_said_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, texts = tmp_path / "out.jsonl", rows(4)

    def full(file: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("cloister.cli.begun_file.sync", full)
        with pytest.raises(BadFileError, match=r"No space left.*kept in \.out\.jsonl\.begun"):
            go_on(out, texts, 2)
    assert go_on(out, texts, 2) == 4
    assert out.read_text() == "".join(texts)
