"""Sources give every line once, over rotation, emptying and restarts."""

import io
from io import BufferedReader
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.errors import BadFileError
from cloister.watching.file_tail import FileTail
from cloister.watching.listening import PostedRows, make_app
from cloister.watching.parsing import MOST_LINE
from cloister.watching.pipe import Pipe
from cloister.watching.shown import Shown
from cloister.watching.source import Mark
from tests.support.examples import tries
from tests.support.web import cut_off


def tail(path: Path, mark: Mark | None = None, *, follow: bool = True) -> FileTail:
    return FileTail(path, mark, follow=follow, sleep=lambda seconds: None)


def texts(source: FileTail) -> tuple[list[bytes | None], list[str], Mark | None]:
    """All that is there now, what is said, and the mark after it."""
    lines: list[bytes | None] = []
    notices: list[str] = []
    mark = None
    while True:
        batch = source.read(0.0)
        lines += [line for _, line in batch.lines]
        notices += batch.notices
        mark = batch.mark
        if not batch.lines and not batch.notices:
            return lines, notices, mark


def add(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_a_line_is_given_when_its_end_comes(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    source = tail(path)
    lines, notices, _ = texts(source)  # it is not there yet, which is said once
    assert (lines, len(notices)) == ([], 1)
    assert f"{path}: no such file yet" in notices[0]
    assert "correct source.file" in notices[0]
    assert texts(source)[:2] == ([], [])
    add(path, "a\nb")
    assert texts(source)[0] == [b"a"]
    add(path, "c\n\nd\n")
    assert texts(source)[0] == [b"bc", b"d"]
    source.close()


@settings(max_examples=tries(160), deadline=None)
@given(st.lists(st.sampled_from(["x\n", "yy\n", "\n", "z", "rotate", "restart"]), max_size=25))
def test_every_line_is_given_once_over_rotations_and_restarts(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("tail")
    path, found, mark = folder / "s.jsonl", list[bytes | None](), None
    source, written, rotations = tail(path), "", 0
    for step in steps:
        if step == "restart":
            new, _, mark = texts(source)
            found += new
            source.close()
            source = tail(path, mark)
        elif step == "rotate":
            new, _, mark = texts(source)
            found += new
            if path.exists():
                rotations += 1
                path.rename(folder / f"s.jsonl.{rotations}")
                path.touch()
                written += "\n"  # what has no end when its file is left ends there
        else:
            add(path, step)
            written += step
    found += texts(source)[0]
    source.close()
    rest = written.rpartition("\n")[0]
    assert b"\n".join(one or b"" for one in found) == b"\n".join(
        one for one in rest.encode().split(b"\n") if one
    )


def test_a_rotated_file_is_read_to_its_end_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    add(path, "a\n")
    source = tail(path)
    _, _, mark = texts(source)
    source.close()
    add(path, "b\n")
    path.rename(tmp_path / "s.jsonl.1")
    add(path, "c\n")
    source = tail(path, mark)
    assert texts(source)[0] == [b"b", b"c"]
    source.close()


def test_a_line_that_comes_just_before_the_file_is_renamed_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last look at the old file, and before the name is looked at."""
    path = tmp_path / "s.jsonl"
    add(path, "a\n")
    source = tail(path)
    assert texts(source)[0] == [b"a"]
    looked = FileTail._is_same

    def late(self: FileTail, file: BufferedReader, mark: Mark) -> bool:
        monkeypatch.undo()
        add(path, "b\n")
        path.rename(tmp_path / "s.jsonl.1")
        add(path, "c\n")
        return looked(self, file, mark)

    monkeypatch.setattr(FileTail, "_is_same", late)
    assert texts(source)[0] == [b"b", b"c"]
    source.close()


def test_an_emptied_file_is_read_from_its_beginning_and_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    add(path, "first\nsecond\n")
    source = tail(path)
    _, _, mark = texts(source)
    path.write_text("new\n")
    lines, notices, _ = texts(source)
    assert (lines, len(notices)) == ([b"new"], 1)
    # The same while nobody looked, and refilled beyond where it was read.
    path.write_text("another line\nand another\n")
    again = tail(path, mark)
    lines, notices, _ = texts(again)
    assert lines == [b"another line", b"and another"]
    assert "emptied" in notices[0]
    for one in (source, again):
        one.close()


def test_a_file_that_is_gone_is_said(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    add(path, "a\n")
    source = tail(path)
    _, _, mark = texts(source)
    source.close()
    keep = tmp_path / "other"
    keep.touch()  # so that the inode is not given out again
    keep.replace(path)
    add(path, "b\n")
    source = tail(path, mark)
    lines, notices, _ = texts(source)
    assert lines == [b"b"]
    assert "another file than before" in notices[0]
    source.close()


def test_a_line_without_end_takes_no_memory_and_is_one_refused_line(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    with path.open("wb") as file:
        file.write(b"a\n")
        for _ in range(5):
            file.write(b"x" * MOST_LINE)
        file.write(b"\nb\n")
    source = tail(path)
    assert texts(source)[0] == [b"a", None, b"b"]
    source.close()


def test_a_restart_in_the_middle_of_a_long_line_skips_its_rest(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(b"x" * (3 * MOST_LINE))
    source = tail(path)
    _, _, mark = texts(source)
    source.close()
    add(path, "yyy\nb\n")
    source = tail(path, mark)
    assert texts(source)[0] == [None, b"b"]
    source.close()


def test_once_ends_at_the_end_and_needs_the_file(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    with pytest.raises(BadFileError, match="no such file"):
        tail(path, follow=False).read(0.0)
    add(path, "a\n")
    source = tail(path, follow=False)
    assert [line for _, line in source.read(0.0).lines] == [b"a"]
    assert source.read(0.0).ended
    source.close()
    with pytest.raises(BadFileError, match="a folder"):
        tail(tmp_path, follow=False).read(0.0)


def test_a_pipe_gives_lines_until_it_ends() -> None:
    long = b"x" * (2 * MOST_LINE)
    pipe = Pipe(io.BytesIO(b"a\n\n" + long + b"\nb\n" + long))
    lines: list[tuple[int, bytes | None]] = []
    while True:
        batch = pipe.read(5.0)
        lines += batch.lines
        if batch.ended:
            break
    assert lines == [(1, b"a"), (3, None), (4, b"b"), (5, None)]


def test_a_pipe_that_breaks_is_not_taken_for_one_that_ends() -> None:
    class Breaking(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            line = super().readline(size)
            if not line:
                raise OSError(5, "Input/output error")
            return line

    pipe = Pipe(Breaking(b"a\nb\n"))
    lines: list[tuple[int, bytes | None]] = []
    while len(lines) < 2:
        batch = pipe.read(5.0)
        lines += batch.lines
        assert not batch.ended
    with pytest.raises(BadFileError, match="Input/output error"):
        pipe.read(5.0)
    assert lines == [(1, b"a"), (2, b"b")]


def test_a_post_that_is_cut_off_is_one_notice_and_no_error() -> None:
    rows = PostedRows()
    assert cut_off(make_app(Shown(), rows), "/v1/predictions") == 499
    batch = rows.read(0.0)
    assert batch.lines == ()
    assert batch.notices == (
        "a POST was cut off before the end of its body; none of its rows was taken",
    )
    assert rows.read(0.0).notices == ()
