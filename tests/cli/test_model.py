"""`cloister model` exports a run's model and scores it on public records only; its versions."""

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from cloister.cli.main import run
from cloister.evidence.bundle import read_bundle
from cloister.evidence.certificate_alone import to_bytes
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import simulate
from tests.support.models import tiny_bert
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
    again = tmp_path / "again"  # whose own test set is a copy of them
    shutil.copytree(finished, again)
    recipe = (again / "recipe.toml").read_text()
    (again / "recipe.toml").write_text(
        recipe.replace(str(train.with_name("test.jsonl")), str(copy))
    )
    assert run(["model", "export", str(again), *form]) == 4
    assert "data.test: " in capsys.readouterr().err
    assert run(["model", "export", str(finished), *form, "--test", str(public), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["scored_on"]
    assert said == "public.jsonl, which its owner declared public (1 records)"


def test_one_message_and_its_code(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    asked = [
        (["--format", "merged"], 2, "these fit: sentence-transformers, onnx, int8, int4"),
        (["--format", "tflite"], 2, "unknown format; choose from merged"),
        (["--format", "onnx", "--test", str(tmp_path / "none")], 2, "no such file"),
    ]
    for options, code, said in asked:
        assert run(["model", "export", str(finished), *options, "--out", out]) == code
        assert said in capsys.readouterr().err
    other = tiny_bert(finished.parent / "other", seed=7)
    form = ["--format", "onnx", "--out", out]
    assert run(["model", "export", str(finished), *form, "--base", str(other)]) == 3
    assert "the study needs" in capsys.readouterr().err
    assert run(["model", "export", str(tmp_path), *form]) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_version_s_way_from_a_run_to_production_and_back(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--registry", str(tmp_path / "registry")]

    def model(*words: str, code: int = 0) -> str:
        assert run(["model", *words, *where]) == code
        shown = capsys.readouterr()
        return shown.err if code else shown.out

    assert "nothing is there; look at the path" in model("list", code=2)
    assert "--as NAME --registry" in model("list", code=2)
    later = tmp_path / "later"
    shutil.copytree(finished, later)
    head = load_file(later / "adapter" / "head.safetensors")
    save_file({**head, "bias": head["bias"] + 1}, later / "adapter" / "head.safetensors")
    assert "is served at production now" in model("promote", str(finished), "--as", "triage")
    assert "is served" in model("promote", str(later), "--as", "triage", "--by", "ann")
    listed = json.loads(model("list", "--json"))["models"]["triage"]["production"]["served"]
    assert len(listed) == 2
    shown = json.loads(model("show", "triage", "--json"))
    lineage = shown["lineage"]
    assert lineage["sha256"] == listed[1]
    directory = RunDirectory(finished)
    assert lineage["recipe_sha256"] == directory.recipe().digest()
    heads = {site: asdict(head) for site, head in directory.heads().items()}
    assert lineage["ledgers"] == heads
    result = json.loads((finished / "result.json").read_text())
    assert lineage["promises"] == {one["name"]: one["promise"] for one in result["sites"]}
    assert lineage["metrics"] == result["test"]
    assert str(finished.parent) + "/study/train" not in json.dumps(lineage)
    (place := tmp_path / "ruled").mkdir()
    (place / "registry.json").write_text('{"schema": 1}')
    assert run(["model", "list", "--registry", str(place)]) == 0
    assert "no model in" in capsys.readouterr().out
    told = model("show", "triage", "--version", listed[0][:8])
    assert "against coordinator" in told
    assert listed[0] in told
    page = tmp_path / "triage.html"
    model("show", "triage", "--html", str(page))
    text = page.read_text(encoding="utf-8")
    for part in (f"triage, version {listed[1][:12]}", "Served at production.", *heads, "ann"):
        assert part in text
    assert f"{result['sites'][0]['promise']['epsilon']:g}</td>" in text
    assert "<script" not in text
    assert "http" not in text
    assert "is not overwritten" in model("show", "triage", "--html", str(page), code=2)
    page.unlink()
    model("show", "triage", "--version", listed[0][:8], "--html", str(page))
    assert "Not served at any stage." in page.read_text(encoding="utf-8")
    changes = json.loads(model("diff", "triage", "--json"))
    assert changes["versions"] == listed
    assert set(changes["differences"]) == {"norms"}
    assert "norms  bias: " in model("diff", "triage", listed[1][:8], listed[0][:8])
    assert listed[0][:12] in model("rollback", "triage")
    assert "already" in model("promote", str(finished), "--as", "triage", code=2)
    assert "give two" in model("diff", "triage", listed[0][:8], code=2)
    assert "no such model" in model("show", "bank", code=2)


def test_people_sign_what_two_of_them_must_promote(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--registry", str(tmp_path / "registry")]
    keys = {}
    for name in ("ann", "bo"):
        assert run(["model", "key", str(tmp_path / name)]) == 0
        keys[name] = capsys.readouterr().out.strip()
    named = [word for name, key in keys.items() for word in ("--approver", f"{name}={key}")]
    assert run(["model", "rule", *where, "--needs", "3", *named]) == 2
    assert run(["model", "rule", *where, "--needs", "2", *named]) == 0
    assert "2 must promote" in capsys.readouterr().out
    promote = ["model", "promote", str(finished), "--as", "triage", *where]
    for name, said in (("ann", "1 of 2 people promoted it (ann)"), ("bo", "is served")):
        assert run([*promote, "--by", name, "--key", str(tmp_path / name)]) == 0
        assert said in capsys.readouterr().out
    assert run([*promote, "--by", "ann", "--key", str(tmp_path / "bo")]) == 4
    assert run([*promote, "--by", "ann"]) == 2
    assert run([*promote, "--by", "ann", "--key", str(finished / "recipe.toml")]) == 3
    assert run(["model", "key", str(tmp_path / "ann")]) == 2


def test_a_version_names_the_certificates_of_its_run(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certified = tmp_path / "run"
    shutil.copytree(finished, certified)
    assert run(["audit", "certificate", str(certified)]) == 0
    bundle = read_bundle(certified / "certificates" / "bundle.zip")
    for site, evidence in bundle.sites.items():  # as deployed sites send theirs
        RunDirectory(certified).save_certificate(site, to_bytes(evidence.certificate))
    where = ["--registry", str(tmp_path / "registry")]
    assert run(["model", "promote", str(certified), "--as", "triage", *where]) == 0
    capsys.readouterr()
    assert run(["model", "show", "triage", *where, "--json"]) == 0
    lineage = json.loads(capsys.readouterr().out)["lineage"]
    files = sorted((certified / "certificates").glob("*.certificate.json"))
    assert len(files) == 2
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    digests["bundle.zip"] = hashlib.sha256(
        (certified / "certificates" / "bundle.zip").read_bytes()
    ).hexdigest()
    assert lineage["certificates"] == digests
    bodies = [json.loads(json.loads(file.read_text())["body"]) for file in files]
    assert {body["adapter"] for body in bodies} == {lineage["sha256"]}
    assert lineage["ledgers"] == {body["site"]: body["ledger"] for body in bodies}
    assert lineage["promises"] == {body["site"]: body["promise"] for body in bodies}
    files[0].write_text("[]")
    assert run(["model", "promote", str(certified), "--as", "bank", *where]) == 3
    assert "the certificate cannot be read" in capsys.readouterr().err


def test_a_smaller_model_is_written_measured_and_used_by_other_commands(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "small")
    assert run(["model", "compress", str(finished), "--out", out, "--drop-layers", "1"]) == 0
    shown = capsys.readouterr()
    assert "choosing layer 1 of 1 to drop" in shown.err
    assert "trained" in shown.out
    assert "compressed" in shown.out
    told = json.loads((tmp_path / "small" / "compress.json").read_text())
    assert told["scored_on"] == "the study's public test set (30 records)"
    accuracy = json.loads((finished / "result.json").read_text())["test"]["accuracy"]
    assert told["models"][0]["score"] == accuracy
    test = str(finished.parent / "study" / "test.jsonl")
    assert run(["evaluate", out, "--data", test, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["accuracy"] == told["models"][1]["score"]
    card = (tmp_path / "small" / "README.md").read_text()
    assert "## Privacy" in card  # carried over from the study's own card
    assert "PeftModel" not in card
    where = ["--registry", str(tmp_path / "registry")]
    assert run(["model", "promote", out, "--as", "small", *where]) == 0
    export = ["model", "export", out, "--format", "sentence-transformers"]
    assert run([*export, "--out", str(tmp_path / "again")]) == 0
    assert "## Compressed" in (tmp_path / "again" / "README.md").read_text()


def test_nothing_is_chosen_or_learnt_by_private_texts(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = finished.parent / "study" / "train.jsonl"
    rows = [json.loads(line) for line in train.read_text().splitlines()]
    copy, bare, few = (tmp_path / f"{name}.jsonl" for name in ("copy", "bare", "few"))
    copy.write_bytes(train.read_bytes())
    bare.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in rows[:9]))
    public = "".join(json.dumps({"text": f"{count} itchy knees"}) + "\n" for count in range(9))
    few.write_text(public + json.dumps({"text": rows[0]["text"]}) + "\n")  # a tenth, as happens
    small = tmp_path / "small"
    asked = ["model", "compress", "--out", str(small), "--drop-layers", "1"]
    for file in (train, copy, bare):
        assert run([*asked, str(finished), "--public", str(file)]) == 4
        assert "--public: " in (said := capsys.readouterr().err)
        assert "the study's private records" in said
        assert run([*asked, str(finished), "--test", str(train)]) == 4
    assert not small.exists()
    assert run([*asked, str(finished), "--public", str(few), "--json"]) == 0
    assert (
        "few.jsonl, which its owner declared public"
        in json.loads(capsys.readouterr().out)["steps"][0]
    )
    # A compressed model remembers whose records it must not read.
    again = ["model", "compress", str(small), "--out", str(tmp_path / "again")]
    assert run([*again, "--sparsity", "0.5", "--public", str(bare)]) == 4
    assert run([*again, "--sparsity", "1"]) == 2
    assert run([*again, "--sparsity", "nan"]) == 2
    assert run([*again, "--distil", "1"]) == 2
    assert run([*again, "--distil", "1", "--public", str(tmp_path / "none.jsonl")]) == 2
    assert not (tmp_path / "again").exists()
