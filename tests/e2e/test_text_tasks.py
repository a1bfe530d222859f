"""A study of texts with several labels, and one of scores: simulated, served and deployed."""

import csv
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloister.cli.main import run as cloister
from cloister.data.load import load
from cloister.data.records import LabelsRecord, Record, ScoreRecord
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.protocol.exchange import RoundRequest, Status, Step
from cloister.recipe import parse_recipe
from cloister.server.run_directory import RunDirectory
from cloister.serving import model as serving
from cloister.serving.predictions import Labelled, Scored
from cloister.simulation.run import simulate
from cloister.training.evaluation import evaluate
from tests.support.models import tiny_bert
from tests.support.neighbours import study
from tests.support.studies import small_assignments
from tests.support.wards import Seen, Ward

LABELS = ["heart", "knee", "skin"]
TEXTS = {
    "chest pain at rest": ["heart"],
    "knee swollen": ["knee"],
    "itchy rash": ["skin"],
    "chest pain and a swollen knee": ["heart", "knee"],
    "no fever": [],
}


@dataclass(frozen=True)
class Case:
    """A task with the rows of its files."""

    kind: str
    settings: tuple[str, ...]
    target: Callable[[Sequence[str]], object]
    misfits: tuple[object, ...]

    def row(self, number: int) -> dict[str, object]:
        text, labels = list(TEXTS.items())[number % len(TEXTS)]
        name = "labels" if self.kind == "multi-label-classification" else "score"
        return {"text": text, name: self.target(labels)}

    def misfit(self, what: object) -> dict[str, object]:
        return {**self.row(0), ("labels" if "labels" in self.row(0) else "score"): what}


CASES = {
    "labels": Case(
        "multi-label-classification",
        (f"task.labels={json.dumps(LABELS)}", "task.class_weights={ heart = 2.0 }"),
        list,
        (["nobody", "heart"], "heart", None),
    ),
    "score": Case(
        "scoring",
        ("task.score_range=[0, 3]", "task.score_step=1", "task.labels=[]"),
        lambda labels: len(labels) + 1,
        (4, 1.5, "many", None),
    ),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def finished(
    request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Case, Path]:
    """A case, and the folder of its run without noise, so that it learns."""
    case: Case = request.param
    folder = tmp_path_factory.mktemp("study")
    usual = small_assignments(folder, base)
    for name, count in (("train", 60), ("test", 10)):
        rows = [{**case.row(n), "site": ("east", "west")[n // 5 % 2]} for n in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = parse_recipe(
        "",
        [
            *usual,
            f"task.kind={case.kind}",
            *case.settings,
            "data.public_records=30",
            "privacy.enabled=false",
            "training.local_steps=8",
            "training.learning_rate=1.0",
            "federation.num_rounds=4",
        ],
    )
    place = RunDirectory.create(folder / "run", recipe)
    simulate(recipe, place)
    return case, place.path


def records_of(case: Case, folder: Path) -> list[Record]:
    model = serving.load(folder)
    return load(
        str(folder.parent / "test.jsonl"), "test", model.about.task.records, model.about.data
    )


def test_a_simulated_study_learns_and_its_card_says_what_guessing_reaches(
    finished: tuple[Case, Path],
) -> None:
    case, folder = finished
    result = json.loads((folder / "result.json").read_text())
    metric = "micro_f1" if case.kind != "scoring" else "qwk"
    guess = result.get("majority", 0.0)
    assert result["test"][metric] > guess
    card = (folder / "adapter" / "README.md").read_text()
    assert ("Always giving the same labels scores" in card) == (case.kind != "scoring")
    assert case.kind in card


def test_predictions_are_what_was_scored(finished: tuple[Case, Path]) -> None:
    case, folder = finished
    model, records = serving.load(folder), records_of(*finished)
    metrics = evaluate(
        model.workspace.network, model.workspace.task, model.workspace.encode(records), 4096
    ).metrics
    found = model.predict([record.text for record in records])  # type: ignore[union-attr]
    if case.kind == "scoring":
        errors = [
            abs(one.score - record.score)
            for one, record in zip(found, records, strict=True)
            if isinstance(one, Scored) and isinstance(record, ScoreRecord)
        ]
        assert sum(errors) / len(records) == pytest.approx(metrics["mae"], abs=1e-5)
        assert {one.grade for one in found if isinstance(one, Scored)} <= {0.0, 1.0, 2.0, 3.0}
        return
    exact = [
        set(one.labels) == set(record.labels)
        for one, record in zip(found, records, strict=True)
        if isinstance(one, Labelled) and isinstance(record, LabelsRecord)
    ]
    assert sum(exact) / len(records) == pytest.approx(metrics["exact_match"])


# The script leaves a file to Python to close, as a short one may.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_cards_script_says_what_predict_says(
    finished: tuple[Case, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    case, folder = finished
    card = (folder / "adapter" / "README.md").read_text()
    script = card.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(folder)
    space: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft's and transformers', of each other
        exec(script.replace('["…"]', json.dumps(list(TEXTS))), space)
    found = [one.to_json() for one in serving.load(folder).predict(list(TEXTS))]
    if case.kind == "scoring":
        expected: list[object] = [one["score"] for one in found]
        assert space["predicted"] == pytest.approx(expected, abs=1e-5)
    else:
        assert space["predicted"] == [one["labels"] for one in found]


def test_predictions_fit_a_table_and_evaluate_has_a_report(
    finished: tuple[Case, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, folder = finished
    data = str(folder.parent / "test.jsonl")
    out = tmp_path / "out.csv"
    assert cloister(["predict", str(folder), "--data", data, "--out", str(out)]) == 0
    first, *rows = csv.reader(out.read_text().splitlines())
    assert len(rows) == 10
    if case.kind == "scoring":
        assert first == ["score", "grade", "is_cut"]
    else:
        assert first == ["labels", "is_cut", *(f"probability of {name}" for name in LABELS)]
        assert all(set(json.loads(row[0])) <= set(LABELS) for row in rows)
    capsys.readouterr()
    assert cloister(["evaluate", str(folder), "--data", data, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["report"]
    assert list(report) == (["1", "2", "3"] if case.kind == "scoring" else LABELS)


@pytest.mark.parametrize("name", CASES)
def test_a_deployed_site_trains_and_says_the_same_with_a_row_that_does_not_fit(
    name: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    recipe = study(base, f"task.kind={case.kind}", *case.settings)
    monkeypatch.setattr("tests.support.wards.NOTES", {name: [] for name in LABELS})
    lives: list[list[Seen]] = []
    rows = [{**case.row(n), "person": f"p{n // 4}"} for n in range(20)]
    for number, more in enumerate((None, *case.misfits)):
        own = [*rows] if more is None else [*rows, {**case.misfit(more), "person": "q"}]
        first = AgentFolder(tmp_path / "0" / "ward.agent").proofs
        ward = Ward.open(
            tmp_path / str(number), own, base, monkeypatch, task=case.kind, proofs=first
        )
        digest = recipe.digest()
        life = [ward.ask(recipe, RoundRequest(digest, 0, b"", Step.PREPARE))]
        life.append(ward.ask(recipe, RoundRequest(digest, 1, ward.adapter)))
        lives.append(life)
    assert [seen.said[2] for seen in lives[0]] == [Status.READY, Status.TRAINED]
    assert all(life == lives[0] for life in lives)
