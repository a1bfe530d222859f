"""A study of retrieval: simulated, predicted from, and at a deployed site."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from cloister.adapter.tensors import Adapter
from cloister.api.definition import Study
from cloister.cli.main import run as cli
from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.export.adapter_folder import ReleaseFacts, export
from cloister.export.snippets import loading_of, loading_script
from cloister.models.base import weights_sha256
from cloister.models.config import LoraConfig, ModelConfig
from cloister.protocol.exchange import RoundRequest, Status, Step
from cloister.recipe import Recipe, parse_recipe
from cloister.server.run_directory import RunDirectory
from cloister.serving.model import load as load_model
from cloister.serving.predictions import Retrieved
from cloister.simulation.run import simulate
from cloister.training.evaluation import evaluate
from cloister.training.workspace import Workspace, open_workspace
from tests.support.studies import NOTES, small_assignments, write_notes
from tests.support.wards import Ward

PASSAGES = {
    "cardiology": "chest pain and no fever",
    "dermatology": "itchy rash since monday",
    "orthopaedics": "the knee has a mild swollen pain",
}


def recipe_of(folder: Path, base: Path, *more: str) -> Recipe:
    folder.mkdir(exist_ok=True)
    file = folder / "passages.jsonl"
    rows = [{"id": name, "text": text} for name, text in PASSAGES.items()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return parse_recipe(
        "",
        [
            *small_assignments(folder, base),
            "task.kind=retrieval",
            f"task.passages='{file}'",
            *more,
        ],
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    folder = tmp_path_factory.mktemp("retrieval")
    recipe = recipe_of(folder / "data", bert)
    result = simulate(recipe, RunDirectory.create(folder / "run", recipe))
    assert result.metric == "mrr"
    assert result.majority is None
    assert {"mrr", "recall@1", "recall@10", "ndcg@10", "loss"} <= result.test.keys()
    return folder


def test_what_is_predicted_is_what_was_scored(finished: Path) -> None:
    model = load_model(finished / "run")
    test = finished / "data" / "test.jsonl"
    records = load(str(test), "test", "text", DataConfig())
    found = model.predict([record.text for record in records])  # type: ignore[union-attr]
    assert all(isinstance(one, Retrieved) for one in found)
    first = [one.passages[0] for one in found]  # type: ignore[union-attr]
    assert all(one.text == PASSAGES[one.id] for one in first)
    hits = sum(one.id == record.label for one, record in zip(first, records, strict=True))  # type: ignore[union-attr]
    workspace = model.workspace
    scores = evaluate(workspace.network, workspace.task, workspace.encode(records), 512)
    assert scores.metrics["recall@1"] == pytest.approx(hits / len(records))
    card = (finished / "run" / "adapter" / "README.md").read_text()
    assert "| | this adapter | untrained, before round 1 | TF-IDF, by shared words |" in card


def test_the_command_names_the_nearest_passages(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.csv"
    asked = ["predict", str(finished / "run"), "--text", "fever"]
    assert cli([*asked, "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["predictions"]
    assert sorted(found["id"] for found in one["passages"]) == sorted(PASSAGES)
    assert cli([*asked, "--out", str(out)]) == 0
    assert out.read_text().startswith("passage 1,similarity 1,passage 2")


@pytest.mark.parametrize("head", ["linear", "lora", "frozen"])
def test_before_training_a_query_is_the_bases_own_vector(head: str, bert: Path) -> None:
    """A passage as its own query has a cosine of 1: both sides are one encoder at the start."""
    workspace = opened(bert, head)
    task = workspace.task
    texts = [PASSAGES[name] for name in task.labels]
    with torch.no_grad():
        batch = task.collate([task.encode_passage(text) for text in texts])  # type: ignore[attr-defined]
        cosines = workspace.network.logits(batch)
    # Vectors are rounded to 2⁻¹²: at most 2⁻¹³ off in each of 16 coordinates.
    assert torch.allclose(cosines.diagonal(), torch.ones(3), atol=1e-3)
    assert cosines.max() <= 1 + 1e-3


def opened(base: Path, head: str) -> Workspace:
    recipe_task = parse_recipe(
        "", ["task.kind=retrieval", "task.max_length=16", f"task.passages={toml(PASSAGES)}"]
    ).task
    lora = LoraConfig(train="both", top_layers=0, head=head)  # type: ignore[arg-type]
    return open_workspace(ModelConfig(base=str(base)), lora, recipe_task, recipe_task.labels, 0)


def toml(table: dict[str, str]) -> str:
    return "{" + ", ".join(f"{name} = {json.dumps(text)}" for name, text in table.items()) + "}"


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # scripts are short
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own
@pytest.mark.parametrize("head", ["lora", "frozen"])
def test_the_cards_script_finds_the_same_passages(
    head: str, tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, model = opened(bert, head), ModelConfig(base=str(bert))
    generator = torch.Generator().manual_seed(0)
    values = {
        name: 0.3 * torch.randn(array.shape, generator=generator).numpy()
        for name, array in workspace.start.items()
    }
    lora = LoraConfig(train="both", top_layers=0, head=head)  # type: ignore[arg-type]
    task = parse_recipe(
        "", ["task.kind=retrieval", "task.max_length=16", f"task.passages={toml(PASSAGES)}"]
    ).task
    about = ReleaseFacts(model, lora, task, DataConfig(), 0)
    export(tmp_path / "adapter", workspace, Adapter(values), about)
    texts = ["fever", "the patient has a severe rash and a mild headache since monday"]
    expected = load_model(tmp_path / "adapter").predict(texts)
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {}
    with warnings.catch_warnings():
        script = loading_script(loading_of(model, workspace))
        exec(script.replace('["…"]', json.dumps(texts)), made)
    assert made["predicted"] == [[one.id for one in found.passages] for found in expected]  # type: ignore[union-attr]
    nearest = [found.passages[0].similarity for found in expected]  # type: ignore[union-attr]
    assert made["logits"].amax(dim=1).tolist() == pytest.approx(nearest, abs=1e-5)


def test_a_site_answers_by_the_study_whatever_a_query_names(
    tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_notes(tmp_path / "notes.jsonl", 40)
    table = [json.loads(line) for line in file.read_text().splitlines()]
    recipe = recipe_of(
        tmp_path / "study", bert, f"model.sha256={weights_sha256(bert)}", "data.sites=1"
    )
    study = recipe.digest()
    answers = []
    for name, more in (("plain", []), ("odd", [{"text": "fever", "label": "elsewhere"}])):
        ward = Ward.open(tmp_path / name, [*table, *more], bert, monkeypatch, task="retrieval")
        ward.ask(recipe, RoundRequest(study, 0, b"", Step.PREPARE))
        assert ward.reply is not None
        assert ward.reply.status is Status.READY
        seen = ward.ask(recipe, RoundRequest(study, 1, ward.adapter))
        assert ward.reply.status is Status.TRAINED
        answers.append((seen.said, seen.shapes))
    assert answers[0] == answers[1]


def test_a_site_that_declares_more_passages_takes_no_part(
    tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fewer = {name: PASSAGES[name] for name in ("cardiology", "dermatology")}
    recipe = recipe_of(
        tmp_path / "study", bert, f"model.sha256={weights_sha256(bert)}", "data.sites=1"
    )
    smaller = parse_recipe(
        "",
        [
            *small_assignments(tmp_path / "study", bert),
            "task.kind=retrieval",
            f"task.passages={toml(fewer)}",
            f"model.sha256={recipe.model.sha256}",
            "data.sites=1",
        ],
    )
    rows = [{"text": "fever", "label": "cardiology"}] * 40
    ward = Ward.open(tmp_path / "ward", rows, bert, monkeypatch, task="retrieval")
    ward.ask(smaller, RoundRequest(smaller.digest(), 0, b"", Step.PREPARE))
    assert ward.reply is not None
    assert ward.reply.status is Status.REFUSED


def test_a_study_in_python_takes_passages_as_a_table() -> None:
    study = Study(
        task={"kind": "retrieval", "passages": PASSAGES},
        data={"east": [{"text": "fever", "label": "cardiology"}] * 4},
        test=[{"text": "rash", "label": "dermatology"}],
    )
    assert study.recipe.task.labels == tuple(sorted(PASSAGES))
    assert set(PASSAGES) == set(NOTES)


@pytest.mark.parametrize("form", ["merged", "sentence-transformers"])
def test_a_form_that_cannot_hold_the_comparison_is_refused_by_name(
    form: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shipped"
    assert cli(["model", "export", str(finished / "run"), "--format", form, "--out", str(out)]) == 2
    assert "these fit: onnx" in capsys.readouterr().err
    assert not out.exists()
