"""A path is one file, never a pattern or a hub id, and the file is copied nowhere."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.data.records import TextRecord
from cloister.errors import DataError
from cloister.files import open_file
from tests.data.test_exactness import write
from tests.support.formats import FORMATS
from tests.support.odd_paths import ODD_KINDS, odd_path

NAMES = (
    "notes[1]",
    "a*b",
    "a?b",
    "{a,b}",
    "a b",
    "#1",
    "%41",
    "a::b",
    "zip:",
    "~x",
    "!x",
    "owner:c",
    "頭 é",
    "a'b\"c",
    "$HOME",
    "-r",
    "train",
    "a\\b",
    "hf:",
    "a.b.c",
)


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(path, [{"text": text, "label": "a"}])


def texts(source: str) -> list[str]:
    return [
        r.text for r in load(source, "train", "text", DataConfig()) if isinstance(r, TextRecord)
    ]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_the_file_of_that_name(
    tmp_path: Path, suffix: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("notes1", "aab", "axb", "a", "b", "A"):
        put(tmp_path / f"{other}{suffix}", "another")
    path = put(tmp_path / name / f"{name}{suffix}", "this")
    assert texts(str(path)) == ["this"]
    monkeypatch.chdir(path.parent)
    assert texts(path.name) == ["this"]
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        texts(str(path))


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_pattern_matches_nothing(tmp_path: Path, suffix: str) -> None:
    put(tmp_path / f"notes1{suffix}", "another")
    for pattern in ("*", "notes?", "notes[1]", "**/*", "{notes1,x}"):
        with pytest.raises(DataError, match="no such file"):
            texts(str(tmp_path / f"{pattern}{suffix}"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the hub's library, which must be nothing here."""
    asked: list[str] = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name, *_, **__: asked.append(name))
    return asked


@pytest.mark.parametrize("source", ["owner/name", "owner/name:config", "owner"])
def test_a_folder_called_like_a_data_set_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: list[str], source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "owner" / "name" / "train.jsonl", "private")
    with pytest.raises(DataError, match=r"^owner(/name)?: is a folder here; name a file in it"):
        texts(source)
    assert hub == []


@pytest.mark.parametrize(
    "source",
    [
        "json",
        "csv",
        "parquet",
        "text",
        "imagefolder",
        "a*b",
        "owner/*",
        "owner/name/more",
        "a b/c",
        "hf://datasets/a/b",
        "https://x.org/a",
        "owner/na\nme",
        "x" * 5000,
        "a/" + "b" * 300,
        "{a}",
        "#",
    ],
)
def test_what_the_hub_s_library_would_look_for_here_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: list[str], source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "train.jsonl", "private")
    with pytest.raises(DataError, match=r"no such file, and not the name of a data set on the hub"):
        texts(source)
    assert hub == []


@pytest.mark.parametrize("source", ["a\0b.jsonl", "~nobody-of-that-name/x.jsonl", "/" + "x" * 5000])
def test_a_name_that_no_file_has_is_no_such_file(source: str) -> None:
    with pytest.raises(DataError, match="no such file"):
        texts(source)


@pytest.mark.parametrize("kind", ODD_KINDS)
@pytest.mark.parametrize("name", ["data.jsonl", "data.parquet", "data"])
@pytest.mark.parametrize("link", [False, True])
def test_what_is_no_ordinary_file_is_called_what_it_is(
    tmp_path: Path, kind: str, name: str, link: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    odd = odd_path(kind, tmp_path / name)
    if link:
        odd = tmp_path / f"to-{name}"
        odd.symlink_to(name)
    for source in (str(odd), f"./{odd.name}", *([odd.name] * (kind != "folder"))):
        with pytest.raises(DataError, match=rf": {ODD_KINDS[kind]}; correct data\.train$"):
            texts(source)


def test_what_became_a_pipe_after_it_was_looked_at_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "data.jsonl")
    monkeypatch.setattr("cloister.files.why_no_file", lambda path: None)
    with pytest.raises(OSError, match="is a pipe, not a file"):
        open_file(tmp_path / "data.jsonl")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_may_not_be_opened_is_named(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / f"a{suffix}", "x")

    def refuse(opened: Any, *given: Any, **options: Any) -> int:
        if str(opened) == str(path):
            raise PermissionError(13, "Permission denied")
        return real(opened, *given, **options)

    real = os.open
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)$"):
        texts(str(path))


WATCH = """
import os, sys
made = []
def watch(event, given):
    if event in ("os.mkdir", "os.rename", "os.link", "os.symlink", "tempfile.mkstemp"):
        made.append((event, given))
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    if event == "open" and isinstance(given[2], int) and given[2] & writing:
        made.append((event, given))
from cloister.data.config import DataConfig
from cloister.data.load import load
columns = DataConfig()
load(sys.argv[1], "train", "text", columns)  # what Python itself writes when it first imports
sys.addaudithook(watch)
assert len(load(sys.argv[1], "train", "text", columns)) == 50
assert not made, made
assert "datasets" not in sys.modules
"""


@pytest.mark.parametrize("suffix", FORMATS)
def test_reading_a_file_writes_nothing_anywhere(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"train{suffix}", [{"text": "private", "label": "a"}] * 50)
    finished = subprocess.run(
        [sys.executable, "-c", WATCH, str(path)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
