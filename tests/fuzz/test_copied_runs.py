"""Fuzzes what is at the URL of a run: the manifest, as bytes and as structures, and its files."""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given
from hypothesis import strategies as st

from cloister.simulation.copies.fetching import fetch
from cloister.simulation.copies.manifest import MANIFEST, read_manifest
from cloister.simulation.copies.remote import RunUrl
from tests.support.copied_runs import at_url, copied, url_of
from tests.support.fuzzing import as_json, fuzz, fuzz_slow, hostile_bytes, must_read, odd


@cache
def sound() -> dict[str, bytes]:
    """What one closed round leaves at its URL."""
    with TemporaryDirectory() as folder:
        copied(Path(folder))
        return at_url(url_of(Path(folder)))


def manifest() -> bytes:
    return sound()[MANIFEST]


@fuzz
@given(st.deferred(lambda: hostile_bytes(manifest()) | odd.map(as_json)))
@example(b"[" * 50_000)
@example(b'{"format":1,"files":' + b'{"a":' * 5_000)
@example(b"[]," * 300_000)
def test_manifests(content: bytes) -> None:
    must_read(lambda: read_manifest(content, "memory://there"), len(content))


@fuzz
@given(
    st.deferred(lambda: st.sampled_from(sorted(json.loads(manifest())))),
    st.text(max_size=40) | st.sampled_from(["../x", "/x", "adapter/../x", "ledgers/a.ledger.key"]),
    odd,
)
def test_fields(name: str, path: str, value: object) -> None:
    document = json.loads(manifest())
    document[name] = value
    content = as_json(document)
    must_read(lambda: read_manifest(content, "memory://there"), len(content))
    document = json.loads(manifest())
    document["files"][path] = value
    content = as_json(document)
    must_read(lambda: read_manifest(content, "memory://there"), len(content))


@fuzz_slow
@given(
    st.deferred(lambda: st.sampled_from(sorted(sound()))).flatmap(
        lambda name: st.tuples(st.just(name), hostile_bytes(sound()[name]))
    )
)
def test_files(changed: tuple[str, bytes]) -> None:
    """Nothing is outside of the folder, and what is in it is of the manifest that was read."""
    name, content = changed
    with TemporaryDirectory() as made:
        place = Path(made)
        url = RunUrl.open(url_of(place))
        for path, held in {**sound(), name: content}.items():
            url.files.makedirs(url.path(path).rpartition("/")[0], exist_ok=True)
            url.files.pipe_file(url.path(path), held)
        size = sum(map(len, sound().values())) + len(content)
        found = must_read(lambda: fetch(url.given, place / "here"), size)
        assert {path.name for path in place.iterdir()} <= {"here"}
        assert (found is not None) == (place / "here").exists()
