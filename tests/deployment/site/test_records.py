"""A site reads its records row by row as it declared them, and serves what it read."""

import hashlib
import json
import os
import re
from pathlib import Path

import pytest

from cloister.client.declared_records import RecordsConfig
from cloister.client.site_file import SiteFile, read_site
from cloister.client.stamp import ContentStamp
from cloister.data.records import TextRecord
from cloister.data.step_log import log_of
from cloister.data.unit_column import UNIT
from cloister.deployment.site import read_apart as apart
from cloister.deployment.site.doctor_data import describe
from cloister.deployment.site.read_apart import main, read_apart
from cloister.deployment.site.records import (
    NOT_LISTED,
    UNDECLARED,
    RecordSource,
    read_records,
)
from cloister.errors import DataError, RecipeError, UsageError
from cloister.privacy.units import Unit
from cloister.tasks.build import build_task
from cloister.tasks.config import TaskConfig
from cloister.training.units import encode_units
from tests.support import worker_forks
from tests.support.models import word_tokenizer
from tests.support.odd_paths import ODD_KINDS, odd_path

SITE = """
[site]
name = "ward"
data = "records.jsonl"
public_records = 9
ledger = "ward.ledger"
[records]
task = "{task}"
labels = {labels}
[budget]
epsilon = 8.0
delta = 1e-5
[privacy]
person = "person"
[accept]
tasks = ["sequence-classification"]
base_sha256 = ["{base}"]
"""
GOOD = [{"text": f"chest pain {n}", "label": "a", "person": f"p{n}"} for n in range(4)]


def site(folder: Path, rows: list[object], task: str = "sequence-classification") -> SiteFile:
    path = folder / "site.toml"
    labels = [] if task == "causal-lm" else ["a", "b"]
    path.write_text(SITE.format(task=task, labels=json.dumps(labels), base="ab" * 32))
    text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)
    (folder / "records.jsonl").write_text(text)
    return read_site(path)


def test_a_row_with_an_item_that_the_site_does_not_declare_is_left_out(tmp_path: Path) -> None:
    rows = [{"items": ["x", "y"]}, {"items": ["x", "z"]}, {"items": "y x"}]
    file = site(tmp_path, list(rows))
    text = file.path.read_text().replace("sequence-classification", "recommendation", 1)
    text = text.replace('labels = ["a", "b"]', 'items = "i.csv"')
    file.path.write_text(text.replace('person = "person"', ""))
    (tmp_path / "i.csv").write_text("item,text\nx,one\ny,two\n")
    found = read_records(read_site(file.path))
    assert (found.rows, list(found.reasons)) == ((1, 3), [NOT_LISTED])
    (tmp_path / "i.csv").unlink()
    with pytest.raises(DataError, match=r"records\.items: .*no such file"):
        read_records(read_site(file.path))


def test_a_file_whose_units_were_coupled_is_read_once_site_toml_says_so(tmp_path: Path) -> None:
    """What is charged as coupled follows from the declaration alone, never from a record."""
    file = site(tmp_path, GOOD)
    log = log_of(file.data)
    digest = hashlib.sha256(file.data.read_bytes()).hexdigest()
    step = {"command": "split", "output": {"sha256": digest}}
    for couples, sha256 in ((True, digest), (False, "0" * 64)):  # coupled; of another content
        last = step | {"couples_units": couples, "output": {"sha256": sha256}}
        log.write_text(json.dumps({"format": "cloister-data-log/1", "steps": [last]}))
        with pytest.raises(DataError, match=r"set site\.couples_units = true in site\.toml"):
            read_records(file)
        declared = tmp_path / "declared.toml"
        declared.write_text(
            file.path.read_text().replace("[records]", "couples_units = true\n[records]")
        )
        assert len(read_records(read_site(declared)).records) == len(GOOD)
    log.write_text(json.dumps({"format": "cloister-data-log/1", "steps": [step]}))
    assert len(read_records(file).records) == len(GOOD)


def test_copies_are_counted_with_their_record_and_must_be_its_person_s(tmp_path: Path) -> None:
    rows = [{**row, UNIT: f"u{n // 2}"} for n, row in enumerate(GOOD)]
    same = [{**row, "person": "p"} for row in rows]
    counts, findings = describe(site(tmp_path, same), read_records(site(tmp_path, same)))
    assert counts.startswith("2 records (privacy units) in 4 rows, copies among them")
    assert not [finding for finding in findings if UNIT in finding.note]
    _, findings = describe(site(tmp_path, rows), read_records(site(tmp_path, rows)))
    (crossed,) = [finding for finding in findings if UNIT in finding.note]
    assert crossed.note == f"the rows of 2 records ({UNIT}) name several persons"


