"""Files of interactions become one record per person; public files of items are written."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.data.catalogue import read_catalogue
from cloister.data.config import DataConfig
from cloister.data.interactions.interaction_row import SequenceOptions
from cloister.data.interactions.items import ItemOptions, item_file
from cloister.data.interactions.run import sequence_file
from cloister.data.interactions.times import time_of_cell
from cloister.data.load import load
from cloister.data.records import ItemsRecord
from cloister.data.values import Number
from cloister.errors import CloisterError, DataError, MisfitError, UsageError
from tests.support.examples import tries

BEHAVIORS = (
    "1\tU1\t11/15/2019 1:22:32 PM\tN1 N2\tN3-1 N4-0\n"
    "2\tU2\t11/11/2019 9:00:00 AM\t\tN4-1 N9-0\n"
    "3\tU1\t11/15/2019 11:00:00 AM\tN1 N2\tN5-1\n"
)


def written(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def file(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@settings(max_examples=tries(25), deadline=None)
@given(
    events=st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 5)), min_size=1
    ),
    seed=st.integers(0, 1000),
)
def test_a_person_has_each_item_once_in_order_of_time(
    events: list[tuple[str, str, int]], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("events")
    lines = [f"{person},{item},{when}\n" for person, item, when in events]
    source = file(folder, "r.csv", "userId,movieId,timestamp\n" + "".join(lines))
    expected = {}
    for person in dict.fromkeys(person for person, _, _ in events):
        own = sorted((e for e in events if e[0] == person), key=lambda e: e[2])
        items = list(dict.fromkeys(item for _, item, _ in own))
        if len(items) > 1:
            expected[person] = items
    out = folder / "out.jsonl"
    if not expected:
        with pytest.raises(DataError, match="no person has 2 different items"):
            sequence_file(source, out)
        assert not out.exists()
        return
    report = sequence_file(source, out)
    assert {row["person"]: row["items"] for row in written(out)} == expected
    assert report.rows == len(events)
    assert report.persons + report.too_few == len({person for person, _, _ in events})
    # A person's record does not change with the rows of others.
    one = random.Random(seed).choice(list(expected))
    alone = [line for line in lines if line.startswith(f"{one},")]
    source = file(folder, "one.csv", "userId,movieId,timestamp\n" + "".join(alone))
    sequence_file(source, folder / "one.jsonl")
    assert written(folder / "one.jsonl") == [{"person": one, "items": expected[one]}]


def test_movielens_lines_have_two_colons_and_latin_letters(tmp_path: Path) -> None:
    movies = file(
        tmp_path, "movies.dat", b"1::Caf\xe9 (1995)::Drama|Comedy\n2::X::Action\n3::Y::\n"
    )
    assert item_file(movies, tmp_path / "items.jsonl", ItemOptions(form="movielens")) == 3
    found = read_catalogue(str(tmp_path / "items.jsonl"), None)
    assert (found.ids, found.texts[0]) == (("1", "2", "3"), "Café (1995). Drama, Comedy")
    ratings = file(tmp_path, "ratings.dat", "7::2::5::20\n7::1::4::10\n7::3::2::30\n7::9::5::40\n")
    options = SequenceOptions(
        form="movielens",
        least_rating=3.0,
        items=str(tmp_path / "items.jsonl"),
        known_only=True,
    )
    report = sequence_file(ratings, tmp_path / "out.jsonl", options)
    assert written(tmp_path / "out.jsonl") == [{"person": "7", "items": ["1", "2"]}]
    assert (report.low, report.unknown) == (1, 1)
    (record,) = load(
        str(tmp_path / "out.jsonl"), "train", "items", DataConfig(person="person", test="t.jsonl")
    )
    assert record == ItemsRecord(("1", "2"), None, "7")


def test_of_mind_the_history_comes_first_and_clicks_follow_by_time(tmp_path: Path) -> None:
    source = file(tmp_path, "behaviors.tsv", BEHAVIORS)
    report = sequence_file(source, tmp_path / "out.jsonl", SequenceOptions(form="mind"))
    assert written(tmp_path / "out.jsonl") == [{"person": "U1", "items": ["N1", "N2", "N5", "N3"]}]
    assert report.too_few == 1
    news = "N1\tsports\tgolf\tA title\tAn abstract\turl\t[]\t[]\nN2\tnews\tus\tB\t\turl\t[]\t[]\n"
    item_file(file(tmp_path, "news.tsv", news), tmp_path / "i.csv", ItemOptions(form="mind"))
    texts = read_catalogue(str(tmp_path / "i.csv"), None).texts
    assert texts == ("A title. sports. golf. An abstract", "B. news. us")


RATINGS = "user,item,rating,time\na,1,5,10\na,2,4,20\n"


@pytest.mark.parametrize(
    ("text", "options", "why"),
    [
        ("1::2::3\n", SequenceOptions(form="movielens"), r"row 1: 3 cells .* 4 are needed"),
        ("1\t2\n", SequenceOptions(form="movielens", separator="tab"), "row 1: 2 cells"),
        (
            RATINGS + "a,3,1,last week\n",
            SequenceOptions(),
            r"row 3: time is text that is not a time",
        ),
        (
            RATINGS + "a,3,1,2024-01-01\n",
            SequenceOptions(),
            "row 3: the time is a date here",
        ),
        (RATINGS + ",3,1,5\n", SequenceOptions(), "row 3: user is empty"),
        (RATINGS + "a,3,1\n", SequenceOptions(), "row 3"),
        (RATINGS + "a,3,x,5\n", SequenceOptions(least_rating=2), "row 3: rating is"),
        (BEHAVIORS + "4\tU1\t11/15/2019 1:22:32 PM\t\tN3\n", SequenceOptions(form="mind"), "-0 or"),
        ("who,item,time\na,1,2\n", SequenceOptions(), r"--person: no column .*found: who, item"),
        (RATINGS, SequenceOptions(item="movie"), r"--item movie: no such column"),
        (RATINGS, SequenceOptions(known_only=True), "--known-only: give the public file"),
        (RATINGS, SequenceOptions(form="movielens", separator="12345"), "1 to 4 characters"),
        (RATINGS, SequenceOptions(form="netflix"), "--form netflix: one of table"),
        ("a::\0::5::1\n", SequenceOptions(form="movielens"), "NUL"),
        ("a::\xe9::5::1\n", SequenceOptions(form="movielens", encoding="ascii"), "row|ascii"),
        ("", SequenceOptions(), "empty"),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_written(
    tmp_path: Path, text: str, options: SequenceOptions, why: str
) -> None:
    source = file(tmp_path, "in.tsv" if options.form == "mind" else "in.csv", text)
    with pytest.raises(CloisterError, match=why) as found:
        sequence_file(source, tmp_path / "out.jsonl", options)
    assert "\n" not in str(found.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name]


def test_an_item_that_is_not_public_names_its_row(tmp_path: Path) -> None:
    public = file(tmp_path, "items.csv", "item,text\n1,one\n3,three\n")
    source = file(tmp_path, "in.csv", RATINGS)
    with pytest.raises(MisfitError, match=r"in\.csv, row 2: an item is not in the public file"):
        sequence_file(source, tmp_path / "out.jsonl", SequenceOptions(items=str(public)))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("item,text\n1,a\n1,b\n", "row 2: .*duplicate"),
        ("item,text\n1,a\n2,\n", "row 2: text is empty"),
        ("item,text\n1,a\n", "1 items"),
        ("item,name\n1,a\n2,b\n", "text is nothing"),
    ],
)
def test_a_damaged_file_of_items_is_refused(tmp_path: Path, text: str, why: str) -> None:
    source = file(tmp_path, "items.csv", text)
    with pytest.raises(DataError, match=why):
        read_catalogue(str(source), None)
    if "name" not in text:
        with pytest.raises(DataError):
            item_file(source, tmp_path / "out.jsonl")
        assert not (tmp_path / "out.jsonl").exists()


def test_a_missing_file_of_items_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"task\.items: .*no such file"):
        read_catalogue(str(tmp_path / "none.jsonl"), None)
    with pytest.raises(UsageError, match="--text: no such column"):
        item_file(file(tmp_path, "a.csv", "item,x\n1,2\n"), tmp_path / "o.jsonl")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Number("978300760"), ("a number", 978300760.0)),
        ("978300760", ("a number", 978300760.0)),
        ("1970-01-02", ("a date", 86400.0)),
        ("1970-01-01T01:00:00+01:00", ("a date", 0.0)),
        ("1/1/1970 1:00:00 AM", ("a date", 3600.0)),
    ],
)
def test_times_are_read_in_all_forms(value: str | Number, expected: tuple[str, float]) -> None:
    assert time_of_cell(value, "time", "here") == expected


@pytest.mark.parametrize("value", ["nan", "inf", "soon", "", None, True])
def test_what_is_no_time_is_refused(value: str | None) -> None:
    with pytest.raises(MisfitError, match="a number of seconds"):
        time_of_cell(value, "time", "here")
