"""A site's notes of refusals are bounded, and the first ones stay."""

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.cli.main import run
from cloister.deployment.site import refusals
from cloister.deployment.site.agent_folder import MOST_NOTED, AgentFolder
from cloister.deployment.site.refusals import FIRST, LAST, MOST_BYTES, MOST_LINE, MOST_WHY, Refusals
from cloister.errors import RefusedError
from tests.deployment.site.test_backup import make_site
from tests.support.examples import tries
from tests.support.power_cut import memory_folder

MOST_ROWS = FIRST + 2 * LAST


def flood(path: Path, count: int, text: str = "") -> Refusals:
    notes = Refusals(path)
    for number in range(count):
        notes.note(RefusedError(f"{number} {text}"), "s" * 64, number)
    return notes


def test_a_flood_neither_grows_the_file_nor_hides_its_beginning() -> None:
    """The last 200 were kept, so that 200 questions pushed out what came first, unsaid."""
    with memory_folder() as folder:
        count = 5 * MOST_ROWS
        notes = flood(folder / "refusals.jsonl", count)
        rows, dropped = notes.rows(), notes.dropped()
        assert len(rows) <= MOST_ROWS
        assert [row["round"] for row in rows[:FIRST]] == list(range(FIRST))
        assert [row["round"] for row in rows[FIRST:]] == list(
            range(count - len(rows) + FIRST, count)
        )
        assert len(rows) - FIRST >= LAST
        assert dropped is not None
        assert dropped.count + len(rows) == count
        assert dropped.first <= dropped.last <= rows[-1]["time"]


def test_all_are_kept_as_long_as_there_is_room(tmp_path: Path) -> None:
    notes = flood(tmp_path / "r", MOST_ROWS)
    assert [row["round"] for row in notes.rows()] == list(range(MOST_ROWS))
    assert notes.dropped() is None


@pytest.mark.parametrize("character", ["x", "\N{GRINNING FACE}", "\x00", '"', "\n"])
def test_a_line_is_bounded_whatever_its_text(tmp_path: Path, character: str) -> None:
    notes = Refusals(tmp_path / "r")
    kind = type("K" * 10_000, (RefusedError,), {})
    notes.note(kind(character * 10**6), character * 10**6, 10**5000)
    notes.note(kind(character * 10**6), character * 10**6, -(10**5000))
    lines = (tmp_path / "r").read_bytes().splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= MOST_LINE
    (row, _) = notes.rows()
    assert row["why"].startswith(character * MOST_WHY)
    assert row["why"].endswith(f"… and {10**6 - MOST_WHY:,} more characters")


def test_the_file_is_bounded_by_what_its_lines_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "FIRST", 3)
    monkeypatch.setattr(refusals, "LAST", 4)
    with memory_folder() as folder:
        for number in range(30):
            notes = flood(folder / "r", 1, f"{number}" + "\N{GRINNING FACE}" * 10**5)
            assert (folder / "r").stat().st_size <= (3 + 2 * 4 + 1) * MOST_LINE
        assert notes.rows()[0]["why"].startswith("0 0")
    assert MOST_BYTES < 2**24


def test_what_an_earlier_version_wrote_is_read_and_comes_within_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "r"
    row = {"time": "t", "study": "s", "round": 1, "kind": "RefusedError", "why": "x" * 200_000}
    path.write_text("".join(json.dumps(row | {"round": n}) + "\n" for n in range(200)))
    notes = Refusals(path)
    notes.note(RefusedError("new"), "s", 200)
    assert notes.rows()[-1]["why"] == "new"
    assert path.stat().st_size <= MOST_BYTES


def test_a_line_that_a_crash_cut_hides_no_other(tmp_path: Path) -> None:
    """One line that could not be read hid all others, and the next refusal wrote over them."""
    path = tmp_path / "r"
    notes = flood(path, 3)
    path.write_bytes(path.read_bytes()[:-10])
    notes.note(RefusedError("after"), "s", 9)
    assert [row["round"] for row in notes.rows()] == [0, 1, 9]


@settings(max_examples=tries(60), deadline=None)
@given(
    content=st.binary(max_size=300)
    | st.lists(
        st.sampled_from(
            [
                '{"dropped": 3, "first": "a", "last": "b"}',
                '{"dropped": "x"}',
                "[]",
                "null",
                "{}",
                '{"time": 1, "study": "", "round": 1, "kind": "", "why": ""}',
                "[" * 5000,
                "9" * 5000,
                '{"time": "", "study": "", "round": 1, "kind": "", "why": ""}',
            ]
        )
    ).map(lambda lines: "\n".join(lines).encode())
)
def test_a_file_of_anything_can_be_read_and_noted_to(content: bytes) -> None:
    with memory_folder() as folder:
        (folder / "r").write_bytes(content)
        notes = Refusals(folder / "r")
        before = notes.rows()
        notes.note(RefusedError("new"), "s", 1)
        assert notes.rows()[:-1] == before
        assert notes.rows()[-1]["why"] == "new"


def test_its_owner_alone_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = os.umask(0)
    try:
        notes = flood(tmp_path / "r", 1)
        assert stat.S_IMODE((tmp_path / "r").stat().st_mode) == 0o600
        monkeypatch.setattr(refusals, "FIRST", 1)
        monkeypatch.setattr(refusals, "LAST", 1)
        flood(tmp_path / "r", 5)
        assert stat.S_IMODE((tmp_path / "r").stat().st_mode) == 0o600
        assert notes.dropped()
    finally:
        os.umask(old)


def test_other_notes_that_quote_a_question_are_bounded_too(tmp_path: Path) -> None:
    """A question's study, a certificate's issuer: whatever somebody else chose the length of."""
    folder = AgentFolder(tmp_path)
    folder.own.mkdir()
    folder.note_activity({"doing": "training", "study": "s" * 10**6, "round": 1})
    folder.note_connection("issuer " * 10**6)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.json")) < 4 * MOST_NOTED
    assert folder.activity()["round"] == 1


def test_the_operator_is_told_how_many_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = make_site(tmp_path / "ward")
    monkeypatch.setattr(refusals, "FIRST", 1)
    monkeypatch.setattr(refusals, "LAST", 2)
    notes = AgentFolder.of(file)
    for number in range(9):
        notes.note_refusal(RefusedError("no"), "s", number)
    dropped = notes.refusals_dropped()
    assert dropped is not None
    assert run(["site", "status", str(file.path)]) == 0
    assert f"{dropped.count} refusals of {dropped.first} to" in capsys.readouterr().out
