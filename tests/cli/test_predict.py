"""`cloister predict` reads files and texts, and ends in one message for bad input."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cloister.cli.main import run
from cloister.errors import DataError
from cloister.serving.model import Model, load
from tests.support.studies import small_assignments


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, beside its study's."""
    place = tmp_path_factory.mktemp("predict")
    sets = [a for value in small_assignments(place / "study") for a in ("--set", value)]
    assert run(["simulate", *sets, "--json", "--out", str(place / "run")]) == 0
    return place / "run"


def predicted(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    capsys.readouterr()
    assert run(["predict", *arguments, "--json"]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)["predictions"]
    return found


def test_predictions_score_as_evaluate_says(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = finished.parent / "study" / "test.jsonl"
    assert run(["evaluate", str(finished), "--data", str(test), "--json"]) == 0
    accuracy = json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"]["accuracy"]
    labels = [json.loads(line)["label"] for line in test.read_text().splitlines()]
    found = predicted(capsys, str(finished), "--data", str(test))
    assert [set(row) for row in found] == [{"label", "probabilities", "is_cut"}] * 30
    hits = sum(row["label"] == label for row, label in zip(found, labels, strict=True))
    assert hits / 30 == pytest.approx(accuracy, abs=1e-9)


def test_no_label_is_needed(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "new.csv"
    data.write_text("text,age\nchest pain at rest,70\nitchy rash,30\n")
    found = predicted(capsys, str(finished / "adapter"), "--data", str(data))
    texts = ("--text", "chest pain at rest", "--text", "itchy rash")
    assert predicted(capsys, str(finished), *texts) == found
    assert len(found) == 2


def test_predictions_are_written_a_line_each_and_for_their_owner(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    texts = ("--text", "chest pain", "--text", "knee " * 40)
    assert run(["predict", str(finished), *texts, "--out", str(out)]) == 0
    assert "2 predictions" in capsys.readouterr().err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows == predicted(capsys, str(finished), *texts)
    assert [row["is_cut"] for row in rows] == [False, True]
    assert out.stat().st_mode & 0o777 == 0o600
    assert run(["predict", str(finished), *texts, "--out", str(out)]) == 2
    assert "not overwritten" in capsys.readouterr().err


def test_predictions_of_labels_are_written_as_a_table_for_a_name_that_ends_in_csv(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    texts = ("--text", "chest pain", "--text", "knee " * 40)
    assert run(["predict", str(finished), *texts, "--out", str(out)]) == 0
    assert "loading the base model" in capsys.readouterr().err
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    expected = predicted(capsys, str(finished), *texts)
    assert [row["label"] for row in rows] == [one["label"] for one in expected]
    assert [row["is_cut"] for row in rows] == ["false", "true"]
    shares = [float(rows[0][name]) for name in rows[0] if name.startswith("probability of ")]
    assert sum(shares) == pytest.approx(1, abs=1e-5)  # three shares of six digits each
    assert out.stat().st_mode & 0o777 == 0o600


def test_labels_are_shown_with_their_probabilities(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["predict", str(finished), "--text", "chest pain", "--text", "rash " * 40]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("cardiology", "dermatology", "orthopaedics"))
    assert "1 of 2 were longer than the 16 tokens" in shown


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"note": "chest pain"}\n', "row 1: no column 'text' (found: note)"),
        ('{"text": "rash"}\n{"text": " "}\n', "row 2: text is empty"),
        ('{"text": 7}\n', "row 1: text is an integer; text is needed"),
        ('{"text": null}\n', "row 1: text has no value (null)"),
        ("", "empty"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_message(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    data = tmp_path / "new.jsonl"
    data.write_text(content)
    assert run(["predict", str(finished), "--data", str(data)]) == 3
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told


def test_what_is_asked_for_is_either_a_file_or_texts(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["predict", str(finished)]) == 2
    assert "--data FILE or --text" in capsys.readouterr().err
    assert run(["predict", str(finished), "--data", "x.csv", "--text", "x"]) == 2


def test_a_folder_without_an_adapter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", str(tmp_path), "--text", "x"]) == 3
    assert "no adapter here" in capsys.readouterr().err


def test_another_base_than_the_runs(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    shutil.copytree(finished.parent / "study" / "base", base)
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert run(["predict", str(finished), "--text", "x", "--base", str(base)]) == 3
    assert "the study needs" in capsys.readouterr().err


def test_a_threshold_leaves_labels_out_and_says_why(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ("--text", "chest pain", "--text", "itchy rash")
    plain = predicted(capsys, str(finished), *texts)
    none = predicted(capsys, str(finished), *texts, "--threshold", "1")
    assert [(row["label"], row["reason"]) for row in none] == [("", "below 1")] * 2
    every = predicted(capsys, str(finished), *texts, "--threshold", "0")
    assert [row["label"] for row in every] == [row["label"] for row in plain]
    assert [row["confidence"] for row in every] == [
        max(row["probabilities"].values())  # type: ignore[attr-defined]
        for row in plain
    ]
    out = tmp_path / "sure.csv"
    assert run(["predict", str(finished), *texts, "--threshold", "1", "--out", str(out)]) == 0
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    assert [(row["label"], row["reason"]) for row in rows] == [("", "below 1")] * 2
    capsys.readouterr()
    assert run(["predict", str(finished), *texts, "--threshold", "1"]) == 0
    assert "no label: the most probable has" in capsys.readouterr().out


def test_a_file_is_predicted_for_as_it_is_read_and_written_whole_or_not_at_all(
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cloister.serving import model as serving

    monkeypatch.setattr(serving, "STREAMED", 4)
    data, out = tmp_path / "new.jsonl", tmp_path / "out.jsonl"
    texts = ["chest pain", "itchy rash", "knee swollen"] * 5
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert run(["predict", str(finished), "--data", str(data), "--out", str(out)]) == 0
    assert "15 predictions" in capsys.readouterr().err
    found = [json.loads(line)["label"] for line in out.read_text().splitlines()]
    assert found == [row["label"] for row in predicted(capsys, str(finished), "--data", str(data))]

    def broken(*_: object) -> object:
        raise MemoryError

    calls = iter([None, None])
    work = serving.Model._predicted

    def fails_later(*given: object) -> object:
        return work(*given) if next(calls, "end") is None else broken()  # type: ignore[arg-type]

    monkeypatch.setattr(serving.Model, "_predicted", fails_later)
    half = tmp_path / "half.jsonl"
    with pytest.raises(MemoryError):
        run(["predict", str(finished), "--data", str(data), "--out", str(half)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.jsonl", "out.jsonl"]


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_file_of_predictions_goes_on_where_it_stopped(
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
) -> None:
    monkeypatch.setattr("cloister.serving.model.STREAMED", 8)
    data = finished.parent / "study" / "test.jsonl"
    whole, out = tmp_path / f"whole.{ending}", tmp_path / f"out.{ending}"
    asked = ["predict", str(finished), "--data", str(data)]
    assert run([*asked, "--out", str(whole)]) == 0
    own, calls = Model._predicted, [0]

    def dies(model: Model, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return own(model, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Model, "_predicted", dies)
        assert run([*asked, "--out", str(out), "--resume"]) == 1
    assert "16 predictions are kept" in capsys.readouterr().err
    assert not out.exists()
    other = tmp_path / "other"
    shutil.copytree(finished / "adapter", other)
    (other / "cloister.json").write_text((other / "cloister.json").read_text() + " ")
    begun = ["--out", str(out), "--resume"]
    assert run(["predict", str(other), "--data", str(data), *begun]) == 2
    assert "begun with another adapter" in capsys.readouterr().err
    shorter = tmp_path / "shorter.jsonl"
    shorter.write_text("".join(data.read_text().splitlines(keepends=True)[:20]))
    assert run(["predict", str(finished), "--data", str(shorter), *begun]) == 2
    assert "begun with another data" in capsys.readouterr().err
    assert run([*asked, *begun, "--threshold", "0.9"]) == 2
    capsys.readouterr()
    assert run([*asked, *begun]) == 0
    assert "30 records, 16 of which are there" in capsys.readouterr().err
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
    # Given once more: there is nothing left to do, and the base is not loaded for it.
    monkeypatch.setattr("cloister.serving.model.load", None)
    assert run([*asked, *begun]) == 0
    assert f"{out} is finished: it has all 30 predictions" in capsys.readouterr().err
    assert run(["predict", str(finished), "--data", str(shorter), *begun]) == 2
    assert "is not a file of 20 predictions" in capsys.readouterr().err
    assert out.read_bytes() == whole.read_bytes()


def test_an_error_after_the_first_step_names_the_row_of_the_whole_file(
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for options in (["--text", "fever"], ["--data", "x.jsonl"]):
        assert run(["predict", str(finished), *options, "--resume"]) == 2
        assert "--resume: needs --data FILE and --out FILE" in capsys.readouterr().err
    assert list(load(finished).stream(["fever"], first=7))
    with pytest.raises(DataError, match="input 8: empty"):
        list(load(finished).stream(["fever", " "], first=7))


def test_a_file_that_changes_meanwhile_gives_no_predictions_of_two(
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, out = tmp_path / "new.jsonl", tmp_path / "out.jsonl"
    rows = (finished.parent / "study" / "test.jsonl").read_text()
    data.write_text(rows)
    own = Model._predicted

    def changes(model: Model, *arguments: Any) -> Any:
        data.write_text(rows + '{"text": "of tomorrow"}\n')
        return own(model, *arguments)

    monkeypatch.setattr(Model, "_predicted", changes)
    asked = ["predict", str(finished), "--data", str(data), "--out", str(out), "--resume"]
    assert run(asked) == 3
    assert "changed while it was read" in capsys.readouterr().err
    assert not out.exists()
