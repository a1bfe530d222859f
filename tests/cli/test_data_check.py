"""`cloister data check` from a file to its table, its JSON and its exit code."""

import json
from pathlib import Path

import pytest

from cloister.cli.main import run


def test_the_columns_of_a_file_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "notes.csv"
    path.write_text("text,label\n头痛三天,head\n ,chest\n", encoding="utf-8")
    assert run(["data", "check", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 2
    assert [c["name"] for c in found["columns"]] == ["text", "label"]
    assert found["columns"][0]["kinds"] == {"text": 1, "empty text": 1}
    assert run(["data", "check", str(path)]) == 0
    assert "empty text 1" in capsys.readouterr().out


def test_a_missing_file_ends_with_its_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "check", str(tmp_path / "none.csv")]) == 3
    assert "no such file" in capsys.readouterr().err
