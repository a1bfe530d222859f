"""The data commands on real texts in Chinese and English, which are not part of the project.

`CLOISTER_DATA` names a folder of public data sets: a folder for each, with a `train.jsonl` of rows
{"text", "label"}, {"messages"} or {"tokens", "tags"}. Sets that are not there are skipped.

    CLOISTER_DATA=/data HYPOTHESIS_PROFILE=nightly python -m pytest tests/data/test_real_data.py
"""

import base64
import json
import os
import random
import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import cohen_kappa_score

from cloister.data.augment.files import AugmentOptions, augment_file
from cloister.data.catalogue import read_catalogue
from cloister.data.check.report import CheckOptions, check_file
from cloister.data.clean.run import CleanOptions, clean_file
from cloister.data.config import DataConfig
from cloister.data.fhir.labels import LabelPath
from cloister.data.fhir.run import FhirOptions, fhir_file
from cloister.data.interactions.interaction_row import SequenceOptions
from cloister.data.interactions.items import ItemOptions, item_file
from cloister.data.interactions.run import sequence_file
from cloister.data.load import load
from cloister.data.scrub.files import scrub_file
from cloister.data.split.files import SplitPlan, split_file
from cloister.data.split.sides import Shares
from cloister.data.sql.run import sql_file
from cloister.data.unit_column import UNIT
from cloister.labelling.agreement import agreement
from cloister.labelling.annotated import read_annotated
from tests.support.labelled import labelled, rows_of

pytestmark = pytest.mark.nightly

# By name: the language of its texts.
SETS = {
    "zh_shopping": "zh",
    "zh_takeaway": "zh",
    "product_sentiment": "en",
    "rt_polarity": "en",
    "financial_phrases": "en",
}
# One of each language, for what does not depend on the kind of text.
BOTH = ("zh_shopping", "product_sentiment")


def real(name: str, file: str = "train.jsonl") -> Path:
    folder = os.environ.get("CLOISTER_DATA")
    if not folder:
        pytest.skip("CLOISTER_DATA does not name a folder of data sets")
    path = Path(folder).expanduser() / name / file
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    return path


def some(name: str, count: int) -> list[dict[str, Any]]:
    """Rows of a set, drawn without replacement and by its name."""
    return random.Random(name).sample(rows_of(real(name)), count)


