"""A file with copies has one unit per record and equal bytes each time, and couples no units."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from cloister.cli.main import run
from cloister.data.augment.files import MOST_COPIES, AugmentOptions, augment_file
from cloister.data.augment.synonyms import read_synonyms
from cloister.data.config import DataConfig
from cloister.data.load import file_rows, load
from cloister.data.records import RecordKind
from cloister.data.step_log import log_of
from cloister.data.unit_column import UNIT
from cloister.errors import DataError, UsageError

ROWS: list[dict[str, Any]] = [
    {"text": "The patient has had chest pain at rest since Monday", "label": "cardiology"},
    {"text": "皮肤红疹三天，不痛，有点痒，已经用药", "label": "皮肤科"},
    {"text": "An itching rash on both arms after work", "label": "dermatology"},
    {"text": "The patient has had chest pain at rest since Monday", "label": "cardiology"},
]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return written(tmp_path / "notes.jsonl", ROWS)


def units(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of each unit, without its name."""
    found: dict[str, list[dict[str, Any]]] = {}
    for _, row in file_rows(path, "train", ("text", "label", UNIT)):
        rest = {name: value for name, value in row.items() if name != UNIT}
        found.setdefault(str(row[UNIT]), []).append(rest)
    return found


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_a_record_and_its_copies_are_one_unit_with_its_label(notes: Path, ending: str) -> None:
    out = notes.with_name(f"out{ending}")
    report = augment_file(notes, out, AugmentOptions(copies=3))
    made = list(units(out).values())
    assert [rows[0] for rows in made] == ROWS  # equal records are units of their own
    assert [len(rows) for rows in made] == [4] * 4
    for rows in made:
        assert len({row["text"] for row in rows}) == 4
        assert len({row["label"] for row in rows}) == 1
    assert (report.records, report.rows, report.largest, report.short) == (4, 16, 4, 0)
    assert sum(report.methods.values()) == 12
    assert set(report.methods) == {"drop", "swap", "typos"}
    records = load(str(out), "train", "text", DataConfig(train=str(out), test="x.csv"))
    assert len({record.unit for record in records}) == 4


def test_equal_files_and_seeds_give_equal_bytes_and_another_seed_does_not(notes: Path) -> None:
    outs = [notes.with_name(f"out{number}.jsonl") for number in range(3)]
    for out, seed in zip(outs, ("a", "a", "b"), strict=True):
        augment_file(notes, out, AugmentOptions(seed=seed))
    one, same, other = (out.read_bytes() for out in outs)
    assert one == same
    assert not units(outs[0]).keys() & units(outs[2]).keys()
    assert one != other


def test_a_record_more_or_less_changes_no_other_unit(notes: Path) -> None:
    """Neighbours as read are neighbours as written: in one unit, wherever the record stands."""
    whole = notes.with_name("whole.jsonl")
    augment_file(notes, whole)
    for place in range(len(ROWS)):
        left = [row for number, row in enumerate(ROWS) if number != place]
        out = notes.with_name(f"without{place}.jsonl")
        augment_file(written(notes.with_name(f"left{place}.jsonl"), left), out)
        found, all_of_them = units(out), units(whole)
        assert len(found) == len(all_of_them) - 1
        assert all(all_of_them[name] == rows for name, rows in found.items())


def test_the_log_has_the_output_s_hash_and_couples_nothing(notes: Path) -> None:
    out = notes.with_name("out.jsonl")
    words = notes.with_name("words.txt")
    words.write_text("rash, eruption\n红疹，皮疹\n")
    augment_file(notes, out, AugmentOptions(copies=2, synonyms=read_synonyms(words)))
    log = json.loads(log_of(out).read_text())
    (step,) = log["steps"]
    assert step["command"] == "augment"
    assert not log["couples_units"]
    assert step["settings"]["how"] == ["drop", "swap", "typos", "synonyms"]
    assert step["counts"]["most_rows_of_a_record"] == 3
    assert len(step["output"]["sha256"]) == 64
    assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE(log_of(out).stat().st_mode) == 0o600


SENTENCE = {
    "tokens": ["Doctor", "Anna", "Berg", "saw", "the", "patients", "of", "王", "医", "生", "today"],
    "tags": ["O", "B-P", "I-P", "O", "O", "O", "O", "B-P", "I-P", "I-P", "O"],
}


def entities(row: dict[str, Any]) -> list[list[str]]:
    found: list[list[str]] = []
    for tag in row["tags"]:
        if tag.startswith("B"):
            found.append([])
        if tag != "O":
            found[-1].append(tag)
    return found


