"""A split has every row once and no unit twice, complete or not at all, with logs."""

import json
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloister.cli.main import run
from cloister.data.load import file_rows
from cloister.data.split.files import By, SplitPlan, split_file
from cloister.data.split.sides import Shares
from cloister.errors import DataError, UsageError

COLUMNS = ("text", "label", "p", "time", "site")


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def notes(count: int = 108, persons: int = 36) -> list[dict[str, Any]]:
    return [
        {
            "text": f"第{n}条 note",
            "label": "心内科" if n % 3 else "ward",
            "p": n % persons,
            "time": f"2024-{n % 12 + 1:02}-01",
            "site": f"clinic {n % 4}",
        }
        for n in range(count)
    ]


def read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        path.stem: [dict(row) for _, row in file_rows(path, "train", COLUMNS)]
        for path in folder.iterdir()
        if not path.name.endswith(".json")
    }


PLANS: dict[By, SplitPlan] = {
    "unit": SplitPlan(unit="p", shares=Shares(test=0.3, validation=0.2)),
    "label": SplitPlan(by="label", unit="p", shares=Shares(test=0.3, validation=0.2)),
    "time": SplitPlan(by="time", unit="p", test_from="2024-11-01", validation_from="2024-09-01"),
    "site": SplitPlan(by="site", unit="p", test_sites=["clinic 0"], validation_sites=["clinic 1"]),
}


@pytest.mark.parametrize("by", PLANS)
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_every_row_is_on_one_side_and_every_unit_with_all_its_rows(
    tmp_path: Path, by: By, ending: str
) -> None:
    source, out = write(tmp_path / "notes.jsonl", notes()), tmp_path / "parts"
    report = split_file(source, out, PLANS[by], ending=ending)
    sides = read(out)
    assert sides.keys() == {"train", "validation", "test"} == report.rows.keys()
    found = [row["text"] for rows in sides.values() for row in rows]
    assert sorted(found) == sorted(row["text"] for row in notes())
    persons = [{str(row["p"]) for row in rows} for rows in sides.values()]
    assert sum(map(len, persons)) == len(set().union(*persons)) == 36
    assert {side: len(rows) for side, rows in sides.items()} == report.rows
    for side in sides:
        path = out / f"{side}{ending}.log.json"
        step = json.loads(path.read_text())["steps"][-1]
        assert step["couples_units"] == (by == "label") == report.couples_units
        assert step["counts"] == {"side": side, "rows": report.rows[side]}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(out.stat().st_mode) == 0o700


def test_folds_part_the_units_and_one_that_leaves_moves_no_other(tmp_path: Path) -> None:
    plan = SplitPlan(unit="p", folds=3)
    split_file(write(tmp_path / "all.jsonl", notes()), tmp_path / "parts", plan)
    folds = read(tmp_path / "parts")
    assert folds.keys() == {"fold-1", "fold-2", "fold-3"}
    persons = [{str(row["p"]) for row in rows} for rows in folds.values()]
    assert sum(map(len, persons)) == len(set().union(*persons)) == 36
    gone = notes()[0]["p"]
    fewer = [row for row in notes() if row["p"] != gone]
    split_file(write(tmp_path / "fewer.jsonl", fewer), tmp_path / "less", plan)
    kept = {row["text"] for row in fewer}
    left = {name: [r for r in rows if r["text"] in kept] for name, rows in folds.items()}
    assert [[r["text"] for r in rows] for _, rows in sorted(read(tmp_path / "less").items())] == [
        [r["text"] for r in rows] for _, rows in sorted(left.items())
    ]
    step = json.loads((tmp_path / "parts" / "fold-1.jsonl.log.json").read_text())["steps"][-1]
    assert step["settings"] == {"by": "unit", "unit": "p", "folds": 3, "salt": ""}


@pytest.mark.parametrize("given", [{"folds": 1}, {"folds": 21}, {"folds": 3, "by": "label"}])
def test_folds_that_there_are_not_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--folds"):
        SplitPlan(**given)


def test_what_is_held_out_is_what_was_asked_for(tmp_path: Path) -> None:
    source = write(tmp_path / "notes.jsonl", notes(persons=108))
    split_file(source, tmp_path / "time", SplitPlan(by="time", test_from="2024-11-01"))
    sides = read(tmp_path / "time")
    assert {row["time"] for row in sides["test"]} == {"2024-11-01", "2024-12-01"}
    assert len(sides["train"]) == 90
    split_file(source, tmp_path / "site", SplitPlan(by="site", test_sites=["clinic 2"]))
    assert {row["site"] for row in read(tmp_path / "site")["test"]} == {"clinic 2"}
    shares = Shares(test=0.25)
    split_file(source, tmp_path / "label", SplitPlan(by="label", shares=shares))
    labels = [row["label"] for row in read(tmp_path / "label")["test"]]
    assert (labels.count("ward"), len(labels)) == (9, 27)


@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=8,
)
@given(gone=st.integers(0, 35))
def test_a_unit_that_leaves_moves_no_other(tmp_path_factory: Any, gone: int) -> None:
    """What makes ε about the units of the whole file: see `split.sides`."""
    folder = tmp_path_factory.mktemp("moves")
    plan = SplitPlan(unit="p", shares=Shares(test=0.3))
    split_file(write(folder / "a.jsonl", notes()), folder / "all", plan)
    rest = [row for row in notes() if row["p"] != gone]
    split_file(write(folder / "b.jsonl", rest), folder / "rest", plan)
    whole = {
        s: [r for r in rows if str(getattr(r["p"], "written", r["p"])) != str(gone)]
        for s, rows in read(folder / "all").items()
    }
    assert whole == read(folder / "rest")


