"""`cloister data plant`: canaries beside the rows that were there, and their secrets apart."""

import csv
import json
from pathlib import Path
from random import Random

import pytest

from cloister.cli.main import run
from cloister.data.canaries import Canary, plant, read_canaries, secret_of
from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.data.records import ChatRecord, TextRecord
from cloister.errors import BadFileError, CloisterError, UsageError


def notes(path: Path, count: int = 6) -> Path:
    rows = [
        {
            "text": f"note {n} about chest pain",
            "label": "ab"[n % 2],
            "site": ("east", "west")[n % 2],
            "person": f"p{n}",
            "more": n,
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_planted_canaries_are_records_of_one_person_and_site(tmp_path: Path) -> None:
    source = notes(tmp_path / "train.jsonl")
    out, secrets = tmp_path / "planted.jsonl", tmp_path / "canaries.json"
    columns = {"person": "person", "site": "site"}
    made = plant(source, out, secrets, count=20, copies=3, columns=columns, random=Random(1))
    lines = out.read_text().splitlines()
    assert lines[:6] == source.read_text().splitlines()  # rows stay as they are
    assert 0 < len(made.planted) < 20
    assert len(lines) == 6 + 3 * len(made.planted)
    records = load(str(out), "train", "text", DataConfig(person="person"), sites=True)
    for number, canary in enumerate(made.planted):
        copies = records[6 + 3 * number : 9 + 3 * number]
        assert len({(one.site, one.person) for one in copies}) == 1
        for one in copies:
            assert isinstance(one, TextRecord)
            assert TextRecord(one.text, one.label) == canary.record()
            assert canary.secret in one.text
    planted = out.read_text()
    assert not any(one.secret in planted for one in made.kept_out)
    assert read_canaries(secrets) == made
    assert secrets.stat().st_mode & 0o077 == 0
    assert "secret" not in (tmp_path / "planted.jsonl.log.json").read_text()


def test_secrets_come_from_the_system_and_not_from_a_seed(tmp_path: Path) -> None:
    source = notes(tmp_path / "train.jsonl")
    made = [plant(source, tmp_path / f"{n}.jsonl", tmp_path / f"{n}.json", count=8) for n in (0, 1)]
    assert not {c.secret for c in made[0].canaries} & {c.secret for c in made[1].canaries}


def test_a_fair_coin_plants_each_canary(tmp_path: Path) -> None:
    """The lower bound on ε by the audit's test counts on it."""
    source = notes(tmp_path / "train.jsonl")
    out, secrets = tmp_path / "a.jsonl", tmp_path / "a.json"
    made = plant(source, out, secrets, count=1000, random=Random(5))
    assert abs(len(made.planted) - 500) < 5 * (1000 * 0.25) ** 0.5  # five deviations


def test_secrets_fill_their_space_evenly() -> None:
    drawn = [secret_of(Random(n)) for n in range(2000)]
    assert all(len(one) == 11 and one.replace(" ", "").isdigit() for one in drawn)
    first = sum(one[0] < "5" for one in drawn)
    assert abs(first - 1000) < 5 * (2000 * 0.25) ** 0.5  # five deviations of a fair coin


def test_conversations_and_tables_get_canaries_too(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    chats = tmp_path / "chats.jsonl"
    chats.write_text((json.dumps({"messages": turns}) + "\n") * 3)
    made = plant(chats, tmp_path / "a.jsonl", tmp_path / "a.json", count=9, random=Random(0))
    records = load(str(tmp_path / "a.jsonl"), "train", "messages", DataConfig())
    assert made.planted
    assert records[3:] == [one.record() for one in made.planted]
    assert all(isinstance(one, ChatRecord) for one in records)
    table = tmp_path / "train.csv"
    table.write_text("text,label\nchest pain,1\nrash,0\n")
    made = plant(table, tmp_path / "b.csv", tmp_path / "b.json", count=9, random=Random(0))
    rows = list(csv.DictReader((tmp_path / "b.csv").read_text().splitlines()))
    assert {row["label"] for row in rows[2:]} <= {"0", "1"}
    assert len(rows) == 2 + len(made.planted)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a file of canaries"),
        ("[]", "not a file of canaries"),
        ('{"format": 1}', "a field is missing"),
        (
            '{"format": 1, "kind": "text", "digits": 3, "copies": 1, "canaries": [{"name": "A", '
            '"secret": "12", "label": "a", "is_planted": true}]}',
            "a field is missing or of another type",
        ),
        (
            '{"format": 1, "kind": "messages", "digits": 3, "copies": 1, "canaries": [{"name": '
            '"A", "secret": "123", "label": "a", "is_planted": true}]}',
            "a field is missing or of another type",
        ),
        ("x" * 2_000_000, "more than"),
    ],
)
def test_a_damaged_file_of_secrets_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "canaries.json"
    path.write_text(content)
    with pytest.raises(BadFileError, match=message):
        read_canaries(path)


def test_any_bytes_are_canaries_or_refused(tmp_path: Path) -> None:
    whole = tmp_path / "canaries.json"
    plant(notes(tmp_path / "train.jsonl"), tmp_path / "a.jsonl", whole, count=3, random=Random(0))
    good, random, path = whole.read_bytes(), Random(7), tmp_path / "broken.json"
    for _ in range(60):
        broken = bytearray(good)
        for _ in range(random.randrange(1, 4)):
            broken[random.randrange(len(broken))] = random.randrange(256)
        path.write_bytes(bytes(broken[: random.randrange(1, len(broken) + 1)]))
        try:
            assert all(isinstance(one, Canary) for one in read_canaries(path).canaries)
        except CloisterError:
            continue


def test_bad_requests_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = notes(tmp_path / "train.jsonl")
    out, secrets = tmp_path / "a.jsonl", tmp_path / "a.json"
    with pytest.raises(UsageError, match="count: 0 given"):
        plant(source, out, secrets, count=0)
    with pytest.raises(UsageError, match="copies: 101 given"):
        plant(source, out, secrets, count=1, copies=101)
    tagged = tmp_path / "tagged.jsonl"
    tagged.write_text(json.dumps({"tokens": ["a"], "tags": ["O"]}) + "\n")
    with pytest.raises(UsageError, match="texts with a label, or conversations"):
        plant(tagged, out, secrets, count=1)
    for value in (None, True, ["a"]):
        named = tmp_path / "unlabelled.jsonl"
        named.write_text(json.dumps({"text": "chest pain", "label": value}) + "\n")
        with pytest.raises(UsageError, match="no row has a label"):
            plant(named, out, secrets, count=1)
    for taken in (out, tmp_path / "a.jsonl.log.json"):
        with pytest.raises(UsageError, match="is a file of --out too"):
            plant(source, out, taken, count=1)
        assert not taken.exists()
    asked = ["data", "plant", str(source), "--out", str(out), "--secrets", str(source)]
    assert run(asked) == 2
    assert "exists already" in capsys.readouterr().err
    assert not out.exists()
    assert not secrets.exists()
    assert run([*asked[:-1], str(secrets), "--count", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["canaries"] == 5
