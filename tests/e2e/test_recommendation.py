"""A study of people's items: simulated, scored, served, scripted and deployed."""

import csv
import dataclasses
import json
import shutil
import warnings
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from cloister.cli.main import run as cloister
from cloister.data.load import load
from cloister.data.records import ItemsRecord
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.errors import BadFileError, DataError, UsageError
from cloister.protocol.exchange import RoundRequest, Status, Step
from cloister.recipe import parse_recipe
from cloister.server.run_directory import RunDirectory
from cloister.serving import model as serving
from cloister.serving.predictions import Ranked
from cloister.simulation.run import simulate
from cloister.tasks.items_hash import with_items_sha256
from cloister.training.evaluation import evaluate
from tests.support.models import tiny_bert
from tests.support.neighbours import study
from tests.support.studies import small_assignments
from tests.support.wards import Seen, Ward

# Each thing is followed by the next, and after the last comes the first.
THINGS = ("fever", "cough", "rash", "headache", "itchy", "mild", "acute", "severe")
# Nobody has it; its text is that of item 3, so that it should be ranked where item 3 is.
COLD = "cold"


def shelf(folder: Path) -> Path:
    path = folder / "items.csv"
    rows = [*enumerate(THINGS), (COLD, THINGS[3])]
    path.write_text("item,text\n" + "".join(f"{item},{text}\n" for item, text in rows))
    return path


