"""The roles of a file's columns are guessed from names and rows."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cloister.data.guess import guess, is_spaceless
from cloister.errors import DataError


def jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def notes(count: int) -> list[dict[str, object]]:
    return [
        {
            "id": number,
            "patient_id": f"p{number // 3}",
            "hospital": ("north", "south")[number % 2],
            "note": f"the patient has pain number {number}",
            "department": ("cardiology", "surgery", "dermatology")[number % 3],
        }
        for number in range(count)
    ]


@pytest.mark.parametrize("count", [12, 2000])
def test_texts_labels_persons_and_sites_are_found_by_name(tmp_path: Path, count: int) -> None:
    found = guess(jsonl(tmp_path / "notes.jsonl", notes(count)))
    assert found.kind == "text"
    assert found.columns == {
        "text": "note",
        "label": "department",
        "person": "patient_id",
        "site": "hospital",
    }
    assert (found.rows, found.persons, found.sites) == (count, -(-count // 3), 2)
    assert not found.is_spaceless


def test_unnamed_columns_are_told_apart_by_their_values(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    rows = [f"{n},a sentence of some words {n},{'ab'[n % 2]}" for n in range(20)]
    path.write_text("\n".join(["n,w,k", *rows]) + "\n", encoding="utf-8")
    found = guess(path)
    assert found.columns == {"text": "w", "label": "k"}
    assert (found.persons, found.sites) == (None, None)


def test_words_with_tags_and_conversations_are_found(tmp_path: Path) -> None:
    words = [{"words": ["no", "flu"], "ner": ["O", "B-Disease"]}] * 3
    found = guess(jsonl(tmp_path / "w.jsonl", words))
    assert (found.kind, found.columns) == ("tokens", {"tokens": "words", "tags": "ner"})
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    found = guess(jsonl(tmp_path / "c.jsonl", [{"talk": turns}] * 3))
    assert (found.kind, found.columns) == ("messages", {"messages": "talk"})


def test_a_parquet_file_is_looked_at_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.Table.from_pylist(notes(6)), path)
    assert guess(path).columns["text"] == "note"


def test_what_fits_no_task_is_said_to(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "x.jsonl", [{"a": 1}, {"a": 2}])
    found = guess(path)
    assert (found.kind, found.names) == (None, ("a",))
    assert guess(jsonl(tmp_path / "n.jsonl", notes(6)), "tokens").kind is None
    (tmp_path / "empty.csv").write_text("a,b\n")
    with pytest.raises(DataError, match="no records"):
        guess(tmp_path / "empty.csv")


@pytest.mark.parametrize(
    ("texts", "is_so"),
    [
        (["我想要一个小的平板电脑，屏幕要好", "质量很好，物流也很快"], True),
        (["the screen is too small", "fast delivery, good quality"], False),
        (["Donaudampfschifffahrt ist ein langes Wort"], False),
        (["한국어에는 띄어쓰기가 있다"], False),
        (["ภาษาไทยไม่เว้นวรรค"], True),
        ([], False),
    ],
)
def test_writing_without_blanks_is_told(texts: list[str], is_so: bool) -> None:
    assert is_spaceless(texts) is is_so


def test_chinese_names_of_columns_are_found(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {
            "编号": f"{number}",
            "就诊医院": "东西"[number % 2] + "院",
            "病人编号": f"P{number // 2}",
            "病人主诉": f"头痛第{number}天",
            "科室名称": ("内科", "骨科", "儿科")[number % 3],
        }
        for number in range(12)
    ]
    assert guess(jsonl(tmp_path / "notes.jsonl", rows)).columns == {
        "text": "病人主诉",
        "label": "科室名称",
        "person": "病人编号",
        "site": "就诊医院",
    }


def test_a_history_of_ids_is_items_and_one_of_words_is_a_text(tmp_path: Path) -> None:
    """By its words, any text could be a list of ids."""
    texts = {"ids": "m17 N-2 tent-3", "words": "a fever for 3 days"}
    found = {
        name: guess(jsonl(tmp_path / f"{name}.jsonl", [{"history": text, "label": "a"}] * 4))
        for name, text in texts.items()
    }
    assert (found["ids"].kind, found["ids"].columns) == ("items", {"items": "history"})
    assert (found["words"].kind, found["words"].columns["text"]) == ("text", "history")