def test_a_row_of_a_file_with_copies_that_lost_its_unit_does_not_fit(tmp_path: Path) -> None:
    file = site(tmp_path, [{**GOOD[0], UNIT: "u1"}, {**GOOD[0], UNIT: ""}, GOOD[1]])
    assert [misfit.row for misfit in read_records(file).misfits] == [2]
    steps = [{"command": "augment"}, {"command": "scrub", "output": {"sha256": "0" * 64}}]
    log = log_of(file.data)
    log.write_text(json.dumps({"format": "cloister-data-log/1", "steps": steps}))
    declared = tmp_path / "declared.toml"
    declared.write_text(
        file.path.read_text().replace("[records]", "couples_units = true\n[records]")
    )
    assert [misfit.row for misfit in read_records(read_site(declared)).misfits] == [2, 3]


# One row that is not like the others; whether the site still serves must not follow from it.
ODD = {
    "undeclared label": ({"text": "x", "label": "rare", "person": "q"}, UNDECLARED),
    "no label": ({"text": "x", "person": "q"}, "no column 'label'"),
    "empty text": ({"text": " ", "label": "a", "person": "q"}, "text is empty"),
    "no text": ({"label": "a", "person": "q"}, "no column 'text'"),
    "a date as label": (
        {"text": "x", "label": 0.5, "person": "q"},
        "label is a number that is not ",
    ),
    "nothing": ({"other": "x"}, "no column 'text'"),
}


@pytest.mark.parametrize("place", [0, 2, 4])
@pytest.mark.parametrize("name", ODD)
def test_a_row_that_does_not_fit_is_left_out_alone(name: str, place: int, tmp_path: Path) -> None:
    odd, reason = ODD[name]
    rows: list[object] = [*GOOD[:place], odd, *GOOD[place:]]
    found = read_records(site(tmp_path, rows))
    assert [r.text for r in found.records if isinstance(r, TextRecord)] == [
        row["text"] for row in GOOD
    ]
    (misfit,) = found.misfits
    assert misfit.row == place + 1
    assert misfit.reason.startswith(reason)
    assert found.reasons == {misfit.reason: 1}


def test_rows_are_counted_as_editors_do(tmp_path: Path) -> None:
    found = read_records(site(tmp_path, [GOOD[0], "", GOOD[1], "", ODD["no label"][0]]))
    assert (found.rows, found.misfits[0].row) == ((1, 3), 5)


def test_undeclared_types_of_entities_are_left_out(tmp_path: Path) -> None:
    rows: list[object] = [
        {"tokens": ["x", "y"], "tags": ["B-a", "I-a"], "person": "p"},
        {"tokens": ["x", "y"], "tags": ["O", "B-rare"], "person": "p"},
    ]
    found = read_records(site(tmp_path, rows, "token-classification"))
    assert (len(found.records), found.reasons) == (1, {UNDECLARED: 1})


def test_a_record_without_a_person_is_kept_and_counts_where_records_are_units(
    tmp_path: Path,
) -> None:
    found = read_records(site(tmp_path, [*GOOD, {"text": "rash", "label": "b"}]))
    assert found.misfits == ()
    task = build_task(TaskConfig(max_length=8), ("a", "b"), word_tokenizer())
    assert all(encode_units(found.records, task, Unit.RECORD, 1).units)
    assert encode_units(found.records, task, Unit.PERSON, 8).units[-1] == ()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text(""),
        lambda path: path.write_text('{"text": '),
        lambda path: path.write_bytes(os.urandom(200)),
        lambda path: path.write_text(json.dumps(ODD["undeclared label"][0])),
    ],
    ids=["missing", "empty", "cut", "garbage", "nothing fits"],
)
def test_a_file_that_cannot_be_used_at_all_is_refused_at_home(  # type: ignore[no-untyped-def]
    spoil, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = site(tmp_path, list(GOOD))
    source = RecordSource(file)
    spoil(file.data)
    with pytest.raises(DataError) as found:
        read_records(file)
    assert "rare" not in str(found.value)  # services log it
    assert source.changed()
    with pytest.raises(DataError):
        source.reload()
    assert len(source.current.records) == len(GOOD)
    assert main(file.path) == DataError.exit_code  # as the process of its own ends, below
    assert "records.jsonl" in capsys.readouterr().err


def test_another_process_refuses_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    file = site(tmp_path, list(GOOD))
    file.data.write_text("")
    with pytest.raises(DataError, match=r"records\.jsonl"):
        read_apart(file)


def test_what_is_served_changes_at_a_reload_alone(tmp_path: Path) -> None:
    file = site(tmp_path, list(GOOD))
    source = RecordSource(file)
    before = source.current
    assert not source.changed()
    os.utime(file.data, ns=(1, 1))  # touched, and the same
    assert not source.changed()
    site(tmp_path, GOOD[:2])
    assert source.changed()
    assert source.current is before
    assert source.reload().stamp == ContentStamp.of(file.data)
    assert len(source.current.records) == 2
    assert not source.changed()
    assert source.document()["records"] == 2


def test_another_process_says_what_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "subprocess", worker_forks)
    told = read_apart(site(tmp_path, [*GOOD, ODD["undeclared label"][0]]))
    assert told == f"4 records fit; 1 row is left out: {UNDECLARED}"


