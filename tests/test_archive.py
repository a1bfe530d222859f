"""Archives round-trip, `tar` reads them, and no other file is ever written."""

import os
import stat
import subprocess
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.archive import MOST_MEMBERS, is_inner, opened_archive, write_archive
from cloister.errors import BadFileError
from tests.support.examples import tries
from tests.support.odd_paths import ODD_KINDS, odd_path
from tests.support.power_cut import memory_folder

PLAIN = st.text(min_size=1, max_size=60).filter(is_inner)
LONG = st.integers(90, 110).map(lambda count: "n" * count)  # where tar's own header is full
NAMES = PLAIN | LONG | st.tuples(PLAIN, LONG).map("/".join)


@settings(max_examples=tries(60), deadline=None)
@given(st.dictionaries(NAMES, st.binary(max_size=2000), max_size=5))
def test_what_goes_in_comes_out(contents: dict[str, bytes]) -> None:
    with memory_folder() as folder:
        files, places = {}, {}
        for number, (name, content) in enumerate(contents.items()):
            files[name] = folder / f"in{number}"
            files[name].write_bytes(content)
            places[name] = folder / f"out{number}"
        write_archive(folder / "a", {"x": [1, "ü"]}, files)
        assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o600
        with opened_archive(folder / "a") as archive:
            assert archive.about == {"x": [1, "ü"]}
            archive.unpack(places)
            assert {name: archive.read(name, 2000) for name in contents} == contents
        assert {name: place.read_bytes() for name, place in places.items()} == contents
        assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in places.values())


def test_tar_takes_it_apart_where_cloister_is_not_at_hand(tmp_path: Path) -> None:
    for name in ("a", "ü " + "x" * 150):
        (tmp_path / name).write_bytes(os.urandom(700))
    write_archive(tmp_path / "t.tar", {}, {f"f/{p.name}": p for p in tmp_path.iterdir()})
    subprocess.run(["tar", "xf", "t.tar"], cwd=tmp_path, check=True, capture_output=True)
    for path in (tmp_path / "f").iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "a//b", "..", "a/../b", ".a", "a/.b", "a\0", "a\nb", "a\\b", "x" * 201]
)
def test_names_that_lead_elsewhere_are_not_even_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(BadFileError, match="not a path inside"):
        write_archive(tmp_path / "a", {}, {name: tmp_path / "f"})
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"content")
    write_archive(tmp_path / "a", {}, {"f": tmp_path / "f"})
    with opened_archive(tmp_path / "a") as archive, pytest.raises(FileExistsError):
        archive.unpack({"f": tmp_path / "f"})


@pytest.mark.parametrize("kind", ODD_KINDS)
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    odd = odd_path(kind, tmp_path / "odd")
    with pytest.raises(BadFileError), opened_archive(odd):
        pass


def test_one_that_changes_after_it_was_checked_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"content" * 1000)
    write_archive(tmp_path / "a", {}, {"f": tmp_path / "f"})
    with opened_archive(tmp_path / "a") as archive:
        with (tmp_path / "a").open("r+b") as file:
            file.seek(-3000, os.SEEK_END)
            file.write(b"X")
        with pytest.raises(BadFileError, match="damaged"):
            archive.unpack({"f": tmp_path / "out"})


def test_memory_does_not_grow_with_what_is_in_it(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.truncate(2**26)  # 64 MiB
    tracemalloc.start()
    write_archive(tmp_path / "a", {}, {"f": tmp_path / "f"})
    with opened_archive(tmp_path / "a") as archive:
        archive.unpack({"f": tmp_path / "out"})
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**23  # a few chunks of 1 MiB
    assert (tmp_path / "out").stat().st_size == 2**26


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    files = {f"f{number}": tmp_path / "f" for number in range(MOST_MEMBERS + 1)}
    with pytest.raises(BadFileError):
        write_archive(tmp_path / "a", {}, files)
