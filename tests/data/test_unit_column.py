"""`cloister_unit` is read by every reader, and a file with copies that lost it is refused."""

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cloister.api.memory_tables import records_in, write_tables
from cloister.data.augment.files import AugmentOptions, augment_file
from cloister.data.clean.run import clean_file
from cloister.data.config import DataConfig
from cloister.data.guess import guess
from cloister.data.hub import hub_rows
from cloister.data.load import first_record, load
from cloister.data.record_schema import MixedColumnError, Reading
from cloister.data.records import Record, RecordKind
from cloister.data.scrub.files import scrub_file
from cloister.data.split.files import SplitPlan, split_file
from cloister.data.split.sides import Shares
from cloister.data.step_log import log_of, steps_of
from cloister.data.unit_column import UNIT
from cloister.errors import DataError, MisfitError

COLUMNS = DataConfig(train="in.jsonl", test="test.jsonl")
TEXTS: list[dict[str, Any]] = [
    {"text": "chest pain", "label": "a", UNIT: "u1"},
    {"text": "chest pian", "label": "a", UNIT: "u1"},
    {"text": "itching rash", "label": "b", UNIT: "u2"},
]


def units(records: Any) -> list[str | None]:
    return [record.unit for record in records]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def csv(rows: list[dict[str, Any]], mark: str = ",") -> str:
    return "\n".join(mark.join(cells) for cells in [list(rows[0]), *(r.values() for r in rows)])


def packed(path: Path, text: str) -> None:
    path.write_bytes(gzip.compress(text.encode()))


def arrow(path: Path, rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], object]] = {
    "x.jsonl": jsonl,
    "x.json": lambda path, rows: path.write_text(json.dumps(rows)),
    "x.csv": lambda path, rows: path.write_text(csv(rows)),
    "x.tsv": lambda path, rows: path.write_text(csv(rows, "\t")),
    "x.csv.gz": lambda path, rows: packed(path, csv(rows)),
    "x.jsonl.gz": lambda path, rows: packed(path, "\n".join(map(json.dumps, rows))),
    "x.parquet": lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path),
    "x.arrow": arrow,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_reads_it(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, TEXTS)
    assert units(load(str(tmp_path / name), "train", "text", COLUMNS)) == ["u1", "u1", "u2"]
    first = first_record(str(tmp_path / name), "train", "text", COLUMNS)
    assert first is not None
    assert first.unit == "u1"
    # A public set releases nothing, whoever its rows are of.
    assert units(load(str(tmp_path / name), "test", "text", COLUMNS)) == [None] * 3


TABLES: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "list": list,
    "pandas": pd.DataFrame,
    "arrow": pa.Table.from_pylist,
    "datasets": datasets.Dataset.from_list,
}


@pytest.mark.parametrize("name", TABLES)
def test_every_table_in_memory_reads_it_and_writes_it(tmp_path: Path, name: str) -> None:
    found = records_in(TABLES[name](TEXTS), "data", "text", COLUMNS, train=True, sites=False)
    assert units(found) == ["u1", "u1", "u2"]
    write_tables({"train": found}, tmp_path, COLUMNS)
    assert tuple(load(str(tmp_path / "train.jsonl"), "train", "text", COLUMNS)) == found


def test_a_set_of_the_hub_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    table = datasets.Dataset.from_list(TEXTS)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
    reading = Reading("text", COLUMNS, persons=True, sites=False)
    rows: Iterator[Any] = hub_rows("owner/name", "train", reading.columns_read, "data.train")
    assert units(reading.record(row, "hub", n) for n, row in rows) == ["u1", "u1", "u2"]


TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]
OTHERS: dict[str, tuple[RecordKind, dict[str, Any]]] = {
    "tokens": ("tokens", {"tokens": ["chest"], "tags": ["O"]}),
    "messages": ("messages", {"messages": TURNS}),
    "raw text": ("messages", {"messages": "a text"}),
    "sharegpt": (
        "messages",
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "r"}]},
    ),
    "alpaca": ("messages", {"instruction": "q", "output": "r"}),
    "prompt": ("messages", {"prompt": "q", "completion": "r"}),
    "pair": ("messages", {"prompt": "q", "chosen": "r", "rejected": "s"}),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("person", [None, "who"])
def test_every_kind_of_record_reads_it(tmp_path: Path, name: str, person: str | None) -> None:
    kind, row = OTHERS[name]
    path = jsonl(tmp_path / "x.jsonl", [{**row, UNIT: "u7", "who": "p"}])
    columns = DataConfig(train="in.jsonl", test="test.jsonl", person=person)
    (record,) = load(str(path), "train", kind, columns)
    assert (record.unit, record.person) == ("u7", "p" if person else None)


