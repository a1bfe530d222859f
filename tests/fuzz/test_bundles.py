"""Fuzzes bundles with both verifiers: archives and their content."""

import io
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloister.canonical import canonical
from cloister.evidence.bundle import read_bundle, write_bundle
from cloister.evidence.verification import examine
from tests.support.evidence import ADAPTER, bundle_of, keys_of
from tests.support.fuzzing import as_json, fuzz_slow, hostile_bytes, must_account, odd
from tests.tools.test_independent_verifier import independent

SITE = "sites/site-0.json"


@cache
def members() -> dict[str, bytes]:
    """A sound bundle of one site, by name."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bundle.zip"
        write_bundle(path, bundle_of(1, 1))
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


def packed(contents: list[tuple[zipfile.ZipInfo | str, bytes]], compression: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in contents:
            archive.writestr(name, content)
    return buffer.getvalue()


@cache
def sound() -> bytes:
    return packed(list(members().items()))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    (folder / "keys.json").write_bytes(canonical(keys_of(1)))
    # Both keep what they computed of the sound one; while memory is traced that takes ten times as
    # long, and its memory is the accountants', whatever the bundle is.
    (folder / "sound.zip").write_bytes(sound())
    examine(read_bundle(folder / "sound.zip"), keys_of(1))
    assert independent()([str(folder / "sound.zip"), str(folder / "keys.json")]) == 0
    return folder


def verified(place: Path, content: bytes) -> tuple[bool, bool]:
    """Whether our verifier takes it, and whether the independent one does."""
    path = place / "bundle.zip"
    path.write_bytes(content)
    size = len(content)
    ours = must_account(lambda: examine(read_bundle(path), keys_of(1)), size)
    theirs = must_account(lambda: independent()([str(path), str(place / "keys.json")]), size)
    assert theirs in (0, 1)
    return ours is not None, theirs == 0


def test_a_sound_one_is_taken(place: Path) -> None:
    assert verified(place, sound()) == (True, True)


@fuzz_slow
@given(st.deferred(lambda: hostile_bytes(sound())))
def test_bytes(place: Path, content: bytes) -> None:
    verified(place, content)


@fuzz_slow
@given(
    st.deferred(lambda: st.sampled_from(sorted(members()))).flatmap(
        lambda name: st.tuples(st.just(name), hostile_bytes(members()[name]) | odd.map(as_json))
    )
)
@example((SITE, b"[" * 50_000))
@example((SITE, b"[]," * 300_000))
@example((SITE, b'{"certificate":' + b'{"a":' * 5000))
@example(("received.json", b"[]," * 300_000))
@example(("received.json", b"[[" + b"9" * 5000 + b"]]"))
@example(("adapter/cloister.json", b"[" * 100_000))
@example(("adapter/cloister.json", b'{"model":[]}'))
def test_members(place: Path, changed: tuple[str, bytes]) -> None:
    name, content = changed
    verified(place, packed(list({**members(), name: content}.items())))


def overlapping(copies: int) -> bytes:
    """Every record of the directory names the same bytes, under a name of its own."""
    data = b"\0" * 1_000_000
    one = packed([("adapter/00000", data)])
    start = one.index(b"PK\x01\x02")
    record = one[start : one.index(b"PK\x05\x06")]
    records = b"".join(record.replace(b"00000", f"{n:05d}".encode()) for n in range(copies))
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, copies, copies, len(records), start, 0)
    return one[:start] + records + end


def with_attributes(mode: int) -> bytes:
    info = zipfile.ZipInfo("adapter/link")
    info.external_attr = mode << 16
    return packed([*members().items(), (info, b"/etc/passwd")])


NOT_SOUND: dict[str, Callable[[], bytes]] = {
    "members that share their bytes": lambda: overlapping(1500),
    "more members than a bundle has": lambda: packed(
        [(f"adapter/{n}", b"") for n in range(12_000)]
    ),
    "compressed": lambda: packed(list(members().items()), zipfile.ZIP_DEFLATED),
    "a bomb": lambda: packed(
        [*members().items(), ("adapter/b", b"\0" * 10_000_000)], zipfile.ZIP_DEFLATED
    ),
    "a link": lambda: with_attributes(0o120777),
    "a device": lambda: with_attributes(0o020666),
    "an absolute path": lambda: packed([*members().items(), ("/etc/passwd", b"x")]),
    "a way out": lambda: packed([*members().items(), ("adapter/../../x", b"x")]),
    "a folder": lambda: packed([*members().items(), ("adapter/", b"")]),
    "a hidden file": lambda: packed([*members().items(), ("adapter/.x", b"x")]),
    "a name with an escape": lambda: packed([*members().items(), ("adapter/\x1b[2J", b"x")]),
    "something before it": lambda: b"#!/bin/sh\n" + packed(list(members().items())),
    "something after it": lambda: packed(list(members().items())) + b"x",
    "an empty archive": lambda: packed([]),
    "nothing": lambda: b"",
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("made", NOT_SOUND.values(), ids=NOT_SOUND.keys())
def test_archives_that_no_bundle_is(place: Path, made: Callable[[], bytes]) -> None:
    assert verified(place, made()) == (False, False)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice(place: Path) -> None:
    assert verified(place, packed([*members().items(), (SITE, b"{}")])) == (False, False)


def test_a_large_adapter_is_read_in_pieces(place: Path) -> None:
    """Of 64 MB no more than a few megabytes are held at once; the hash is the file's."""
    import tracemalloc

    path = place / "large.zip"
    weights = bytes(64_000_000)
    write_bundle(path, bundle_of(1, 1))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("adapter/large.safetensors", weights)
    del weights
    tracemalloc.start()
    try:
        found = read_bundle(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert set(found.adapter) == {*ADAPTER, "large.safetensors"}
    assert peak < 8_000_000


def any_rows() -> st.SearchStrategy[Any]:
    row = st.lists(odd, max_size=6) | odd
    return st.lists(row, max_size=5)


@fuzz_slow
@given(any_rows())
def test_what_the_coordinator_received(place: Path, rows: Any) -> None:
    try:
        content = canonical(rows)
    except ValueError:
        content = as_json(rows)
    verified(place, packed(list({**members(), "received.json": content}.items())))
