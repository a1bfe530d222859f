"""`cloister data clean` from the command line."""

import json
from pathlib import Path

import pytest

from cloister.cli.main import run


def test_a_table_is_cleaned_and_said_what_was_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "notes.csv", tmp_path / "notes.jsonl"
    source.write_text("note;ward;x\n<b>fever</b>;A;1\nfever;A;2\n", encoding="utf-8")
    arguments = ["data", "clean", str(source), "--out", str(out), "--text", "note"]
    assert run([*arguments, "--label", "ward", "--duplicates", "exact"]) == 0
    shown = capsys.readouterr().out
    for part in ("html", "1 of 2 rows", "left out: x", "couples units", "notes.jsonl.cleaning"):
        assert part in shown
    assert json.loads(out.read_text()) == {"text": "fever", "label": "A"}
    assert run([*arguments, "--json"]) == 2
    assert "not written over" in capsys.readouterr().err
    arguments[4] = str(tmp_path / "other.csv")
    assert run([*arguments, "--json", "--keep", "x"]) == 0
    assert json.loads(capsys.readouterr().out)["output"]["rows"] == 2
    assert (tmp_path / "other.csv").read_text() == "text,x\nfever,1\nfever,2\n"
