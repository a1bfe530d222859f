"""A coordinator remembers the sites' ledger heads durably, across runs, never backwards."""

import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.errors import BadFileError
from cloister.server import ledger_heads as heads
from cloister.server.ledger_heads import LINE, Heads

EAST, WEST = "ab" * 32, "cd" * 32
HASHES = [f"{number:064x}" for number in range(1, 6)]


def test_the_newest_head_of_each_ledger_outlives_a_restart(tmp_path: Path) -> None:
    place = tmp_path / "heads"
    first = Heads(place)
    assert first.last(EAST) == ""
    for one in HASHES[:3]:
        first.add(EAST, one)
    first.add(WEST, HASHES[4])
    for held in (first, Heads(place)):
        assert (held.last(EAST), held.last(WEST)) == (HASHES[2], HASHES[4])
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in place.iterdir()} == {0o600}


@given(st.lists(st.sampled_from(HASHES)))
def test_what_comes_again_is_no_newer_for_it(
    tmp_path_factory: pytest.TempPathFactory, come: list[str]
) -> None:
    """A release that an older run is resumed for is sent again; the newest stays the newest."""
    place = tmp_path_factory.mktemp("heads")
    for one in come:
        Heads(place).add(EAST, one)
    assert Heads(place).last(EAST) == (list(dict.fromkeys(come)) or [""])[-1]


@settings(max_examples=30)
@given(st.integers(0, LINE - 1))
def test_a_line_that_a_crash_cut_off_was_never_written(
    tmp_path_factory: pytest.TempPathFactory, left: int
) -> None:
    place = tmp_path_factory.mktemp("heads")
    for one in HASHES[:2]:
        Heads(place).add(EAST, one)
    path = place / EAST
    path.write_bytes(path.read_bytes()[: LINE + left])
    again = Heads(place)
    assert again.last(EAST) == HASHES[0]
    again.add(EAST, HASHES[3])
    assert Heads(place).last(EAST) == HASHES[3]
    assert path.read_text() == f"{HASHES[0]}\n{HASHES[3]}\n"


@pytest.mark.parametrize("content", ["x" * LINE, "\n" * LINE, f"{'G' * 64}\n", "é" * 33])
def test_a_damaged_file_is_an_error_and_not_a_head(tmp_path: Path, content: str) -> None:
    (tmp_path / EAST).write_text(content)
    with pytest.raises(BadFileError, match="restore it from the coordinator's backup"):
        Heads(tmp_path).last(EAST)


@pytest.mark.parametrize("head", ["", "head", "ab" * 33, "AB" * 32, "ab" * 31 + "a\n"])
def test_what_is_no_hash_is_not_kept(tmp_path: Path, head: str) -> None:
    Heads(tmp_path / "heads").add(EAST, head)
    assert not (tmp_path / "heads").exists()


@pytest.mark.parametrize("ledger", ["", "../east", "AB" * 32])
def test_what_is_no_ledger_s_key_names_no_file(tmp_path: Path, ledger: str) -> None:
    with pytest.raises(BadFileError, match="not a ledger's public key"):
        Heads(tmp_path).last(ledger)


def test_a_head_that_cannot_be_written_is_not_held_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Heads(tmp_path)
    held.add(EAST, HASHES[0])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(heads.os, "fsync", full)
        with pytest.raises(BadFileError, match="free space"):
            held.add(EAST, HASHES[1])
    assert held.last(EAST) == HASHES[0]
    held.add(EAST, HASHES[2])
    assert Heads(tmp_path).last(EAST) == HASHES[2]
