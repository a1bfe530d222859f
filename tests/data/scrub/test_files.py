"""A scrubbed file has all columns, is complete or does not exist, and has a private log."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from cloister.cli.main import run
from cloister.data.clean.log import log_path
from cloister.data.clean.run import clean_file
from cloister.data.load import file_rows
from cloister.data.scrub.files import scrub_file
from cloister.data.scrub.person_names import name_finder
from cloister.data.scrub.spans import TYPES
from cloister.data.split.files import SplitPlan, split_file
from cloister.errors import BadFileError, DataError, UsageError

ROWS: list[dict[str, Any]] = [
    {
        "text": "王医生电话13812345678，病历号：20240015",
        "label": "心内科",
        "patient": "007",
        "n": "1",
    },
    {
        "text": "call (415) 555-2671, or 13912345678",
        "label": "cardiology",
        "patient": "8",
        "n": "2",
    },
    {"text": "again +86 138-1234-5678", "label": "心内科", "patient": "007", "n": "3"},
    {"text": "nothing here", "label": "cardiology", "patient": "8", "n": "4"},
]
TEXTS = [
    "王医生电话[PHONE_1]，病历号：[MRN_1]",
    "call [PHONE_1], or [PHONE_2]",
    "again [PHONE_1]",
    "nothing here",
]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [dict(row) for _, row in file_rows(path, "train", ("text", "label", "patient", "n"))]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_every_format_holds_the_same_rows(notes: Path, ending: str) -> None:
    out = notes.with_name(f"out{ending}")
    report = scrub_file(notes, out, unit="patient")
    assert rows(out) == [{**row, "text": text} for row, text in zip(ROWS, TEXTS, strict=True)]
    assert (report.rows, report.touched) == (4, 3)
    assert report.found == {"MRN": 1, "PHONE": 4}
    assert (report.scrubbed, report.copied) == (["text"], ["label", "patient", "n"])
    again = notes.with_name(f"again{ending}")
    assert scrub_file(out, again, unit="patient").touched == 0
    assert again.read_bytes() == out.read_bytes()


def test_the_log_tells_both_files_and_every_step_to_its_owner_alone(notes: Path) -> None:
    out, last = notes.with_name("out.csv"), notes.with_name("last.csv")
    scrub_file(notes, out, types=["phone"])
    scrub_file(out, last)
    log = json.loads(last.with_name("last.csv.log.json").read_text())
    first, second = log["steps"]
    assert first["settings"]["types"] == ["PHONE"]
    assert first["source"]["name"] == "notes.jsonl"
    assert first["output"]["sha256"] == second["source"]["sha256"]
    assert second["counts"]["found"] == {"MRN": 1}
    assert not second["couples_units"]
    for path in (out, last, last.with_name("last.csv.log.json")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_that_an_earlier_step_coupled_units_is_said_in_every_later_log(tmp_path: Path) -> None:
    source = tmp_path / "notes.jsonl"
    source.write_text('{"text": "a b c", "label": "x"}\n' * 2 + '{"text": "d", "label": "y"}\n')
    logs = []
    for command in (["clean", "--duplicates", "exact"], ["clean"]):
        clean, out = tmp_path / f"c{len(logs)}.jsonl", tmp_path / f"s{len(logs)}.jsonl"
        assert run(["data", *command, str(source), "--out", str(clean)]) == 0
        scrub_file(clean, out)
        logs.append(json.loads(out.with_name(out.name + ".log.json").read_text()))
    assert [log["couples_units"] for log in logs] == [True, False]
    assert [step["command"] for step in logs[0]["steps"]] == ["clean", "scrub"]
    assert "about the units of this file" in logs[0]["epsilon"]
    assert "epsilon" not in logs[1]
    with (tmp_path / "s1.jsonl").open("a") as file:  # its log is of another content now
        file.write('{"text": "e", "label": "y"}\n')
    scrub_file(tmp_path / "s1.jsonl", tmp_path / "last.csv")
    last = json.loads((tmp_path / "last.csv.log.json").read_text())
    assert (last["couples_units"], last["steps"][0]["command"]) == (True, "unknown")


def test_a_cleaning_says_that_a_step_before_it_coupled_units(tmp_path: Path) -> None:
    source, folder = tmp_path / "notes.jsonl", tmp_path / "split"
    rows = [{"text": f"note {n}", "label": "xy"[n % 2]} for n in range(20)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    split_file(source, folder, SplitPlan(by="label"))
    clean, again, last = (tmp_path / name for name in ("c.jsonl", "a.jsonl", "l.jsonl"))
    logs = [clean_file(folder / "train.jsonl", clean), clean_file(clean, again)]
    assert [log.couples_units for log in logs] == [True, True]
    told = json.loads(log_path(again).read_text())
    assert told["couples_units"] is True
    assert "about the units of this file" in told["epsilon"]
    assert [step["command"] for step in told["steps_before"]] == ["split", "clean"]
    scrub_file(again, last)
    log = json.loads(last.with_name("l.jsonl.log.json").read_text())
    assert log["couples_units"] is True
    assert [step["command"] for step in log["steps"]] == ["split", "clean", "clean", "scrub"]
    plain = clean_file(source, tmp_path / "plain.jsonl")
    assert not plain.couples_units
    assert "steps_before" not in plain.to_json()


def test_in_each_row_for_itself_without_a_unit_or_a_person(notes: Path) -> None:
    out = notes.with_name("out.jsonl")
    scrub_file(notes, out)
    assert rows(out)[2]["text"] == "again [PHONE_1]"
    nameless = notes.with_name("nameless.csv")
    nameless.write_text("text,p\n13812345678,\n13912345678,\n13912345678,1\n")
    scrub_file(nameless, notes.with_name("n.csv"), unit="p")
    assert [r["text"] for r in rows(notes.with_name("n.csv"))] == ["[PHONE_1]"] * 3


def test_a_text_column_that_only_a_later_row_has_is_scrubbed_too(tmp_path: Path) -> None:
    source, out = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    source.write_text('{"text": "x"}\n{"text": "y", "rejected": "a@b.com", "id": 1.50}\n')
    report = scrub_file(source, out)
    assert out.read_text() == '{"text": "x"}\n{"text": "y", "rejected": "[MAIL_1]", "id": 1.50}\n'
    assert (report.scrubbed, report.copied) == (["text", "rejected"], ["id"])


def test_nothing_is_written_over_and_nothing_half(notes: Path) -> None:
    out = notes.with_name("out.csv")
    for given, told in [
        ({"out": notes}, "exists already"),
        ({"out": notes.with_name("out.txt")}, "ends in .jsonl, .csv, .parquet"),
        ({"out": notes.parent / "no" / "out.csv"}, "make it first"),
        ({"unit": "nobody"}, "no column 'nobody'"),
        ({"columns": ["body"]}, "no column 'body'"),
        ({"columns": ["patient"], "unit": "patient"}, "is --unit too"),
        ({"types": ["fax"]}, "--type"),
    ]:
        with pytest.raises(UsageError, match=told):
            scrub_file(notes, **{"out": out, **given})  # type: ignore[arg-type]
    empty = notes.with_name("empty.csv")
    empty.write_text("text,label\n")
    with pytest.raises(DataError, match="no records"):
        scrub_file(empty, out)
    empty.unlink()
    with notes.open("a") as file:
        file.write("{broken")
    with pytest.raises(DataError, match="row 5"):
        scrub_file(notes, out)
    chats = notes.with_name("chats.jsonl")
    chats.write_text('{"messages": [{"role": "user", "content": "a@b.com"}]}\n')
    with pytest.raises(DataError, match="row 1: messages is a list, which CSV cannot hold"):
        scrub_file(chats, out)
    assert sorted(p.name for p in notes.parent.iterdir()) == ["chats.jsonl", "notes.jsonl"]


def test_a_file_that_is_written_meanwhile_is_refused(notes: Path) -> None:
    """Its log would name the hash, and the earlier steps, of what was not read."""
    lines = notes.read_text() * 600

    def written(_: int) -> None:
        notes.write_text(lines + lines)

    notes.write_text(lines)
    with pytest.raises(DataError, match="changed while it was read"):
        scrub_file(notes, notes.with_name("out.jsonl"), progress=written)
    assert [path.name for path in notes.parent.iterdir()] == ["notes.jsonl"]


def test_columns_of_other_values_keep_them_or_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    source, out = tmp_path / "a.parquet", tmp_path / "b.parquet"
    table = {"text": ["a@b.com", None], "n": [1, 2], "words": [["a", "b"], None]}
    pq.write_table(pa.table(table), source)
    scrub_file(source, out, columns=["text", "words"])
    assert pq.read_table(out).to_pydict() == {**table, "text": ["[MAIL_1]", None]}
    table["seen"] = [1.5, float("nan")]  # type: ignore[list-item]
    pq.write_table(pa.table(table), source)
    with pytest.raises(DataError, match="row 2: seen is double"):
        scrub_file(source, tmp_path / "c.parquet")


def test_a_chinese_file_in_gb18030_with_semicolons_is_scrubbed_into_utf_8(tmp_path: Path) -> None:
    source, out = tmp_path / "a.csv", tmp_path / "b.csv"
    text = "text;label\n很好吃，我的电话是13812345678；下次还来的;好\n送餐太慢了，不会再来了;差\n"
    source.write_bytes(text.encode("gb18030"))
    scrub_file(source, out)
    assert out.read_text().splitlines() == [
        "text,label",
        "很好吃，我的电话是[PHONE_1]；下次还来的,好",
        "送餐太慢了，不会再来了,差",
    ]


def test_the_command_prints_recall_and_precision_on_marked_texts(
    notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marked, out = notes.with_name("marked.jsonl"), notes.with_name("out.jsonl")
    spans = [
        {"start": 0, "end": 3, "type": "NAME"},
        {"start": 5, "end": 16, "type": "phone"},
    ]
    marked.write_text(json.dumps({"text": "王医生电话13812345678", "spans": spans}))
    given = ["data", "scrub", str(notes), "--unit", "patient", "--marked", str(marked)]
    assert run([*given, "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["marked"]["PHONE"]["recall"] == 1
    assert found["marked"]["NAME"]["recall"] == 0
    assert found["rows_touched"] == 3
    assert run([*given, "--out", str(notes.with_name("o.csv"))]) == 0
    shown = capsys.readouterr().out
    assert "3 of 4 rows changed" in shown
    assert "columns copied unchanged: label, patient, n" in shown
    assert run([*given, "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ('{"spans": []}', "no text"),
        ('{"text": "a"}', "no list of spans"),
        ('{"text": "a", "spans": [1]}', "span 1 needs start"),
        ('{"text": "a", "spans": [{"start": 0, "end": 2, "type": "X"}]}', "from 0 to 1"),
        ('{"text": "a", "spans": [{"start": 0.5, "end": 1, "type": "X"}]}', "span 1 needs start"),
    ],
)
def test_a_marked_row_that_cannot_be_meant_is_refused(notes: Path, row: str, told: str) -> None:
    marked = notes.with_name("marked.jsonl")
    marked.write_text(row)
    with pytest.raises(DataError, match=f"row 1: .*{told}"):
        scrub_file(notes, notes.with_name("out.csv"), marked=marked)


def test_without_the_extra_names_are_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "presidio_analyzer", None)
    out = notes.with_name("out.csv")
    assert run(["data", "scrub", str(notes), "--out", str(out), "--names", "en_core_web_sm"]) == 2
    assert "pip install 'cloister[names]'" in capsys.readouterr().err
    assert not out.exists()


def test_names_are_found_without_the_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a model that this test makes itself: one name, by spaCy's entity ruler."""
    pytest.importorskip("presidio_analyzer", reason="the extra names is not installed")
    spacy = pytest.importorskip("spacy")
    monkeypatch.setattr("socket.getaddrinfo", None)  # a look-up would fail
    monkeypatch.setattr("socket.socket.connect", None)
    with pytest.raises(BadFileError, match="not a spaCy model on this machine"):
        name_finder(str(tmp_path / "none"))
    model = spacy.blank("en")
    model.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Ann Lee"}])
    model.to_disk(tmp_path / "model")
    source, out = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    source.write_text('{"text": "Ann Lee, ann@b.com"}\n')
    report = scrub_file(source, out, names=name_finder(str(tmp_path / "model")))
    assert out.read_text() == '{"text": "[NAME_1], [MAIL_1]"}\n'
    assert report.found == {"MAIL": 1, "NAME": 1}
    assert set(report.found) <= set(TYPES)