def put(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", SETS)
def test_check_agrees_with_counting_by_hand_and_finds_what_was_planted(
    name: str, tmp_path: Path
) -> None:
    rows = rows_of(real(name))
    before = check_file(real(name), CheckOptions()).sections
    assert before["labels"]["counts"] == Counter(row["label"] for row in rows)
    texts = [row["text"] for row in rows if row["text"].strip()]
    assert before["duplicates"]["exact"] == len(texts) - len(set(texts))
    counts = before["languages"]["counts"]
    # A few words are too little for a language: py3langid is right of all but a twentieth here.
    assert counts[SETS[name]] > 0.9 * sum(counts.values()), counts
    # A text with one character of 80 changed has a similarity of at least 75/81 = 0.93, which an
    # estimate of s.d. 0.03 puts below 0.8 with a probability of 10⁻⁵.
    long = [row for row in rows if len(row["text"]) >= 80][:50]
    planted = [row | {"text": row["text"][:40] + "☂" + row["text"][41:]} for row in long]
    after = check_file(put(tmp_path / "more.jsonl", [*rows, *planted, *long[:7]]), CheckOptions())
    found = after.sections["duplicates"]
    assert found["exact"] == before["duplicates"]["exact"] + 7
    assert found["near"] == before["duplicates"]["near"] + len(planted)


@pytest.mark.parametrize("name", SETS)
def test_cleaning_twice_changes_nothing_more_and_every_encoding_gives_the_same(
    name: str, tmp_path: Path
) -> None:
    rows = rows_of(real(name))
    once, twice = tmp_path / "once.jsonl", tmp_path / "twice.jsonl"
    clean_file(real(name), once)
    clean_file(once, twice)
    assert once.read_bytes() == twice.read_bytes()
    cleaned = rows_of(once)
    assert len(cleaned) == sum(bool(row["text"].strip()) for row in rows)
    assert not [
        row for row in cleaned if re.search(r"[\x00-\x08\x0b-\x1f\u200b\ufeff]| {2}", row["text"])
    ]
    # As a program of an office writes it: GB18030 or Latin-1, semicolons, other columns.
    encoding = "gb18030" if SETS[name] == "zh" else "latin-1"
    fit = [row for row in rows if "\0" not in row["text"] and writable(row["text"], encoding)]
    assert len(fit) > 0.95 * len(rows)
    table = ["主诉;科室" if SETS[name] == "zh" else "note;ward"]
    table += [f'"{row["text"].replace(chr(34), chr(34) * 2)}";{row["label"]}' for row in fit]
    office, plain = tmp_path / "office.csv", put(tmp_path / "plain.jsonl", fit)
    office.write_bytes("\r\n".join(table).encode(encoding))
    columns = dict(zip(("text", "label"), table[0].split(";"), strict=True))
    clean_file(office, tmp_path / "office.jsonl", CleanOptions(columns=columns, encoding=encoding))
    clean_file(
        plain, tmp_path / "same.jsonl", CleanOptions(columns={"text": "text", "label": "label"})
    )
    got, wanted = rows_of(tmp_path / "office.jsonl"), rows_of(tmp_path / "same.jsonl")
    assert [(row["text"], row["label"]) for row in got] == [
        (row["text"], row["label"]) for row in wanted
    ]


def writable(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


@pytest.mark.parametrize("name", BOTH)
def test_every_planted_identifier_is_scrubbed_and_real_texts_stay_as_they_are(
    name: str, tmp_path: Path
) -> None:
    rows = some(name, 2000)
    kinds = {
        "PHONE": "13912345678" if SETS[name] == "zh" else "(415) 555-2671",
        "MAIL": "li.wei@example.com",
        "CARD": "4111 1111 1111 1111",
        # Checked by hand: weights 7 9 10 5 8 4 2 1 6 3 7 9 10 5 8 4 2 give 234 = 21·11 + 3.
        "RESIDENT_ID" if SETS[name] == "zh" else "SSN": (
            "11010519491231002X" if SETS[name] == "zh" else "078-05-1121"
        ),
    }
    draw, planted = random.Random(1), []
    for place, row in enumerate(rows):
        value = list(kinds.values())[place % len(kinds)]
        blanks = [at for at, c in enumerate(row["text"]) if c in " ，。！？"] or [len(row["text"])]
        at = draw.choice(blanks)
        planted.append({**row, "text": f"{row['text'][:at]} {value} {row['text'][at:]}"})
    report = scrub_file(put(tmp_path / "in.jsonl", planted), tmp_path / "out.jsonl")
    scrubbed = rows_of(tmp_path / "out.jsonl")
    left = [
        row["text"] for row in scrubbed if any(value in row["text"] for value in kinds.values())
    ]
    assert not left
    # Real reviews hold a date or an address now and then, and no more.
    assert sum(report.found.values()) < 1.1 * len(rows)
    plain = scrub_file(put(tmp_path / "real.jsonl", rows), tmp_path / "real-out.jsonl")
    assert plain.touched < 0.05 * len(rows)
    scrub_file(tmp_path / "out.jsonl", tmp_path / "again.jsonl")
    assert rows_of(tmp_path / "again.jsonl") == scrubbed


@pytest.mark.parametrize("name", BOTH)
def test_copies_of_real_texts_stay_in_their_unit_with_label_and_numbers(
    name: str, tmp_path: Path
) -> None:
    rows = some(name, 1000)
    source, out = put(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    report = augment_file(source, out, AugmentOptions(copies=2, seed="a"))
    made: dict[str, list[dict[str, Any]]] = {}
    for row in rows_of(out):
        made.setdefault(row[UNIT], []).append(row)
    assert len(made) == report.records == len(rows)
    originals = {(row["text"], row["label"]) for row in rows}
    changed = 0
    for first, *copies in made.values():
        assert (first["text"], first["label"]) in originals
        for copy in copies:
            assert copy["label"] == first["label"]
            assert re.findall(r"\d+", copy["text"]) == re.findall(r"\d+", first["text"])
            changed += copy["text"] != first["text"]
    assert changed == len(rows_of(out)) - len(rows) > 1.8 * len(rows)
    records = load(str(out), "train", "text", DataConfig())
    assert len({record.unit for record in records}) == len(rows)


@pytest.mark.parametrize("name", BOTH)
def test_a_split_of_real_texts_has_every_row_once_and_no_text_twice(
    name: str, tmp_path: Path
) -> None:
    rows = rows_of(real(name))
    shares = Shares(test=0.2, validation=0.1, salt=name)
    split_file(real(name), tmp_path / "hashed", SplitPlan(shares=shares))
    sides = {
        side: rows_of(tmp_path / "hashed" / f"{side}.jsonl")
        for side in ("train", "validation", "test")
    }
    assert sorted(map(repr, rows)) == sorted(repr(row) for side in sides.values() for row in side)
    held = [{json.dumps(row) for row in side} for side in sides.values()]
    assert not held[0] & held[1] | held[0] & held[2] | held[1] & held[2]
    # Four standard deviations of a share of 0.2 of some thousand units.
    assert abs(len(sides["test"]) / len(rows) - 0.2) < 4 * (0.2 * 0.8 / len(rows)) ** 0.5
    split_file(real(name), tmp_path / "even", SplitPlan(by="label", shares=shares))
    units = {json.dumps(row): row["label"] for row in rows}
    tests = {json.dumps(row) for row in rows_of(tmp_path / "even" / "test.jsonl")}
    for label, count in Counter(units.values()).items():
        assert abs(sum(units[unit] == label for unit in tests) - 0.2 * count) <= 1
    split_file(real(name), tmp_path / "sites", SplitPlan(by="site", test_sites=[rows[0]["site"]]))
    assert {row["site"] for row in rows_of(tmp_path / "sites" / "test.jsonl")} == {rows[0]["site"]}


@pytest.mark.parametrize("name", BOTH)
def test_two_annotators_of_real_texts_agree_as_computed_by_sklearn(
    name: str, tmp_path: Path
) -> None:
    rows = some(name, 200)
    labels = sorted({row["label"] for row in rows})
    source = put(tmp_path / "notes.jsonl", [{"text": row["text"]} for row in rows])
    draw = random.Random(2)
    ann = [row["label"] for row in rows]
    bo = [label if draw.random() < 0.8 else draw.choice(labels) for label in ann]
    files = [
        labelled(source, tmp_path / f"{who}.jsonl", given, labels=tuple(labels))
        for who, given in (("ann", ann), ("bo", bo))
    ]
    report = agreement(read_annotated(files), resamples=50)
    figures = {(one.name, one.label): one.value for one in report.figures}
    assert figures["Cohen's kappa", None] == pytest.approx(cohen_kappa_score(ann, bo))
    assert [row["text"] for row in rows_of(files[0])] == [row["text"] for row in rows]


@pytest.mark.parametrize(("name", "language"), [("zh_medical_qa", "zh"), ("tutoring", "en")])
def test_real_conversations_keep_every_turn_and_reply(
    name: str, language: str, tmp_path: Path
) -> None:
    rows = rows_of(real(name))
    report = check_file(real(name), CheckOptions())
    assert report.roles.kind == "messages"
    counts = report.sections["languages"]["counts"]
    assert counts[language] > 0.9 * sum(counts.values())
    once, twice = tmp_path / "once.jsonl", tmp_path / "twice.jsonl"
    clean_file(real(name), once)
    clean_file(once, twice)
    assert once.read_bytes() == twice.read_bytes()
    assert [[turn["role"] for turn in row["messages"]] for row in rows_of(once)] == [
        [turn["role"] for turn in row["messages"]] for row in rows
    ]
    source, made = put(tmp_path / "some.jsonl", rows[:200]), tmp_path / "made.jsonl"
    augment_file(source, made, AugmentOptions(copies=1))
    replies = Counter(repr(replied(row)) for row in rows_of(made))
    assert set(replies) == {repr(replied(row)) for row in rows[:200]}


def replied(row: dict[str, Any]) -> list[str]:
    return [turn["content"] for turn in row["messages"] if turn["role"] == "assistant"]


def test_real_entities_are_counted_alike_in_every_scheme(tmp_path: Path) -> None:
    rows = rows_of(real("ncbi_disease"))
    begun = Counter(tag[2:] for row in rows for tag in row["tags"] if tag.startswith("B-"))
    for letters, scheme in (("BI", "BIO (IOB2)"), ("II", "BIO (IOB2)"), ("BISE", "BIOES")):
        path = put(tmp_path / f"{letters}.jsonl", [in_scheme(row, letters) for row in rows])
        labels = check_file(path, CheckOptions(near=False)).sections["labels"]
        assert (labels["counts"], labels["scheme"]) == (begun, scheme)


def in_scheme(row: dict[str, Any], letters: str) -> dict[str, Any]:
    """A sentence in IOB2 (`BI`), IOB1 (`II`) or BIOES (`BISE`), from one in IOB2."""
    tags, new = ["O", *row["tags"], "O"], []
    for before, tag, after in zip(tags, tags[1:], tags[2:], strict=False):
        starts, ends = tag.startswith("B-"), not after.startswith("I-")
        letter = tag[0]
        if letters == "II" and starts:  # B only where it parts two entities of one type
            letter = "B" if before[2:] == tag[2:] else "I"
        if letters == "BISE" and tag != "O" and ends:
            letter = "S" if starts else "E"
        new.append(f"{letter}{tag[1:]}")
    return {**row, "tags": new}


def test_a_real_catalogue_becomes_a_public_file_of_items(tmp_path: Path) -> None:
    books = rows_of(real("books", "books.jsonl"))
    options = ItemOptions(item="id", texts=("title", "authors"))
    out = tmp_path / "items.jsonl"
    assert item_file(real("books", "books.jsonl"), out, options) == len(books)
    found = read_catalogue(str(out), None)
    assert found.ids == tuple(book["id"] for book in books)
    assert found.texts[0] == f"{books[0]['title']}. {books[0]['authors']}"


@pytest.mark.parametrize("name", BOTH)
def test_real_texts_come_out_of_a_database_as_they_went_in(name: str, tmp_path: Path) -> None:
    rows, database, out = rows_of(real(name)), tmp_path / "notes.db", tmp_path / "notes.jsonl"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE notes (note TEXT, ward TEXT, site TEXT)")
        values = [(row["text"], row["label"], row["site"]) for row in rows]
        connection.executemany("INSERT INTO notes VALUES (?, ?, ?)", values)
    connection.close()
    query = "SELECT note AS text, ward AS label, site FROM notes ORDER BY rowid"
    assert sql_file(f"sqlite:///{database}", query, out).rows == len(rows)
    assert rows_of(out) == rows


@pytest.mark.parametrize(("name", "charset"), [(BOTH[0], "gb18030"), (BOTH[1], "utf-8")])
def test_real_texts_come_out_of_a_bundle_as_they_went_in(
    name: str, charset: str, tmp_path: Path
) -> None:
    rows = rows_of(real(name))
    entries: list[dict[str, Any]] = [
        {"resource": {"resourceType": "Patient", "id": str(n)}} for n in range(50)
    ]
    for number, row in enumerate(rows):
        content = base64.b64encode(row["text"].encode(charset)).decode()
        attachment = {"contentType": f"text/plain; charset={charset}", "data": content}
        document = {
            "resourceType": "DocumentReference",
            "id": f"d{number}",
            "status": "current",
            "subject": {"reference": f"Patient/{number % 50}"},
            "category": [{"coding": [{"system": "urn:kinds", "code": row["label"]}]}],
            "content": [{"attachment": attachment}],
        }
        entries.append({"resource": document})
    bundle, out = tmp_path / "bundle.json", tmp_path / "notes.jsonl"
    bundle.write_text(json.dumps({"resourceType": "Bundle", "entry": entries}), encoding="utf-8")
    report = fhir_file([bundle], out, FhirOptions(label=LabelPath("category")))
    assert (report.rows, report.persons, dict(report.left_out)) == (len(rows), 50, {})
    # A byte order mark before a text is none of its characters.
    texts = [row["text"].removeprefix("\ufeff") for row in rows]
    expected = [
        (text, row["label"], f"Patient/{n % 50}")
        for n, (text, row) in enumerate(zip(texts, rows, strict=True))
    ]
    assert [(row["text"], row["label"], row["person"]) for row in rows_of(out)] == expected


@pytest.mark.parametrize(
    ("name", "file", "columns"),
    [("books", "books.jsonl", ("title", "authors")), ("zh_takeaway", "train.jsonl", ("text",))],
)
def test_made_up_readers_of_real_items_become_one_record_each(
    name: str, file: str, columns: tuple[str, ...], tmp_path: Path
) -> None:
    """No real person's items are at hand: the items are real, who had them is drawn."""
    rows = [{**row, "item": f"i{n}"} for n, row in enumerate(rows_of(real(name, file))[:500])]
    source, items = put(tmp_path / "public.jsonl", rows), tmp_path / "items.jsonl"
    assert item_file(source, items, ItemOptions(item="item", texts=columns)) == len(rows)
    draw = random.Random(name)
    had = {f"u{n}": draw.sample([row["item"] for row in rows], 8) for n in range(200)}
    events = [
        f"{person}::{item}::5::{place}" for person in had for place, item in enumerate(had[person])
    ]
    draw.shuffle(events)
    (tmp_path / "ratings.dat").write_text("\n".join(events) + "\n")
    out = tmp_path / "people.jsonl"
    options = SequenceOptions(form="movielens", items=str(items))
    assert sequence_file(tmp_path / "ratings.dat", out, options).persons == len(had)
    assert {row["person"]: row["items"] for row in rows_of(out)} == had
