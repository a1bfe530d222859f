"""Each kind of bad input ends in one clear message and its exit code, and loses nothing."""

import json
import shutil
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.ledger.budget import Budget
from cloister.ledger.charge import Charge
from cloister.ledger.ledger import Ledger
from cloister.privacy.units import Unit
from cloister.recipe import read_recipe
from cloister.simulation.study import prepare
from tests.support.studies import small_assignments


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    small_assignments(folder)
    return folder


def simulate(
    study: Path, *assignments: str, out: str = "run", options: tuple[str, ...] = ()
) -> int:
    sets = [a for value in (*small_assignments(study), *assignments) for a in ("--set", value)]
    return run(["simulate", *sets, "--no-twin", "--out", str(study.parent / out), *options])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What stderr ends with, as one line; never a traceback, and nothing on stdout."""
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.out == ""
    return " ".join(captured.err[captured.err.index("cloister: ") :].split())


def test_a_missing_file(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(study, "data.train='none.jsonl'") == 3
    assert "none.jsonl: no such file" in said(capsys)


def test_a_malformed_file_names_its_row(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = study / "broken.jsonl"
    broken.write_text('{"text": "a", "label": "b", "site": "east"}\n{"text": \n')
    assert simulate(study, f"data.train='{broken}'") == 3
    assert "broken.jsonl, row 2" in said(capsys)


def test_a_row_without_its_column(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lacking = study / "lacking.jsonl"
    rows = [{"text": "a", "label": "b", "site": "x"}, {"text": "c", "class": "d", "site": "x"}]
    lacking.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert simulate(study, f"data.train='{lacking}'") == 3
    assert "row 2: no column 'label' (found: text, class, site)" in said(capsys)


def test_a_label_that_the_public_test_set_lacks(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = study / "strange.jsonl"
    strange.write_text('{"text": "a", "label": "astrology", "site": "east"}\n')
    assert simulate(study, f"data.train='{strange}'") == 3
    told = said(capsys)
    assert "labels that are not the study's: astrology" in told
    assert "task.labels" in told


@pytest.mark.parametrize("name", ["a/b", "../up", ".hidden", "a\\b", "a\nb"])
def test_a_site_whose_name_is_no_file_s(
    study: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Its ledger would lie elsewhere, and its certificate be left out."""
    rows = [json.loads(line) for line in (study / "train.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({**row, "site": name}) + "\n" for row in rows)
    (study / "train.jsonl").write_text(text)
    assert simulate(study, "data.sites=1") == 3
    assert "is not valid as a site's name" in said(capsys)


def test_an_empty_site(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("data.partition=dirichlet", "data.alpha=0.001", "data.sites=20")
    assert simulate(study, *few) == 3
    assert "would have no record; use fewer data.sites" in said(capsys)


def test_a_base_with_the_wrong_hash(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(study, f"model.sha256='{'0' * 64}'") == 3
    assert "get the right weights" in said(capsys)


def test_a_damaged_base(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / "base" / "model.safetensors").write_bytes(b"garbage")
    assert simulate(study) == 3
    assert "does not load" in said(capsys)


def test_a_target_module_that_does_not_exist(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(study, 'lora.target_modules=["nope"]') == 2
    assert "nope not in bert; its linear modules are" in said(capsys)


def test_dora_under_privacy(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(study, "lora.use_dora=true") == 4
    assert "set lora.use_dora = false" in said(capsys)


def test_dora_without_privacy_is_fine(study: Path) -> None:
    assert simulate(study, "lora.use_dora=true", "privacy.enabled=false") == 0


def test_lora_on_embeddings(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(study, 'lora.target_modules=["word_embeddings"]') == 4
    assert "leave embeddings out" in said(capsys)


def test_epsilon_and_noise_multiplier_both(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(study, "privacy.epsilon=1.0", "privacy.noise_multiplier=1.0") == 2
    assert "privacy.epsilon, noise_multiplier: both given" in said(capsys)


def test_a_sample_rate_above_one(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(study, "training.expected_batch_size=41") == 2
    assert "above 1" in said(capsys)


def test_an_unknown_key(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(study, "lora.rnak=3") == 2
    assert "lora.rnak: unknown key" in said(capsys)


def test_quantization_without_a_gpu(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert simulate(study, "model.quantization=4bit") == 4
    assert "needs a CUDA GPU" in said(capsys)


def test_a_run_directory_that_exists(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(study) == 0
    before = (study.parent / "run" / "metrics.jsonl").read_bytes()
    capsys.readouterr()
    assert simulate(study) == 2
    assert "exists already and is not overwritten; choose another folder" in said(capsys)
    assert (study.parent / "run" / "metrics.jsonl").read_bytes() == before


def test_nothing_is_made_before_a_recipe_is_sound(study: Path) -> None:
    assert simulate(study, "lora.r=0", out="never") == 2
    assert not (study.parent / "never").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["simulate", "--engine", "cluster"],
        ["simulate", "--nonsense"],
        ["nonsense"],
        ["simulate", "--resume"],
        ["simulate", "--resume", "--out", "none"],
    ],
)
def test_a_command_that_cannot_be_meant(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_recipe_that_is_no_toml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[study\n")
    assert run(["simulate", str(recipe)]) == 3
    assert "not valid TOML" in said(capsys)


def test_a_damaged_ledger_stops_a_resumed_run(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(study) == 0
    out = study.parent / "run"
    (out / "ledgers" / "east.ledger").write_text("garbage\n" * 100)
    capsys.readouterr()
    assert run(["simulate", "--resume", "--out", str(out)]) == 6
    assert "restore it from its backup" in said(capsys)


@pytest.mark.parametrize("loss", ["missing", "rolled back", "replaced"])
def test_a_ledger_that_lost_charges_stops_a_resumed_run(
    study: Path, capsys: pytest.CaptureFixture[str], loss: str
) -> None:
    out = study.parent / "run"
    ledger = out / "ledgers" / "east.ledger"
    assert simulate(study) == 0
    if loss == "missing":
        ledger.unlink()
    else:
        files = [ledger.with_name(ledger.name + end) for end in ("", ".head", ".key")]
        for file in files:
            file.unlink()
        Ledger.create(ledger, Budget(epsilon=9.0, delta=2e-5), Unit.RECORD)
        if loss == "rolled back":
            recipe = read_recipe(out / "recipe.toml")
            plan = prepare(recipe).plans["east"]
            Ledger(ledger).reserve(Charge(study="s", round=1, plan=plan, request="r"))
    capsys.readouterr()
    assert run(["simulate", "--resume", "--out", str(out)]) == 6
    assert "what was spent is unknown" in said(capsys)


def test_a_ledger_that_cannot_be_written(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = study.parent / "run"
    assert simulate(study, "federation.num_rounds=1") == 0
    (out / "checkpoint" / "latest.json").unlink()
    shutil.rmtree(out / "ledgers")
    (out / "ledgers").write_text("a file where the folder should be")
    capsys.readouterr()
    assert run(["simulate", "--resume", "--out", str(out)]) == 6
    assert "cannot be written" in said(capsys)


def test_scoring_on_the_training_file(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(study, f"data.test='{study}/train.jsonl'") == 2
    assert "data.test: the training file" in said(capsys)


def test_an_out_that_cannot_be_written(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study.parent / "file").write_text("")
    assert simulate(study, out="file/run") == 3
    assert "cannot be written" in said(capsys)


def test_lora_on_embeddings_of_the_top_layers(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(study, 'lora.target_modules=["word_embeddings"]', "lora.top_layers=1") == 2
    assert "set lora.top_layers = 0" in said(capsys)


def test_a_damaged_checkpoint_stops_a_resumed_run(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(study) == 0
    out = study.parent / "run"
    name = json.loads((out / "checkpoint" / "latest.json").read_text())["file"]
    (out / "checkpoint" / name).write_bytes(b"garbage")
    capsys.readouterr()
    assert run(["simulate", "--resume", "--out", str(out)]) == 3
    assert "damaged" in said(capsys)


def test_evaluating_what_is_no_adapter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", str(tmp_path), "--data", "x.jsonl"]) == 3
    assert "no adapter here" in said(capsys)
    assert run(["evaluate", str(tmp_path / "none"), "--data", "x.jsonl"]) == 3
    assert "no such folder" in said(capsys)


def test_evaluating_on_an_unknown_label(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(study) == 0
    strange = study / "strange.jsonl"
    strange.write_text('{"text": "a", "label": "astrology", "site": "east"}\n')
    capsys.readouterr()
    assert run(["evaluate", str(study.parent / "run"), "--data", str(strange)]) == 3
    assert "label 'astrology' is not among" in said(capsys)


def test_evaluating_without_the_base(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(study) == 0
    shutil.rmtree(study / "base")
    capsys.readouterr()
    assert run(["evaluate", str(study.parent / "run"), "--data", str(study / "test.jsonl")]) == 3
    assert "neither a folder here" in said(capsys)


@pytest.mark.parametrize(
    ("typed", "meant"), [(["simulat"], "simulate"), (["site", "studis"], "studies")]
)
def test_a_mistyped_command_gets_one_suggestion(
    capsys: pytest.CaptureFixture[str], typed: list[str], meant: str
) -> None:
    assert run(typed) == 2
    told = capsys.readouterr().err
    assert f"'{meant}'" in told
    assert told.lower().count("did you mean") == 1
