"""A study of pairs of texts: from a table with other column names to predictions, and at a site."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from cloister.api.definition import Study
from cloister.api.memory_tables import write_tables
from cloister.cli.main import run as cli
from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.data.records import PairRecord
from cloister.errors import DataError
from cloister.models.base import weights_sha256
from cloister.protocol.exchange import RoundRequest, Status, Step
from cloister.recipe import Recipe, parse_recipe
from cloister.server.run_directory import RunDirectory
from cloister.serving.model import load as load_model
from cloister.simulation.run import simulate
from cloister.training.evaluation import evaluate
from tests.support.models import WORDS
from tests.support.studies import NOTES, small_assignments
from tests.support.wards import Ward

LABELS = tuple(sorted(NOTES))


def rows(count: int, seed: int) -> list[dict[str, str]]:
    """Pairs of words whose label is one of three."""
    rng = np.random.default_rng(seed)
    return [
        {
            "premise": " ".join(rng.choice(WORDS, size=rng.integers(1, 9))),
            "hypothesis": " ".join(rng.choice(WORDS, size=rng.integers(1, 9))),
            "label": LABELS[rng.integers(3)],
            "site": ("east", "west")[index % 2],
            "person": f"p{index // 4}",
        }
        for index in range(count)
    ]


def write_csv(path: Path, table: Sequence[Mapping[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return path


def recipe_of(folder: Path, base: Path, *more: str) -> Recipe:
    folder.mkdir(exist_ok=True)
    write_csv(folder / "train.csv", rows(80, 0))
    write_csv(folder / "test.csv", rows(24, 1))
    return parse_recipe(
        "",
        [
            *small_assignments(folder, base),
            "task.kind=text-pairs",
            f"data.train='{folder}/train.csv'",
            f"data.test='{folder}/test.csv'",
            "data.text=premise",
            "data.text_b=hypothesis",
            *more,
        ],
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    recipe = recipe_of(folder / "data", bert)
    result = simulate(recipe, RunDirectory.create(folder / "run", recipe))
    assert {"accuracy", "macro_f1", "loss"} <= result.test.keys()
    assert result.majority is not None
    return folder


def test_predictions_are_those_that_were_scored(finished: Path) -> None:
    model = load_model(finished / "run")
    table = rows(24, 1)
    found = model.predict([(row["premise"], row["hypothesis"]) for row in table])
    hits = sum(one.label == row["label"] for one, row in zip(found, table, strict=True))  # type: ignore[union-attr]
    columns = DataConfig(text="premise", text_b="hypothesis")
    records = load(str(finished / "data" / "test.csv"), "test", "pairs", columns)
    workspace = model.workspace
    scores = evaluate(workspace.network, workspace.task, workspace.encode(records), 512)
    assert scores.metrics["accuracy"] == pytest.approx(hits / 24)


def test_texts_that_are_read_apart_are_trained_on_and_predicted_for(
    tmp_path: Path, bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of(tmp_path / "data", bert, "task.encoder=bi", "task.compare=cosine")
    folder = tmp_path / "run"
    assert simulate(recipe, RunDirectory.create(folder, recipe)).test["loss"] > 0
    model = load_model(folder)
    assert model.workspace.network.two is not None
    pair = ("the patient has a fever", "no fever")
    (alone,) = model.predict([pair])
    beside = model.predict([("rash", "no rash since monday"), pair])[1]
    assert alone.label == beside.label  # type: ignore[union-attr]
    assert alone.probabilities == pytest.approx(beside.probabilities)  # type: ignore[union-attr]
    card = (folder / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "cosine_similarity(first, second" in card
    assert (
        cli(["model", "export", str(folder), "--format", "onnx", "--out", str(tmp_path / "o")]) == 2
    )
    assert "no format can hold the comparison" in capsys.readouterr().err


def test_a_prediction_needs_two_texts(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = load_model(finished / "run")
    for given, told in (("fever", "str given"), (("fever",), "1 values"), (("a", " "), "empty")):
        with pytest.raises(DataError, match=told):
            model.predict([given])
    asked = ["predict", str(finished / "run"), "--text", "fever"]
    assert cli(asked) == 2
    assert "one --text-b for each --text" in capsys.readouterr().err
    assert cli([*asked, "--text-b", "no fever", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"][0]["label"] in LABELS


def test_a_file_is_predicted_for_by_its_columns(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unlabelled = [{k: row[k] for k in ("premise", "hypothesis")} for row in rows(5, 2)]
    data, out = write_csv(tmp_path / "new.csv", unlabelled), tmp_path / "out.csv"
    assert cli(["predict", str(finished / "run"), "--data", str(data), "--out", str(out)]) == 0
    with out.open() as file:
        found = list(csv.DictReader(file))
    model = load_model(finished / "run")
    expected = model.predict([tuple(row.values()) for row in unlabelled])
    assert [row["label"] for row in found] == [one.label for one in expected]  # type: ignore[union-attr]
    single = write_csv(tmp_path / "single.csv", [{"premise": "fever"}])
    assert cli(["predict", str(finished / "run"), "--data", str(single)]) == 3
    assert "no column 'hypothesis'" in capsys.readouterr().err


@pytest.mark.parametrize("encoder", ["cross", pytest.param("bi", marks=pytest.mark.nightly)])
def test_a_site_trains_on_pairs_and_leaves_out_what_is_none(
    encoder: str, tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent of a deployed site: an answer follows from the recipe, not from a row."""
    table = [
        {"text": row["premise"], "text_b": row["hypothesis"], "label": row["label"]}
        for row in rows(40, 0)
    ]
    lone: dict[str, str] = {"text": "fever", "label": LABELS[0]}
    recipe = recipe_of(
        tmp_path / "study",
        bert,
        f"model.sha256={weights_sha256(bert)}",
        f"task.labels={list(LABELS)}",
        "data.sites=1",
        f"task.encoder={encoder}",
    )
    ward = Ward.open(tmp_path / "ward", [*table, lone], bert, monkeypatch, task="text-pairs")
    study = recipe.digest()
    ward.ask(recipe, RoundRequest(study, 0, b"", Step.PREPARE))
    assert ward.reply is not None
    assert ward.reply.status is Status.READY
    ward.ask(recipe, RoundRequest(study, 1, ward.adapter))
    assert ward.reply.status is Status.TRAINED


def test_tables_in_memory_are_written_and_read_back_equal(tmp_path: Path) -> None:
    study = Study(
        task="text-pairs",
        data={"east": rows(9, 3), "west": rows(9, 5)},
        test=rows(24, 1),
        text="premise",
        text_b="hypothesis",
        person="person",
    )
    records = study.tables["train"]
    assert all(isinstance(record, PairRecord) for record in records)
    assert study.recipe.data.second == "hypothesis"
    columns = study.recipe.data
    write_tables({"train": records}, tmp_path, columns)
    read = load(str(tmp_path / "train.jsonl"), "train", "pairs", columns, sites=True)
    assert tuple(read) == records


def test_a_recipe_without_pairs_says_nothing_of_a_second_column() -> None:
    """So that the digest of every study before there were pairs stays what it was."""
    assert "text_b" not in parse_recipe("").document()
    named = parse_recipe("", ["task.kind=text-pairs", "data.text_b=hypothesis"])
    assert json.loads(named.document())["data"]["text_b"] == "hypothesis"
