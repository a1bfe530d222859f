"""A fetched run is whole and in its folder, or it is not there; whatever is at the URL."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cloister.errors import BadFileError, CloisterError, NetworkError, UsageError
from cloister.simulation.copies import fetching
from cloister.simulation.copies.fetching import fetch
from cloister.simulation.copies.files import COPIED, STAYS, is_copied, stays
from cloister.simulation.copies.manifest import MANIFEST, MOST_BYTES, MOST_FILES, read_manifest
from cloister.simulation.copies.remote import RunUrl
from tests.support.copied_runs import at_url, copied, url_of

Change = Callable[[dict[str, Any]], object]
ROW = [1, "0" * 64, 0]


def with_file(path: object, row: object = ROW) -> Change:
    return lambda document: document["files"].update({path: row})


HOSTILE: dict[str, Change] = {
    **{
        path: with_file(path)
        for path in (
            "../escaped",
            "adapter/../../escaped",
            "/etc/passwd",
            "adapter//x",
            "adapter/.hidden",
            "adapter/a\x1b[2J",
            "adapter/" + "x" * 201,
            "adapter\\x",
            "adapter",
            "copy.json",
            ".begun",
            "ledgers/east.ledger.key",
            "ledgers/east.ledger.units.key",
            "ledgers/east.personal/x.adapter",
            "data/train.jsonl",
            "twin/recipe.toml",
            "other/recipe.toml",
            "anything.py",
            "",
        )
    },
    "negative size": with_file("result.json", [-1, "0" * 64, 0]),
    "size of text": with_file("result.json", ["1", "0" * 64, 0]),
    "true size": with_file("result.json", [True, "0" * 64, 0]),
    "no hash": with_file("result.json", [1, "zz", 0]),
    "a third place": with_file("result.json", [1, "0" * 64, 2]),
    "no place": with_file("result.json", [1, "0" * 64]),
    "too many bytes": with_file("result.json", [MOST_BYTES + 1, "0" * 64, 0]),
    "another format": lambda document: document.update(format=2),
    "no files": lambda document: document.pop("files"),
    "files in a list": lambda document: document.update(files=[]),
    "a head outside": lambda document: document["heads"].update({"../x": [0, "0" * 64]}),
    "a head of text": lambda document: document["heads"].update(east="x"),
    "a round of text": lambda document: document.update(round="1"),
    "a writer with controls": lambda document: document.update(writer="\x1b[2J"),
    "a time with more": lambda document: document.update(written="2026-11-30T00:00:00Z; rm"),
    "too many files": lambda document: document.update(
        files={f"adapter/{n}": ROW for n in range(MOST_FILES + 1)}
    ),
}


class Place(NamedTuple):
    """A sound manifest, and a folder with a URL that has one."""

    folder: Path
    url: RunUrl
    content: bytes


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("hostile")
    copied(folder)
    return Place(folder, RunUrl.open(url_of(folder)), at_url(url_of(folder))[MANIFEST])


@pytest.mark.parametrize("change", HOSTILE.values(), ids=[repr(name)[:40] for name in HOSTILE])
def test_a_hostile_manifest_is_refused_in_one_message(place: Place, change: Change) -> None:
    document = json.loads(place.content)
    change(document)
    with pytest.raises(BadFileError, match=r"manifest\.json is damaged or no run's") as error:
        read_manifest(json.dumps(document).encode(), "memory://there")
    assert len(str(error.value)) < 400


def test_a_sound_manifest_is_read_as_it_was_written(place: Place) -> None:
    assert read_manifest(place.content, "there").to_bytes() == place.content


def refused(place: Place, folder: Path, match: str, kind: type[CloisterError]) -> None:
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(kind, match=match):
        fetch(place.url.given, folder)
    assert sorted(folder.parent.rglob("*")) == before


@pytest.mark.parametrize(
    "change",
    [lambda held: b"", lambda held: held + b"x", lambda held: b"x" + held[1:]],
    ids=["cut", "longer", "other"],
)
def test_a_file_that_is_not_the_manifest_s_leaves_nothing(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    _, copy = copied(tmp_path)
    recipe = copy.url.path("recipe.toml")
    copy.url.files.pipe_file(recipe, change(copy.url.files.cat_file(recipe)))
    made = Place(tmp_path, copy.url, b"")
    refused(made, tmp_path / "here", "not the file that the manifest names", BadFileError)


def test_a_missing_file_leaves_nothing(tmp_path: Path) -> None:
    _, copy = copied(tmp_path)
    copy.url.files.rm_file(copy.url.path("metrics.jsonl"))
    refused(Place(tmp_path, copy.url, b""), tmp_path / "here", "is missing there", BadFileError)


def test_a_link_at_a_shared_folder_is_not_followed(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/shared/run"
    _, copy = copied(tmp_path, url)
    metrics = tmp_path / "shared" / "run" / "metrics.jsonl"
    (tmp_path / "outside").write_bytes(metrics.read_bytes())  # of the very content
    metrics.unlink()
    metrics.symlink_to(tmp_path / "outside")
    refused(Place(tmp_path, copy.url, b""), tmp_path / "here", "is a link", BadFileError)
    metrics.unlink()
    os.mkfifo(metrics)
    refused(Place(tmp_path, copy.url, b""), tmp_path / "here", "not a file", BadFileError)


def test_a_line_that_breaks_leaves_nothing(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = type(place.url.files).open

    def broken(files: object, path: str, *given: object, **named: object) -> object:
        if path.endswith("recipe.toml"):
            raise RuntimeError("connection reset")
        return opened(files, path, *given, **named)

    monkeypatch.setattr(type(place.url.files), "open", broken)
    refused(place, tmp_path / "here", r"cannot be read \(connection reset\)", NetworkError)


def test_a_full_disk_is_known_before(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda folder: Usage(free=100))
    refused(place, tmp_path / "here", "has 100 free; make room", BadFileError)


def test_a_folder_with_something_in_it_is_left_alone(place: Place, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("years of work")
    refused(place, tmp_path / "taken", "exists already", UsageError)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    refused(place, tmp_path / "link", "exists already", UsageError)
    (tmp_path / "empty").mkdir()
    assert fetch(place.url.given, tmp_path / "empty").round == 1


def test_a_url_without_a_run_is_one_message(tmp_path: Path) -> None:
    url = RunUrl.open(url_of(tmp_path))
    refused(Place(tmp_path, url, b""), tmp_path / "here", "holds no run", BadFileError)


def test_no_pattern_is_of_both_kinds() -> None:
    paths = [pattern.replace("*", "x") for pattern in (*COPIED, *STAYS)]
    assert [path for path in paths if is_copied(path) == stays(path)] == []
