"""An annotator's file loses no saved answer, and can be trained on at any time."""

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.data.config import DataConfig
from cloister.data.detected import detect_form
from cloister.data.load import load
from cloister.data.outputs import sha256_of
from cloister.data.records import TextRecord, TokenRecord
from cloister.data.step_log import steps_of
from cloister.errors import BadFileError, DataError, UsageError
from tests.support.examples import tries
from tests.support.labelled import TEXTS, labelled, opened, records, rows_of

LABELS = ("yes", "no")


def test_an_answer_is_on_disk_with_its_whole_record(tmp_path: Path) -> None:
    source, out = records(tmp_path / "notes.jsonl"), tmp_path / "ann.jsonl"
    before = source.read_bytes()
    with opened(source, out, labels=LABELS) as (session, _):
        shown = session.answer(1, "no")
        assert rows_of(out) == [
            {
                "text": TEXTS[1],
                "person": "p1",
                "day": 1,
                "label": "no",
                "cloister_row": 2,
                "cloister_annotator": "ann",
            }
        ]
        assert (shown["at"], shown["answered"]) == (2, 1)
    assert source.read_bytes() == before
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    (record,) = load(str(out), "test", "text", DataConfig())
    assert record == TextRecord(TEXTS[1], "no")


def test_a_kill_loses_nothing_and_the_next_start_goes_on(tmp_path: Path) -> None:
    source, out = records(tmp_path / "notes.jsonl"), tmp_path / "ann.jsonl"
    program = """
import os, signal, sys
from pathlib import Path
from tests.support.labelled import opened
with opened(Path(sys.argv[1]), Path(sys.argv[2]), labels=("yes", "no")) as (session, _):
    session.answer(0, "yes")
    session.answer(2, "no")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, str(source), str(out)],
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    with out.open("ab") as file:  # and the machine went down while a row was written
        file.write(b'{"text": "half of')
    with opened(source, out) as (session, settings):
        assert [row["label"] for row in rows_of(out)] == ["yes", "no"]
        assert settings.scheme.labels == LABELS
        assert session.start() == 3  # after the last answer; what was skipped comes at the end
        assert session.answer(3, "yes")["at"] == 4
        assert session.answer(4, "yes")["at"] == 1
        assert session.answer(1, "yes")["at"] == len(TEXTS)


steps = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 4), st.sampled_from(LABELS)), st.sampled_from(["undo", "reopen"])
    ),
    max_size=12,
)


@settings(max_examples=tries(40), deadline=None)
@given(steps)
def test_answers_are_those_of_a_plain_dictionary(actions: list[str | tuple[int, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, out = records(Path(folder) / "notes.jsonl"), Path(folder) / "ann.jsonl"
        expected: dict[int, str] = {}
        past: list[tuple[int, str | None]] = []
        at = 0
        while True:
            with opened(source, out, labels=LABELS) as (session, _):
                while at < len(actions) and actions[at] != "reopen":
                    action = actions[at]
                    at += 1
                    if action == "undo":
                        session.undo()
                        if past:
                            place, was = past.pop()
                            if was is None:
                                del expected[place]
                            else:
                                expected[place] = was
                    elif isinstance(action, tuple) and expected.get(action[0]) != action[1]:
                        session.answer(*action)
                        place, label = action
                        past.append((place, expected.get(place)))
                        expected = {k: v for k, v in expected.items() if k != place}
                        expected[place] = label
                    elif isinstance(action, tuple):
                        session.answer(*action)
                    found = {row["cloister_row"] - 1: row["label"] for row in rows_of(out)}
                    assert found == expected
                past = [(place, None) for place in found_order(out)]
            if at >= len(actions):
                break
            at += 1
        step = steps_of(out, sha256_of(out))[-1]
        assert step["counts"] == {"answered": len(expected), "rows": len(TEXTS)}
        assert step["couples_units"] is (len(expected) < len(TEXTS))


def found_order(out: Path) -> list[int]:
    return [row["cloister_row"] - 1 for row in rows_of(out)]


def test_a_full_disk_says_so_and_leaves_no_half_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = records(tmp_path / "notes.jsonl"), tmp_path / "ann.jsonl"
    with opened(source, out, labels=LABELS) as (session, _):
        session.answer(0, "yes")
        before = out.read_bytes()

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space"):
                session.answer(1, "no")
        assert out.read_bytes() == before
        assert session.answered == 1
        session.answer(1, "no")
        assert len(rows_of(out)) == 2


def test_two_pages_do_not_write_one_file(tmp_path: Path) -> None:
    source, out = records(tmp_path / "notes.jsonl"), tmp_path / "ann.jsonl"
    with (
        opened(source, out, labels=LABELS),
        pytest.raises(UsageError, match="another page"),
        opened(source, out),
    ):
        pass
    with opened(source, out):
        pass


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "--labels: 0 given"),
        ({"labels": ("one",)}, "2 to 34"),
        ({"labels": ("a", "a")}, "given twice"),
        ({"labels": ("a", " ")}, "visible characters"),
        ({"labels": ("a", "b\x1b[0m")}, "visible characters"),
        ({"labels": tuple(map(str, range(35)))}, "35 given"),
        ({"kind": "score", "labels": LABELS}, "a score has no labels"),
        ({"kind": "score", "lowest": 5.0, "highest": 1.0}, "must be below"),
        ({"kind": "score", "lowest": float("nan")}, "finite"),
        ({"labels": LABELS, "lowest": 1.0}, "only scores have bounds"),
        ({"labels": LABELS, "column": "person"}, "has a column 'person' already"),
        ({"labels": LABELS, "columns": {"text": "body"}}, "--text body"),
    ],
)
def test_what_cannot_be_is_refused_before_a_file_is_made(
    tmp_path: Path, asked: dict[str, object], words: str
) -> None:
    source, out = records(tmp_path / "notes.jsonl"), tmp_path / "ann.jsonl"
    with pytest.raises(UsageError, match=words), opened(source, out, **asked):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["notes.jsonl"]


def test_a_labelling_goes_on_as_it_was_begun_or_not_at_all(tmp_path: Path) -> None:
    source, out = records(tmp_path / "notes.jsonl"), tmp_path / "ann.jsonl"
    labelled(source, out, ["yes"])
    for asked in ({"labels": ("a", "b")}, {"annotator": "bo"}, {"sample": 2}, {"kind": "several"}):
        with pytest.raises(UsageError, match="was started with"), opened(source, out, **asked):
            pass
    source.write_text(source.read_text().replace("头晕", "头痛"))
    with pytest.raises(UsageError, match="another content"), opened(source, out):
        pass
    assert len(rows_of(out)) == 1


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    source = records(tmp_path / "notes.jsonl")
    other = tmp_path / "other.jsonl"
    other.write_text("precious\n")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "nowhere")
    for out in (source, other, tmp_path / "link.jsonl", tmp_path / "none" / "a.jsonl"):
        with pytest.raises(UsageError, match="--out"), opened(source, out, labels=LABELS):
            pass
    with pytest.raises(UsageError, match=r"ends in \.jsonl"):
        labelled(source, tmp_path / "a.csv", [])
    assert other.read_text() == "precious\n"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "x", "label": "yes", "cloister_row": 99}', "unknown record"),
        ('{"text": "x", "label": "perhaps", "cloister_row": 2}', "not an answer of this page"),
        ('{"text": "x", "label": "yes", "cloister_row": 1}', "duplicate record 1"),
        ("not JSON", "no valid JSON"),
    ],
)
def test_a_file_that_somebody_changed_is_refused_with_its_row(
    tmp_path: Path, line: str, words: str
) -> None:
    source = records(tmp_path / "notes.jsonl")
    out = labelled(source, tmp_path / "ann.jsonl", ["yes"])
    out.write_text(out.read_text() + line + "\n")
    before = out.read_bytes()
    with pytest.raises(DataError, match=words), opened(source, out):
        pass
    assert out.read_bytes() == before


def test_records_that_nobody_can_read_are_named(tmp_path: Path) -> None:
    source = records(tmp_path / "notes.jsonl", ["fine", "  "])
    with pytest.raises(DataError, match="row 2: the text is empty"):
        labelled(source, tmp_path / "a.jsonl", [])
    source.write_text('{"text": "fine", "note": "\\ud800"}\n')
    with pytest.raises(DataError, match="row 1: a column cannot be written"):
        labelled(source, tmp_path / "a.jsonl", [])
    with pytest.raises(BadFileError, match="no such file"):
        labelled(tmp_path / "none.jsonl", tmp_path / "a.jsonl", [])


def test_a_sample_is_every_annotator_s(tmp_path: Path) -> None:
    source = records(tmp_path / "notes.jsonl", [f"text {n}" for n in range(50)])
    found = []
    for name, seed in (("ann", 3), ("bo", 3), ("cy", 4)):
        out = tmp_path / f"{name}.jsonl"
        with opened(source, out, labels=LABELS, sample=10, seed=seed) as (session, _):
            found.append([item.number for item in session.items])
    assert found[0] == found[1] != found[2]
    assert len(set(found[0])) == 10
    assert found[0] == sorted(found[0])


def test_entities_are_written_as_words_and_tags(tmp_path: Path) -> None:
    source = records(tmp_path / "notes.jsonl", ["服用 aspirin 100mg，头痛"])
    out = tmp_path / "ann.jsonl"
    with opened(source, out, labels=("DRUG", "SIGN"), kind="entities") as (session, _):
        words = session.at(0)["words"]
        assert words == ["服", "用", "aspirin", "100mg", "，", "头", "痛"]
        with pytest.raises(DataError, match="not an answer"):
            session.answer(0, ["O"] * 6)
        with pytest.raises(DataError, match="not an answer"):
            session.answer(0, ["O"] * 6 + ["B-DOSE"])
        # An entity that begins without a beginning gets one.
        session.answer(0, ["O", "O", "B-DRUG", "I-DRUG", "O", "I-SIGN", "I-SIGN"])
    (record,) = load(str(out), "test", "tokens", DataConfig())
    assert record == TokenRecord(
        tuple(words), ("O", "O", "B-DRUG", "I-DRUG", "O", "B-SIGN", "I-SIGN")
    )


def test_several_labels_and_scores_are_written_as_recipes_read_them(tmp_path: Path) -> None:
    source = records(tmp_path / "notes.jsonl", ["a text", "b text", "c text"])
    out = labelled(source, tmp_path / "s.jsonl", [["no", "yes"], []], kind="several")
    assert [row["labels"] for row in rows_of(out)] == [["yes", "no"], []]
    out = tmp_path / "n.jsonl"
    with opened(source, out, kind="score", lowest=0.0, highest=5.0) as (session, _):
        session.answer(0, 4)
        session.answer(1, 2.5)
        for wrong in (5.5, -1, "4", True, None, [1]):
            with pytest.raises(DataError):
                session.answer(2, wrong)
    assert [row["score"] for row in rows_of(out)] == [4, 2.5]
    with opened(source, out) as (session, _):
        assert session.at(1)["answer"] == 2.5


def test_numbers_of_the_source_stay_digit_for_digit(tmp_path: Path) -> None:
    source = tmp_path / "notes.jsonl"
    source.write_text('{"text": "x", "id": 12345678901234567890123, "weight": 1.50}\n')
    out = labelled(source, tmp_path / "a.jsonl", ["yes"])
    assert '"id": 12345678901234567890123, "weight": 1.50,' in out.read_text()
    assert json.loads(out.read_text())["label"] == "yes"
    assert detect_form(out).names()[:3] == ("text", "id", "weight")