def test_each_word_keeps_its_tag_and_no_entity_its_parts(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("patients, clients, sick people\nAnna Berg, X\n")
    source, out = written(tmp_path / "in.jsonl", [SENTENCE]), tmp_path / "out.jsonl"
    report = augment_file(
        source, out, AugmentOptions(copies=16, synonyms=read_synonyms(words), share=0.3)
    )
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) > 9
    assert set(report.methods) == {"drop", "swap", "typos", "synonyms"}
    for row in rows:
        assert len(row["tokens"]) == len(row["tags"])
        assert entities(row) == entities(SENTENCE)
        named = [word for word, tag in zip(row["tokens"], row["tags"], strict=True) if tag != "O"]
        assert len(named) == 5
        assert "sick people" not in row["tokens"]
    records = load(str(out), "train", "tokens", DataConfig(train=str(out), test="x.jsonl"))
    assert len({record.unit for record in records}) == 1


ASKED = "When does the clinic open on Monday morning"
REPLY = "The clinic opens at eight on Monday morning"
CHATS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": REPLY}]},
    {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": REPLY}]},
    {"prompt": ASKED, "completion": REPLY},
    {"instruction": ASKED, "output": REPLY},
    {"prompt": ASKED, "chosen": REPLY, "rejected": "I do not know at all"},
]


@pytest.mark.parametrize("chat", CHATS, ids=lambda chat: next(iter(chat)))
def test_of_a_conversation_the_questions_change_and_no_reply(
    tmp_path: Path, chat: dict[str, Any]
) -> None:
    source, out = written(tmp_path / "in.jsonl", [chat, chat]), tmp_path / "out.jsonl"
    augment_file(source, out, AugmentOptions(copies=3))
    lines = out.read_text().splitlines()
    assert len(lines) == 8
    assert all(REPLY in line for line in lines)
    assert sum(ASKED in line for line in lines) == 2
    kind: RecordKind = "messages"
    records = load(str(out), "train", kind, DataConfig(train=str(out), test="x.jsonl"))
    assert len({record.unit for record in records}) == 2


def test_a_paraphrase_is_one_of_the_methods(notes: Path) -> None:
    out = notes.with_name("out.jsonl")
    seeds = []

    def say(text: str, seed: int) -> str | None:
        seeds.append(seed)
        return f"{text} ({len(seeds)})" if "rash" in text else None

    options = AugmentOptions(copies=2, how=["paraphrase"], paraphrase=say, model="f" * 64)
    report = augment_file(notes, out, options)
    assert (report.rows, report.short, report.methods) == (6, 3, {"paraphrase": 2})
    assert len(set(seeds)) > 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"copies": 0}, "--copies: 0 given"),
        ({"copies": MOST_COPIES + 1}, "--copies"),
        ({"share": 0.0}, "--share"),
        ({"share": 0.6}, "--share"),
        ({"how": ["dropp"]}, "--how: unknown method 'dropp'; give some of drop"),
        ({"how": ["synonyms"]}, "synonyms also needs --synonyms"),
        (
            {"how": ["drop"], "paraphrase": lambda text, seed: None},
            "--paraphrase: has no effect without paraphrase in --how",
        ),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        AugmentOptions(**options)


def test_a_file_with_copies_is_not_augmented_again_even_without_its_column(notes: Path) -> None:
    out = notes.with_name("out.jsonl")
    augment_file(notes, out)
    with pytest.raises(DataError, match="already has copies of records"):
        augment_file(out, notes.with_name("again.jsonl"))
    cut = [
        {k: v for k, v in json.loads(x).items() if k != UNIT}
        for x in out.read_text().split("\n")[:-1]
    ]
    written(out, cut)
    with pytest.raises(DataError, match="already has copies of records"):
        augment_file(out, notes.with_name("again.jsonl"))
    assert not notes.with_name("again.jsonl").exists()
    assert not log_of(notes.with_name("again.jsonl")).exists()


def test_a_file_without_a_copy_is_not_written(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", [{"text": "7", "label": "a"}] * 3)
    with pytest.raises(DataError, match="no row can be varied"):
        augment_file(source, tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_the_command_says_what_a_recipe_needs(
    notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = notes.with_name("out.csv")
    command = ["data", "augment", str(notes), "--out", str(out), "--copies", "2"]
    assert run([*command, "--how", "drop, swap"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "4 records, 12 rows with copies" in said
    assert "privacy.max_rows_per_record = 3" in said
    assert run(command) == 2  # the file is there
    assert run([*command[:3], "--out", str(notes.with_name("b.csv")), "--how", "x"]) == 2
