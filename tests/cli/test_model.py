"""`cloister model export`: a run's model in other forms, scored on public records alone."""

import json
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import simulate
from tests.support.studies import small_recipe


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run's folder, of a study whose texts become the mean of their tokens."""
    place = tmp_path_factory.mktemp("finished")
    recipe = small_recipe(place / "study", "model.pooling=mean")
    directory = RunDirectory.create(place / "run", recipe)
    simulate(recipe, directory)
    return directory.path


def test_forms_are_written_scored_and_told(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shipped"
    forms = ["--format", "onnx", "--format", "sentence-transformers"]
    assert run(["model", "export", str(finished), *forms, "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["folders"] == {n: str(out / n) for n in ("onnx", "sentence-transformers")}
    assert document["metric"] == "accuracy"
    assert document["scored_on"] == "the study's public test set (30 records)"
    accuracy = json.loads((finished / "result.json").read_text())["test"]["accuracy"]
    assert {row["score"] for row in document["forms"]} == {accuracy}
    for name in document["folders"]:
        card = (out / name / "README.md").read_text()
        for row in document["forms"]:
            assert (
                f"| {row['form']} | {row['bytes'] / 1e6:.2f} | {row['milliseconds']:.1f} |" in card
            )
        assert "## Privacy" in card  # carried over from the adapter's own card
        assert "PeftModel" not in card  # which loads another folder
        told = json.loads((out / name / "export.json").read_text())
        assert told["forms"] == document["forms"]
        assert told["format"] == name


def test_a_person_reads_a_table(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["model", "export", str(finished), "--format", "sentence-transformers"]
    assert run([*asked, "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    assert "accuracy" in shown.out
    assert "sentence-transformers" in shown.out
    assert str(tmp_path / "out") in shown.err


def test_private_records_are_refused_under_any_name(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = finished.parent / "study" / "train.jsonl"
    copy, part, public = (tmp_path / f"{name}.jsonl" for name in ("copy", "part", "public"))
    copy.write_bytes(train.read_bytes())
    part.write_text("".join(train.read_text().splitlines(keepends=True)[:20]))
    public.write_text(json.dumps({"text": "a fever", "label": "dermatology"}) + "\n")
    form = ["--format", "sentence-transformers", "--out", str(tmp_path / "out")]
    for file in (train, copy, part):
        assert run(["model", "export", str(finished), *form, "--test", str(file)]) == 4
        assert "the study's private records" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert run(["model", "export", str(finished), *form, "--test", str(public), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["scored_on"]
    assert said == "public.jsonl, which its owner declared public (1 records)"


def test_one_message_and_its_code(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    asked = [
        (["--format", "merged"], 2, "these fit: sentence-transformers, onnx, int8, int4"),
        (["--format", "tflite"], 2, "not known; choose from merged"),
        (["--format", "onnx", "--test", str(tmp_path / "none")], 2, "is no file here"),
    ]
    for options, code, said in asked:
        assert run(["model", "export", str(finished), *options, "--out", out]) == code
        assert said in capsys.readouterr().err
    assert run(["model", "export", str(tmp_path), "--format", "onnx", "--out", out]) == 3
    assert list(tmp_path.iterdir()) == []
