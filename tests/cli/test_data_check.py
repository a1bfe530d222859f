"""`cloister data check` prints a table, writes JSON and a page, and sets its exit code."""

import json
import stat
from pathlib import Path

import pytest

from cloister.cli.main import run

ROWS = "text;label;patient\n病人说这几天头痛得很厉害，吃了药也没有好。;头痛;1\n ;胸痛;1\n"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes.csv").write_bytes(ROWS.encode("gb18030"))
    return tmp_path / "notes.csv"


def test_a_chinese_table_is_told_as_text_and_as_json(
    notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = notes.with_name("page.html")
    assert run(["data", "check", str(notes), "--person", "patient", "--page", str(page)]) == 0
    shown = capsys.readouterr().out
    for part in ("GB18030", "semicolons", "2 rows", "label = label (guessed)", "empty-text", "zh"):
        assert part in shown
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert run(["data", "check", str(notes), "--text", "text", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["file"]["encoding"] == "gb18030"
    assert found["file"]["separator"] == ";"
    assert found["findings"][0]["code"] == "empty-text"
    assert found["rows"] == 2


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--text", "no"], 2, "no such column"),
        (["--max-length", "5"], 2, "give --base too"),
        (["--separator", "comma"], 3, "its header is one column"),
        (["--encoding", "utf-8"], 3, "line 2"),
    ],
)
def test_what_cannot_be_done_is_one_message(
    notes: Path,
    options: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["data", "check", str(notes), *options]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_a_missing_file_ends_with_its_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "check", str(tmp_path / "none.csv")]) == 3
    assert "no such file" in capsys.readouterr().err
