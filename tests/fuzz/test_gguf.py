"""Fuzzes a base that comes as a GGUF file: its header, and what is unpacked from it."""

import struct
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloister.models.gguf_header import GgufHeader, read_header
from cloister.models.unpacked import unpacked
from tests.support.fuzzing import fuzz, fuzz_slow, hostile_bytes, must_read
from tests.support.gguf_files import write_llama

ARCHITECTURE = struct.pack("<Q", 20) + b"general.architecture" + struct.pack("<IQ", 8, 5) + b"llama"


def header(tensors: int, values: int, rest: bytes, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, values) + rest


def value(key: bytes, kind: int, content: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + content


def tensor(name: bytes, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    return (
        struct.pack("<Q", len(name))
        + name
        + struct.pack("<I", len(shape))
        + sizes
        + struct.pack("<IQ", kind, offset)
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf") / "base.gguf"


def small() -> bytes:
    """A header of few bytes with a tensor, in which a changed byte means something."""
    values = ARCHITECTURE + value(b"tokenizer.ggml.scores", 9, struct.pack("<IQ2f", 6, 2, 1.0, 2.0))
    whole = header(1, 2, values + tensor(b"blk.0.attn_q.weight", (4, 2), 0, 0))
    return whole + bytes(-len(whole) % 32 + 32)


def test_a_sound_one_is_read(place: Path) -> None:
    place.write_bytes(small())
    found = must_read(lambda: read_header(place), place.stat().st_size)
    assert isinstance(found, GgufHeader)
    assert (found.architecture, found.elements) == ("llama", 8)


@fuzz
@given(hostile_bytes(small()))
@example(b"")
@example(b"GGUF")
@example(header(2**63, 0, b""))
@example(header(0, 2**64 - 1, b""))
@example(header(0, 1, value(b"a", 9, struct.pack("<IQ", 0, 2**63))))
@example(header(0, 1, value(b"a", 9, struct.pack("<IQ", 8, 2**40)) + bytes(8000)))
@example(header(0, 1, value(b"a", 9, struct.pack("<IQIQ", 9, 1, 9, 1)) * 50))
@example(header(0, 1, struct.pack("<Q", 2**64 - 1)))
@example(header(0, 1, value(b"\xff\x1b[2J", 8, struct.pack("<Q", 3) + b"\x1b[2")))
@example(header(0, 2, ARCHITECTURE * 2))
@example(header(1, 1, ARCHITECTURE + tensor(b"a", (2**63, 2**63), 0, 0)))
@example(header(1, 1, ARCHITECTURE + tensor(b"a", (0,), 0, 0)))
@example(header(1, 1, ARCHITECTURE + tensor(b"a", (4,), 0, 2**64 - 1)))
@example(header(1, 1, ARCHITECTURE + tensor(b"a", (1,) * 64, 0, 0)))
@example(header(1, 1, ARCHITECTURE + tensor(b"\x1b[2J\n", (4,), 99, 0)))
@example(
    header(2, 1, ARCHITECTURE + tensor(b"a", (8,), 0, 0) + tensor(b"b", (8,), 0, 4)) + bytes(99)
)
def test_headers(place: Path, content: bytes) -> None:
    place.write_bytes(content)
    must_read(lambda: read_header(place), len(content))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("sound") / "tiny.gguf"
    write_llama(file)
    return file.read_bytes()


@fuzz_slow
@given(st.data())
def test_files(place: Path, sound: bytes, data: st.DataObject) -> None:
    """Past the header, by transformers: what it raises becomes one refusal."""
    room = data.draw(st.sampled_from([300, 1200, len(sound)]))
    content = data.draw(hostile_bytes(sound[:room])) + sound[room:]
    place.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place.parent / "cache"))
        must_read(lambda: unpacked(place), len(content))
