"""A declared encoding or separator is used, or refused by its name."""

from pathlib import Path

import pytest

from cloister.client.site_file import EXAMPLE, read_site
from cloister.data.config import DataConfig
from cloister.data.load import first_record, load
from cloister.data.records import TextRecord
from cloister.deployment.site.records import declarations, read_records
from cloister.errors import DataError, RecipeError, UsageError
from cloister.recipe import parse_recipe

TABLE = "text;label\n胸痛，很好;内科\n头痛，不好;外科\n"


def texts(source: Path, config: DataConfig) -> list[str]:
    found = load(str(source), "train", "text", config)
    assert first_record(str(source), "train", "text", config) == found[0]
    return [record.text for record in found if isinstance(record, TextRecord)]


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "utf-8-sig"])
@pytest.mark.parametrize("separator", ["semicolon", ";"])
def test_a_table_is_read_as_it_is_declared(tmp_path: Path, encoding: str, separator: str) -> None:
    path = tmp_path / "notes.csv"
    path.write_text(TABLE, encoding=encoding)
    config = DataConfig(train=str(path), test="t", encoding=encoding, separator=separator)
    assert texts(path, config) == ["胸痛，很好", "头痛，不好"]
    with pytest.raises(DataError):
        texts(path, DataConfig(train=str(path), test="t"))


def test_public_sets_of_another_ending_stay_utf8(tmp_path: Path) -> None:
    train, alike, other = (tmp_path / name for name in ("train.csv", "test.csv", "test.jsonl"))
    alike.write_text(TABLE, encoding="gb18030")
    other.write_text('{"text": "胸痛", "label": "内科"}\n', encoding="utf-8")
    config = DataConfig(train=str(train), test="t", encoding="gb18030", separator=";")
    assert texts(alike, config) == ["胸痛，很好", "头痛，不好"]
    assert texts(other, config) == ["胸痛"]


@pytest.mark.parametrize(
    ("train", "declared", "message"),
    [
        ("a.csv", {"encoding": "no-such"}, "^encoding: no-such: unknown encoding"),
        ("a.csv", {"encoding": "base64"}, "^encoding: base64"),
        ("a.csv", {"separator": "dots"}, "^separator: 'dots' given; one character"),
        ("a.csv", {"separator": '"'}, "^separator: "),
        ("a.jsonl", {"separator": ";"}, "^separator: ';' given, but a.jsonl is not a CSV"),
        (
            "a.parquet",
            {"encoding": "gb18030"},
            "^encoding: gb18030 given, but a.parquet is parquet",
        ),
        (
            "owner/set",
            {"encoding": "gb18030"},
            "^encoding: given, but owner/set is not a text file",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(
    train: str, declared: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        DataConfig(train=train, test="t.jsonl", **declared)  # type: ignore[arg-type]


def test_a_recipe_without_them_keeps_its_digest(tmp_path: Path) -> None:
    recipe = parse_recipe("", ["data.train=a.csv", "data.test=b.csv"])
    declared = parse_recipe("", ["data.train=a.csv", "data.test=b.csv", "data.separator=semicolon"])
    assert "separator" not in recipe.document()
    assert "encoding" not in recipe.document()
    assert declared.digest() != recipe.digest()


def test_a_sites_records_are_read_as_it_declares(tmp_path: Path) -> None:
    path, table = tmp_path / "site.toml", tmp_path / "records.csv"
    table.write_text(
        TABLE.replace("text;label", "text;label;person").replace("科\n", "科;p\n"), "gb18030"
    )
    labels = '["cardiology", "dermatology", "orthopaedics"]'
    plain = EXAMPLE.replace('"records.jsonl"', '"records.csv"').replace(labels, '["内科", "外科"]')
    plain = plain.replace("patient_id", "person")
    assert plain != EXAMPLE
    said = plain.replace("# encoding =", "encoding =").replace("# separator =", "separator =")
    path.write_text(said, encoding="utf-8")
    file = read_site(path)
    assert (file.site.encoding, file.site.separator) == ("gb18030", "semicolon")
    assert len(read_records(file).records) == 2
    path.write_text(plain, encoding="utf-8")
    with pytest.raises(DataError):
        read_records(read_site(path))
    # Records that were read otherwise are read again before they are served.
    assert declarations(file) != declarations(read_site(path))
    path.write_text(said.replace('"gb18030"', '"no-such"'), encoding="utf-8")
    with pytest.raises(RecipeError, match=r"site\.encoding: no-such"):
        read_site(path)