@pytest.mark.parametrize(("value", "said"), [(None, "null"), ("", "empty"), (1.5, "integer")])
def test_a_row_without_its_unit_does_not_fit(tmp_path: Path, value: object, said: str) -> None:
    path = jsonl(tmp_path / "x.jsonl", [{"text": "t", "label": "a", UNIT: value}])
    with pytest.raises(MisfitError, match=f"{UNIT}.*{said}"):
        load(str(path), "train", "text", COLUMNS)


def test_texts_and_integers_are_not_mixed(tmp_path: Path) -> None:
    rows = [{"text": "t", "label": "a", UNIT: value} for value in ("1", 1)]
    with pytest.raises(MixedColumnError, match=UNIT):
        load(str(jsonl(tmp_path / "x.jsonl", rows)), "train", "text", COLUMNS)


@pytest.fixture
def augmented(tmp_path: Path) -> Path:
    rows = [
        {"text": f"a note of ward {name} on chest pain", "label": label}
        for name in ("north", "south", "east", "west", "upper", "lower")
        for label in ("a", "b")
    ]
    out = tmp_path / "out.jsonl"
    augment_file(jsonl(tmp_path / "in.jsonl", rows), out, AugmentOptions(copies=2))
    return out


def cut(path: Path) -> list[dict[str, Any]]:
    """A file's rows without the column."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: cell for name, cell in row.items() if name != UNIT} for row in rows]


def test_a_file_with_copies_that_lost_it_is_refused(augmented: Path) -> None:
    assert len(set(units(load(str(augmented), "train", "text", COLUMNS)))) == 12
    jsonl(augmented, cut(augmented))
    with pytest.raises(MisfitError, match=f"row 1: no {UNIT}, but the log beside the file"):
        load(str(augmented), "train", "text", COLUMNS)
    # Of a file without its log nothing is known: this is what no reader can tell.
    log_of(augmented).unlink()
    assert len(load(str(augmented), "train", "text", COLUMNS)) == 36


def test_steps_after_it_keep_it_and_what_is_known_of_it(augmented: Path, tmp_path: Path) -> None:
    scrubbed, cleaned = tmp_path / "scrubbed.csv", tmp_path / "cleaned.jsonl"
    scrub_file(augmented, scrubbed)
    clean_file(scrubbed, cleaned)
    one, other = (load(str(path), "train", "text", COLUMNS) for path in (augmented, cleaned))
    assert units(one) == units(other)
    split_file(
        cleaned, tmp_path / "parts", SplitPlan(by="label", shares=Shares(test=0.4)), ending=".csv"
    )
    train, test = (tmp_path / "parts" / f"{side}.csv" for side in ("train", "test"))
    sides = [set(units(load(str(path), "train", "text", COLUMNS))) for path in (train, test)]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 12
    for path in (scrubbed, cleaned, train):
        lost = tmp_path / "lost" / path.with_suffix(".jsonl").name
        lost.parent.mkdir(exist_ok=True)
        rows: list[Record] = load(str(path), "train", "text", COLUMNS)
        jsonl(lost, [{"text": r.text, "label": r.label} for r in rows])  # type: ignore[union-attr]
        for log in path.parent.glob(f"{path.name}.*.json"):
            shutil.copy(log, lost.with_name(log.name.replace(path.name, lost.name)))
        with pytest.raises(MisfitError, match=f"no {UNIT}"):
            load(str(lost), "train", "text", COLUMNS)


def test_it_is_guessed_as_nothing_else(tmp_path: Path) -> None:
    rows = [{UNIT: "u" * 30 + str(n // 3), "words": "a b", "kind": "xy"[n % 2]} for n in range(30)]
    found = guess(jsonl(tmp_path / "x.jsonl", rows))
    assert found.columns == {"text": "words", "label": "kind"}


def test_rows_that_name_none_are_records_of_their_own(tmp_path: Path) -> None:
    rows = [*TEXTS, {"text": "plain", "label": "a"}]
    found = load(str(jsonl(tmp_path / "x.jsonl", rows)), "train", "text", COLUMNS)
    assert units(found) == ["u1", "u1", "u2", None]
    path = tmp_path / "x.csv"
    path.write_text(csv([*TEXTS, {"text": "plain", "label": "a", UNIT: ""}]))
    with pytest.raises(DataError, match=f"row 4: {UNIT} is empty"):
        load(str(path), "train", "text", COLUMNS)


def test_a_log_whose_steps_are_no_tables_couples_units(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("{}\n")
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    steps = ["augment", {"output": {"sha256": sha256}}]
    log_of(file).write_text(json.dumps({"format": "cloister-data-log/1", "steps": steps}))
    (step,) = steps_of(file, sha256)
    assert step["couples_units"]