def had(number: int) -> list[int]:
    return [(number + step) % len(THINGS) for step in range(2 + number % 3)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def finished(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run without noise, so that it learns which thing follows which."""
    folder = tmp_path_factory.mktemp("study")
    usual = small_assignments(folder, base)
    for name, count in (("train", 64), ("test", 16)):
        rows = [
            {"items": had(n), "person": f"p{n}", "site": ("east", "west")[n % 2]}
            for n in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = parse_recipe(
        "",
        [
            *usual,
            "task.kind=recommendation",
            "task.labels=[]",
            f"task.items={shelf(folder)}",
            "task.last_items=2",
            "data.public_records=32",
            "privacy.enabled=false",
            "training.local_steps=8",
            "training.plain_learning_rate=0.02",
            "federation.num_rounds=4",
        ],
    )
    place = RunDirectory.create(folder / "run", recipe)
    simulate(recipe, place)
    return place.path


def test_a_simulated_study_learns_what_follows_what(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert result["test"]["ndcg@10"] > result["majority"] + 0.1
    card = (finished / "adapter" / "README.md").read_text()
    assert "Always showing the ten most frequent next items scores" in card
    recipe = (finished / "recipe.toml").read_text()
    stated = with_items_sha256(parse_recipe(recipe, []).task)
    assert str(stated.items_sha256) in recipe


def test_predictions_are_what_was_scored(finished: Path) -> None:
    model = serving.load(finished)
    records = load(str(finished.parent / "test.jsonl"), "test", "items", model.about.data)
    metrics = evaluate(
        model.workspace.network, model.workspace.task, model.workspace.encode(records), 4096
    ).metrics
    sequences = [record.items for record in records if isinstance(record, ItemsRecord)]
    found = model.predict([items[:-1] for items in sequences], top=len(THINGS) + 1)
    lowest = highest = 0.0
    for one, items in zip(found, sequences, strict=True):
        assert isinstance(one, Ranked)
        names = [ranked.item for ranked in one.items]
        assert not set(names) & set(items[:-1])
        assert len(names) == len(THINGS) + 1 - len(items[:-1])
        scores = [ranked.score for ranked in one.items]
        assert scores == sorted(scores, reverse=True)
        ranks = {1 + names.index(items[-1])}
        if items[-1] == "3":  # the cold one beside it has its text; rounding may put either first
            ranks.add(1 + names.index(COLD))
        lowest += 1 / max(ranks) / len(found)
        highest += 1 / min(ranks) / len(found)
    scored = json.loads((finished / "result.json").read_text())["test"]
    assert metrics["loss"] == pytest.approx(scored["loss"], abs=1e-4)
    for found_mrr in (metrics["mrr"], scored["mrr"]):
        assert lowest - 1e-6 <= found_mrr <= highest + 1e-6


def test_an_item_that_nobody_had_in_training_is_ranked_by_its_text(finished: Path) -> None:
    (after,) = serving.load(finished).predict([["1", "2"]], top=len(THINGS))
    assert isinstance(after, Ranked)
    scores = {one.item: one.score for one in after.items}
    # After 2 comes 3: the two that have its text share the first ranks.
    assert {one.item for one in after.items[:2]} == {"3", COLD}
    assert scores[COLD] == pytest.approx(scores["3"], abs=1e-6)


def test_ids_are_texts_or_integers_and_what_is_none_ends_in_one_message(finished: Path) -> None:
    model = serving.load(finished)
    first, second = model.predict([[0, 1], "0 1"], top=3)  # type: ignore[list-item]
    assert first == second
    assert isinstance(first, Ranked)
    assert len(first.items) == 3
    for given, why in (([], "no item"), (["nothing"], "input 1: an item is not in"), ([""], "id")):
        with pytest.raises(DataError, match=why):
            model.predict([given])
    with pytest.raises(UsageError, match="at least 1"):
        model.predict([["0"]], top=0)


# The script leaves a file to Python to close, as a short one may.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_cards_script_says_what_predict_says(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (finished / "adapter" / "README.md").read_text()
    script = card.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(finished)
    persons = [["0", "1"], ["5"], ["2", "7", "2", "3"]]
    space: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft's and transformers', of each other
        exec(script.replace('[["…", "…"]]', json.dumps(persons)), space)
    predicted = space["predicted"]
    assert isinstance(predicted, list)
    for rows, one in zip(predicted, serving.load(finished).predict(persons), strict=True):
        assert isinstance(one, Ranked)
        assert [item for item, _ in rows] == [ranked.item for ranked in one.items]
        assert [score for _, score in rows] == pytest.approx(
            [ranked.score for ranked in one.items], abs=1e-4
        )


def test_predict_writes_lists_and_tables(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = str(finished.parent / "test.jsonl"), tmp_path / "out.csv"
    assert cloister(["predict", str(finished), "--data", data, "--out", str(out)]) == 0
    first, *rows = csv.reader(out.read_text().splitlines())
    assert first == ["items", "scores", "is_cut"]
    assert len(rows) == 16
    capsys.readouterr()
    args = ["predict", str(finished), "--text", "0 1", "--top", "2", "--json"]
    assert cloister(args) == 0
    (one,) = json.loads(capsys.readouterr().out)["predictions"]
    assert len(one["items"]) == 2
    assert cloister(["predict", str(finished), "--text", "0 1"]) == 0
    assert "more" in capsys.readouterr().out
    assert cloister(["evaluate", str(finished), "--data", data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == {}


def test_an_adapter_whose_items_were_changed_is_refused(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "adapter", tmp_path / "adapter")
    items = tmp_path / "adapter" / "items.jsonl"
    lines = items.read_text()
    items.write_text(lines.replace("fever", "cold"))
    with pytest.raises(DataError, match="the study needs"):
        serving.load(tmp_path / "adapter")
    items.write_text(lines)
    (tmp_path / "adapter" / "items.safetensors").unlink()
    with pytest.raises(BadFileError, match=r"items\.safetensors is missing"):
        serving.load(tmp_path / "adapter")
    vectors = load_file(finished / "adapter" / "items.safetensors")["vectors"]
    for odd in (vectors[1:], vectors[:, 1:], vectors[0]):
        save_file({"vectors": odd.contiguous()}, tmp_path / "adapter" / "items.safetensors")
        with pytest.raises(BadFileError, match=r"do not fit together \(vectors"):
            serving.load(tmp_path / "adapter")


def test_a_deployed_site_trains_and_says_the_same_with_a_row_that_does_not_fit(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf(tmp_path)  # the site's own copy; the coordinator's is nowhere at the site
    (tmp_path / "theirs").mkdir()
    theirs = shelf(tmp_path / "theirs")
    plain = study(base, "task.kind=recommendation", "task.labels=[]", f"task.items={theirs}")
    recipe = dataclasses.replace(plain, task=with_items_sha256(plain.task))
    theirs.unlink()
    rows = [{"items": had(n), "person": f"p{n}"} for n in range(20)]
    misfits = ([0, 99], [3], None, [*range(8)] * 500)
    lives: list[list[Seen]] = []
    for number, more in enumerate((rows[0]["items"], *misfits)):
        own = [*rows, {"items": more, "person": "q"}]
        first = AgentFolder(tmp_path / "0" / "ward.agent").proofs
        ward = Ward.open(
            tmp_path / str(number), own, base, monkeypatch, task="recommendation", proofs=first
        )
        digest = recipe.digest()
        life = [ward.ask(recipe, RoundRequest(digest, 0, b"", Step.PREPARE))]
        life.append(ward.ask(recipe, RoundRequest(digest, 1, ward.adapter)))
        lives.append(life)
    assert [seen.said[2] for seen in lives[0]] == [Status.READY, Status.TRAINED]
    assert all(life == lives[0] for life in lives)
    other = dataclasses.replace(recipe.task, items_sha256="0" * 64)
    elsewhere = dataclasses.replace(recipe, task=other)
    answer = ward.ask(elsewhere, RoundRequest(elsewhere.digest(), 0, b"", Step.PREPARE))
    assert answer.said[2] is Status.REFUSED
