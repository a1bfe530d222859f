"""`cloister data clean` from the command line."""

import json
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.data.records import ScoreRecord, TextRecord
from cloister.recipe import read_recipe


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
    assert "not overwritten" in capsys.readouterr().err
    arguments[4] = str(tmp_path / "other.csv")
    assert run([*arguments, "--json", "--keep", "x"]) == 0
    assert json.loads(capsys.readouterr().out)["output"]["rows"] == 2
    assert (tmp_path / "other.csv").read_text() == "text,x\nfever,1\nfever,2\n"


def test_from_a_messy_chinese_table_to_a_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands that docs/preparing-data.md shows, on a table in GB18030 with semicolons."""
    monkeypatch.chdir(tmp_path)
    wards = ("内科", "神经科")
    rows = [f"病人说这几天头痛得很厉害，第{n}次来。<br>;{wards[n % 2]};{n}" for n in range(9)]
    table = "\r\n".join(["主诉;科室;病人", *rows, rows[0], ""])
    (tmp_path / "notes.csv").write_bytes(table.encode("gb18030"))
    columns = ["--text", "主诉", "--label", "科室", "--person", "病人"]
    assert run(["data", "check", "notes.csv", *columns, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["duplicates"]["exact"] == 1
    assert run(["data", "clean", "notes.csv", "--out", "notes.jsonl", *columns]) == 0
    assert run(["new", "--data", "notes.jsonl", "--out", "study.toml"]) == 0
    recipe = read_recipe(tmp_path / "study.toml", ["data.test='test.jsonl'"])
    assert (recipe.data.text, recipe.data.label, recipe.data.person) == ("text", "label", "person")
    records = load("notes.jsonl", "train", "text", recipe.data)
    assert len(records) == 10
    assert records[0] == TextRecord("病人说这几天头痛得很厉害，第0次来。", "内科", None, "0")


def test_essays_of_one_prompt_are_taken_out_of_a_file_like_asaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of docs/tasks.md: tabs, Windows-1252, quotes that are doubled, empty cells."""
    monkeypatch.chdir(tmp_path)
    lines = ["essay_id\tessay_set\tessay\trater1_domain1\tdomain1_score"]
    lines += [f'{n}\t{1 + n % 2}\t"Café “{n}”, @CAPS1 ""so""."\t\t{n % 6}' for n in range(40)]
    (tmp_path / "training_set_rel3.tsv").write_bytes("\r\n".join([*lines, ""]).encode("cp1252"))
    columns = ["--text", "essay", "--score", "domain1_score", "--keep", "essay_set"]
    clean = ["data", "clean", "training_set_rel3.tsv", "--out", "essays.jsonl"]
    assert run([*clean, *columns]) == 0
    split = ["data", "split", "essays.jsonl", "--by", "site", "--column", "essay_set"]
    assert run([*split, "--test-site", "1", "--out", "prompts"]) == 0
    records = load("prompts/test.jsonl", "train", "score", DataConfig())
    assert records == [ScoreRecord(f'Café “{n}”, @CAPS1 "so".', n % 6) for n in range(0, 40, 2)]