def test_equal_records_without_persons_are_on_one_side(tmp_path: Path) -> None:
    rows = [{"text": f"note {n % 30}"} for n in range(90)]
    split_file(write(tmp_path / "a.jsonl", rows), tmp_path / "out", SplitPlan())
    sides = read(tmp_path / "out")
    train, test = ({row["text"] for row in sides[s]} for s in ("train", "test"))
    assert not train & test
    assert len(train | test) == 30


def test_nothing_is_left_of_what_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "notes.jsonl", notes(12, persons=12))
    out = tmp_path / "out"
    for plan, told in [
        (SplitPlan(by="time"), "--test-from: missing"),
        (SplitPlan(by="site"), "--test-site: missing"),
        (SplitPlan(by="site", test_sites=["clinic 9"]), "the test side would be empty"),
        (SplitPlan(by="time", test_from="2023-01-01"), "the train side would be empty"),
    ]:
        with pytest.raises(UsageError, match=told):
            split_file(source, out, plan)
    with pytest.raises(DataError, match="row 1: no text or integer in 'ward', which --by label"):
        split_file(source, out, SplitPlan(by="label", column="ward"))
    with pytest.raises(DataError, match="row 1: site: neither an integer nor a date"):
        split_file(source, out, SplitPlan(by="time", column="site", test_from="2024-01-01"))
    chats = write(tmp_path / "chats.jsonl", [{"text": ["a"]}, {"text": ["b"]}, {"text": ["c"]}])
    with pytest.raises(DataError, match="which CSV cannot hold"):
        split_file(chats, out, SplitPlan(shares=Shares(test=0.5, salt="2")), ending=".csv")
    with pytest.raises(UsageError, match="exists already"):
        split_file(source, source, SplitPlan())
    with pytest.raises(UsageError, match="make it first"):
        split_file(source, tmp_path / "no" / "out", SplitPlan())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chats.jsonl", "notes.jsonl"]


def test_the_command_says_sizes_and_that_stratifying_couples_units(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "notes.csv"
    source.write_bytes(
        "".join(
            [
                "text;label\n",
                *(f"很好吃的第{n}次，我还来;{'好' * (1 + n % 2)}\n" for n in range(40)),
            ]
        ).encode("gb18030")
    )
    given = ["data", "split", str(source), "--by", "label"]
    assert run([*given, "--out", str(tmp_path / "a")]) == 0
    shown = capsys.readouterr().out
    assert "train: 32 rows, 32 units\ntest: 8 rows, 8 units\n" in shown
    assert "couples units" in shown
    assert run([*given, "--out", str(tmp_path / "b"), "--json", "--format", "jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == {"train": 32, "test": 8}
    assert (tmp_path / "a" / "test.csv").read_text().startswith("text,label\n很好吃的")
    assert run([*given, "--out", str(tmp_path / "a")]) == 2


def test_a_file_of_several_labels_is_stratified_by_each(tmp_path: Path) -> None:
    rows = [
        {"text": f"note {n}", "labels": [x for x, every in (("a", 2), ("b", 10)) if n % every == 0]}
        for n in range(200)
    ]
    source = write(tmp_path / "notes.jsonl", rows)
    plan = SplitPlan(by="label", column="labels", shares=Shares(test=0.2))
    assert split_file(source, tmp_path / "parts", plan).couples_units
    found = [
        json.loads(line) for line in (tmp_path / "parts" / "test.jsonl").read_text().splitlines()
    ]
    counts = {label: sum(label in row["labels"] for row in found) for label in "ab"}
    assert counts == {"a": 20, "b": 4}


def test_labels_in_one_cell_are_stratified_like_a_list_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The labels of note n are the bits of n, so no two of 128 notes have the same ones."""
    held = {n: [letter for bit, letter in enumerate("abcdefg") if n >> bit & 1] for n in range(128)}
    lists = write(tmp_path / "lists.jsonl", [{"id": f"n{n}", "labels": held[n]} for n in held])
    source = tmp_path / "notes.csv"
    source.write_text("\n".join(["id,labels", *(f"n{n},{';'.join(held[n])}" for n in held)]))
    plan = SplitPlan(by="label", column="labels", unit="id")
    split_file(lists, tmp_path / "wanted", plan)
    given = ["data", "split", str(source), "--by", "label", "--column", "labels", "--unit", "id"]
    assert run([*given, "--out", str(tmp_path / "parts"), "--label-separator", ";"]) == 0
    for side in ("train", "test"):
        rows = (tmp_path / "wanted" / f"{side}.jsonl").read_text().splitlines()
        cells = (tmp_path / "parts" / f"{side}.csv").read_text().splitlines()[1:]
        assert [cell.split(",")[0] for cell in cells] == [json.loads(row)["id"] for row in rows]
    log = json.loads((tmp_path / "parts" / "test.csv.log.json").read_text())
    assert log["steps"][-1]["settings"]["label_separator"] == ";"
    # Without it a cell is one label, and a note without labels has none to go by.
    capsys.readouterr()
    assert run([*given, "--out", str(tmp_path / "other")]) == 3
    assert "row 1: no text or integer in 'labels'" in capsys.readouterr().err
    with pytest.raises(UsageError, match="only for --by label, but --by unit is given"):
        SplitPlan(label_separator=";")
