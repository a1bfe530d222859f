"""Accepted feedback becomes records in its own unit, before the record that it corrects."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloister.data.config import DataConfig
from cloister.data.detected import detect_form
from cloister.data.load import load
from cloister.data.records import TextRecord
from cloister.data.step_log import couples_units, last_step
from cloister.errors import DataError, UsageError
from cloister.feedback.entries import Content, Feedback, ReviewState
from cloister.feedback.export import export_feedback

CONTENT = Content(
    kind="text",
    version="0123456789ab",
    asked="chest pain",
    answer={"label": "x"},
    is_right=False,
    correction={"label": "y"},
    unit="r3",
    person=None,
)
COLUMNS = DataConfig(text="note", label="ward", person="patient")


def kept(content: Content, status: ReviewState = ReviewState.ACCEPTED) -> Feedback:
    at = datetime(2026, 11, 29, tzinfo=UTC).isoformat()
    return Feedback("0", at, "desk", status, content)


def records(out: Path, columns: DataConfig = COLUMNS) -> list[TextRecord]:
    return [r for r in load(str(out), "train", "text", columns) if isinstance(r, TextRecord)]


@pytest.fixture
def before(tmp_path: Path) -> Path:
    file = tmp_path / "records.csv"
    file.write_text("note,ward,patient,cloister_unit\nchest pain,x,p1,r3\nno fever,x,p2,r4\n")
    return file


def test_a_correction_is_a_record_of_its_sources_unit_and_comes_first(
    before: Path, tmp_path: Path
) -> None:
    out = tmp_path / "more.jsonl"
    form = detect_form(before)
    found = [
        kept(CONTENT),
        kept(replace(CONTENT, unit=None, person="p2", asked="a cough")),
        kept(replace(CONTENT, asked="waits"), ReviewState.WAITING),
        kept(replace(CONTENT, asked="is wrong"), ReviewState.REJECTED),
        kept(replace(CONTENT, asked="quotes a leaflet", drew_on="documents")),
    ]
    report = export_feedback(found, out, replace(COLUMNS, person=None), records=form)
    read = records(out, replace(COLUMNS, person=None))
    assert [(one.text, one.label, one.unit) for one in read] == [
        ("chest pain", "y", "r3"),
        ("a cough", "y", "person:p2"),
        ("chest pain", "x", "r3"),
        ("no fever", "x", "r4"),
    ]
    assert (report.written, report.before, report.most_rows) == (2, 2, 2)
    assert report.unknown == 0
    assert report.left_out == {"its answer used private state without noise": 1}
    assert out.stat().st_mode & 0o777 == 0o600
    assert last_step(out)["command"] == "feedback"
    assert not couples_units(out)


def test_of_persons_a_correction_is_one_more_record_of_its_person(
    before: Path, tmp_path: Path
) -> None:
    out = tmp_path / "more.jsonl"
    found = [kept(replace(CONTENT, unit=None, person="p2")), kept(CONTENT)]
    report = export_feedback(found, out, COLUMNS, persons=True, records=detect_form(before))
    assert [one.person for one in records(out)] == ["p2", "p1", "p2"]
    assert report.left_out == {"it names no person, and the privacy unit is a person": 1}
    assert report.most_rows == 2


def test_corrections_alone_have_the_usual_names(tmp_path: Path) -> None:
    out = tmp_path / "more.jsonl"
    export_feedback([kept(CONTENT)], out, DataConfig())
    assert json.loads(out.read_text()) == {
        "text": "chest pain",
        "label": "y",
        "cloister_unit": "r3",
    }


def test_a_file_with_corrections_is_not_given_again(before: Path, tmp_path: Path) -> None:
    out = tmp_path / "more.jsonl"
    export_feedback([kept(CONTENT)], out, COLUMNS, records=detect_form(before))
    with pytest.raises(DataError, match="corrections already"):
        export_feedback([kept(CONTENT)], tmp_path / "n.jsonl", COLUMNS, records=detect_form(out))
    assert not (tmp_path / "n.jsonl").exists()


def test_nothing_is_written_where_nothing_can_be(before: Path, tmp_path: Path) -> None:
    out = tmp_path / "more.jsonl"
    cases = [
        ([], "no accepted feedback"),
        ([kept(CONTENT, ReviewState.WAITING)], "no accepted feedback"),
        ([kept(replace(CONTENT, drew_on="documents"))], "private state"),
        ([kept(CONTENT), kept(replace(CONTENT, kind="tokens"))], "several tasks"),
    ]
    for found, told in cases:
        if "several" in told:
            found[1] = kept(
                replace(CONTENT, kind="score", correction={"score": 1.0}, answer={"score": 2.0})
            )
        with pytest.raises(UsageError, match=told):
            export_feedback(found, out, COLUMNS, records=detect_form(before))
    with pytest.raises(UsageError, match=r"\.jsonl is needed"):
        export_feedback([kept(CONTENT)], tmp_path / "more.csv", COLUMNS)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["records.csv"]


def test_records_without_a_unit_stay_units_of_their_own(tmp_path: Path) -> None:
    plain, out = tmp_path / "plain.csv", tmp_path / "more.jsonl"
    plain.write_text("text,label\nno fever,x\na rash,y\n")
    found = [kept(CONTENT), kept(CONTENT), kept(replace(CONTENT, unit=None, person="p2"))]
    report = export_feedback(found, out, DataConfig(), records=detect_form(plain))
    assert report.unknown == 1  # r3 may be a row of it, which would then be two units
    assert report.to_json()["unknown_records"] == 1
    assert [one.unit for one in records(out, DataConfig())] == [
        "r3",
        "r3",
        "person:p2",
        None,
        None,
    ]