def test_without_declarations_nothing_is_read(tmp_path: Path) -> None:
    file = site(tmp_path, list(GOOD))
    old = SiteFile(file.path, file.site, file.policy)
    with pytest.raises(RecipeError, match="records: missing; add a section"):
        read_records(old)


@pytest.mark.parametrize(
    ("task", "labels", "why"),
    [
        ("sequence-classification", ("a",), "at least 2 are needed"),
        ("token-classification", (), "at least 1 are needed"),
        ("sequence-classification", ("a", "a"), "duplicate; give each once"),
        ("sequence-classification", ("a", " "), "a label is empty or duplicate"),
        ("causal-lm", ("a",), "conversations have none"),
    ],
)
def test_declarations_that_cannot_be_meant(task: str, labels: tuple[str, ...], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        RecordsConfig(task=task, labels=labels)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ODD_KINDS)
@pytest.mark.parametrize("link", [False, True])
def test_what_is_no_file_is_called_what_it_is_and_not_waited_for(
    kind: str, link: bool, tmp_path: Path
) -> None:
    file = site(tmp_path, list(GOOD))
    stamp = ContentStamp.of(file.data)
    file.data.unlink()
    if link:
        odd_path(kind, tmp_path / "odd")
        file.data.symlink_to("odd")
    else:
        odd_path(kind, file.data)
    with pytest.raises(DataError, match=rf"{ODD_KINDS[kind]}.*correct site\.data in site\.toml"):
        read_records(file)
    assert not stamp.is_current(file.data)


PERSONS = {
    "no such column": ({}, "row 1: no column 'person'; set privacy.person in site.toml to"),
    "nothing": ({"person": None}, r"row 1: person has no value \(null\)"),
    "an empty name": ({"person": ""}, "row 1: person is empty"),
    "a fraction": (
        {"person": 0.25},
        "row 1: person is a number that is not an integer; a person must be",
    ),
    "a list": ({"person": ["a"]}, "row 1: person is a list; a person must be text"),
    "true": ({"person": True}, "row 1: person is true or false; a person must be text"),
}


def by_person(file: SiteFile, unit: str = "person") -> SiteFile:
    text = file.path.read_text()
    file.path.write_text(text.replace("[privacy]", f'[privacy]\nunit = "{unit}"'))
    return read_site(file.path)


@pytest.mark.parametrize("name", PERSONS)
def test_where_persons_are_units_not_one_unit_is_refused_with_row_and_kind(
    name: str, tmp_path: Path
) -> None:
    person, why = PERSONS[name]
    rows: list[object] = [{"text": "chest pain", "label": "a", **person}] * 3
    assert len(read_records(site(tmp_path, rows)).records) == 3  # where records are the units
    file = by_person(site(tmp_path, rows))
    with pytest.raises(DataError, match=f"none of 3 records names a person.*{why}"):
        read_records(file)
    found = read_records(by_person(site(tmp_path, [*rows, GOOD[0]])))  # one unit is enough
    counts, findings = describe(file, found)
    assert counts == "1 record of 1 person (privacy units); the largest has 1"
    assert any(
        "3 records name no person that could be used" in finding.note
        and re.search(why.removeprefix("row 1: "), finding.note)
        for finding in findings
    )


@pytest.mark.parametrize("flaw", [{}, {"person": None}, {"person": 0.5}, {"text": " "}])
@pytest.mark.parametrize("place", [0, 4])
@pytest.mark.parametrize("column", ["label", "person"])
def test_a_column_of_texts_and_integers_is_refused_whatever_else_a_row_lacks(
    flaw: dict[str, object], place: int, column: str, tmp_path: Path
) -> None:
    row: dict[str, object] = {"text": "rash", "label": "a", "person": "p", column: 1}
    if column == "person" and "text" not in flaw:
        flaw = {"label": None}
    elif not flaw:
        del row["person"]
    rows: list[object] = [*GOOD]
    rows.insert(place, {**row, **flaw})
    unknown = "not known which values are equal; write all as text"
    with pytest.raises(DataError, match=f"{column} is .*{unknown}"):
        read_records(site(tmp_path, rows))


def test_control_characters_of_a_label_are_not_printed(tmp_path: Path) -> None:
    odd = {"text": "x", "label": "\x1b[31m\n" * 40, "person": "q"}
    (misfit,) = read_records(site(tmp_path, [*GOOD, odd])).misfits
    assert misfit.problem.isprintable()
    assert len(misfit.problem) < 300
