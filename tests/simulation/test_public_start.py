"""A study that begins with public records: what the coordinator learns of them, and of nothing
else."""

import dataclasses
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cloister.adapter.wire import encode
from cloister.data.records import TextRecord
from cloister.errors import DataError, RecipeError, RefusedError, UsageError
from cloister.export.adapter_folder import load_released
from cloister.recipe import Recipe, parse_document, parse_recipe, sent_document
from cloister.server.report import RoundReport
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import Events, open_coordinator, simulate
from cloister.simulation.study import prepare
from cloister.training.evaluation import evaluate
from cloister.training.workspace import open_workspace
from tests.support.studies import NOTES, small_assignments, small_recipe

STARTED = "start/public"


def write_public(path: Path, count: int = 30) -> Path:
    """Notes of each label, in words that the test set does not have."""
    words = {"cardiology": "chest", "orthopaedics": "knee", "dermatology": "rash"}
    labels = list(NOTES)
    told = [(labels[n % 3], f"number {n} of public record {n * n}") for n in range(count)]
    rows = [{"text": f"{words[label]} {text}", "label": label} for label, text in told]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def warm(folder: Path, bert: Path, *changes: str) -> Recipe:
    folder.mkdir(parents=True, exist_ok=True)
    public = write_public(folder / "public.jsonl")
    return small_recipe(
        folder,
        f"data.public='{public}'",
        "training.public_steps=40",
        "training.public_learning_rate=0.5",
        "federation.num_rounds=1",
        *changes,
        base=bert,
    )


def start_of(recipe: Recipe, out: Path) -> bytes:
    """The adapter with which a study begins, trained by its coordinator."""
    coordinator = open_coordinator(recipe, RunDirectory.create(out, recipe)).coordinator
    assert coordinator.start.shapes == coordinator.workspace.whole.shapes
    return (out / STARTED).read_bytes()


def test_public_records_teach_before_round_1_and_the_card_says_so(
    tmp_path: Path, bert: Path
) -> None:
    recipe = warm(tmp_path / "study", bert, "training.learning_rate=1e-9")
    result = simulate(recipe, RunDirectory.create(tmp_path / "run", recipe))
    assert result.majority is not None
    untrained = result.untrained["accuracy"]
    assert untrained is not None
    # One private round at a rate of nothing changes nothing.
    assert result.test["accuracy"] == untrained > result.majority + 0.1
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    sha256 = hashlib.sha256((tmp_path / "study" / "public.jsonl").read_bytes()).hexdigest()
    assert "for 40 steps before round 1, each of about 32 of 30 public records" in card
    assert sha256 in card
    assert "untrained, then public records alone, before round 1" in card


def test_the_start_depends_on_the_seed_and_the_public_file_and_no_private_record(
    tmp_path: Path, bert: Path
) -> None:
    one = warm(tmp_path / "one", bert)
    other = warm(tmp_path / "other", bert)
    train = tmp_path / "other" / "train.jsonl"
    train.write_text("".join(train.read_text().splitlines(keepends=True)[:50]))
    begun = start_of(one, tmp_path / "run-1")
    assert start_of(other, tmp_path / "run-2") == begun
    assert start_of(warm(tmp_path / "one", bert, "study.seed=1"), tmp_path / "run-3") != begun


def test_a_start_that_was_kept_is_not_trained_again(tmp_path: Path, bert: Path) -> None:
    """Another version, or another machine's arithmetic, might train another one."""
    recipe = warm(tmp_path / "study", bert)
    run = RunDirectory.create(tmp_path / "run", recipe)
    first = open_coordinator(recipe, run).coordinator
    run.save_start(encode(first.workspace.whole.scale(2.0)))
    assert (first.start - first.workspace.whole.scale(2.0)).norm() == 0.0


def test_a_resumed_run_begins_with_the_start_that_it_kept(tmp_path: Path, bert: Path) -> None:
    plain = ("privacy.enabled=false", "federation.num_rounds=2")
    recipe = warm(tmp_path / "study", bert, *plain)
    simulate(recipe, RunDirectory.create(tmp_path / "whole", recipe))

    def stop(report: RoundReport) -> None:
        raise KeyboardInterrupt

    broken = RunDirectory.create(tmp_path / "broken", recipe)
    with pytest.raises(KeyboardInterrupt):
        simulate(recipe, broken, events=Events(on_round=stop))
    simulate(broken.recipe(), RunDirectory.reopen(tmp_path / "broken"))
    for file in (STARTED, "checkpoint/round-0002.adapter", "adapter/head.safetensors"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "broken" / file).read_bytes()


def test_hash_size_and_steps_are_in_the_digest(tmp_path: Path, bert: Path) -> None:
    recipe = warm(tmp_path / "study", bert)
    stated = prepare(recipe).recipe
    assert stated.data.public_count == 30
    document = json.loads(stated.document())
    assert document["data"]["public_sha256"] == stated.data.public_sha256
    assert document["training"]["public_steps"] == 40
    assert document["training"]["public_batch_size"] == 32
    write_public(tmp_path / "study" / "public.jsonl", 29)
    assert prepare(recipe).recipe.digest() != stated.digest()
    assert "public" not in json.loads(Recipe().document())["data"]


def test_a_public_file_with_scored_or_private_records_is_refused(
    tmp_path: Path, bert: Path
) -> None:
    folder = tmp_path / "study"
    recipe = warm(folder, bert)
    public = folder / "public.jsonl"
    test = (folder / "test.jsonl").read_text().splitlines(keepends=True)
    public.write_text(public.read_text() + test[0])
    with pytest.raises(DataError, match=r"data\.public: 1 of 31 .* the first is record 31"):
        prepare(recipe)
    write_public(public)
    private = [
        {"text": f"a note of site {n}", "label": "cardiology", "site": ("east", "west")[n % 2]}
        for n in range(40)
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in private))
    public.write_text("".join(json.dumps(row) + "\n" for row in private))
    with pytest.raises((DataError, RefusedError), match=r"data\.public"):
        start_of(recipe, tmp_path / "run")


def test_not_even_one_private_record_is_learnt_without_noise(tmp_path: Path, bert: Path) -> None:
    recipe = warm(tmp_path / "study", bert)
    public = tmp_path / "study" / "public.jsonl"
    train = tmp_path / "study" / "train.jsonl"
    first = json.loads(train.read_text().splitlines()[0])
    row = {**first, "text": "the gardener found seven owls behind our kitchen"}
    train.write_text(train.read_text() + json.dumps(row) + "\n")
    copied = {"text": row["text"].replace(" ", "  "), "label": row["label"]}
    public.write_text(public.read_text() + json.dumps(copied) + "\n")
    said = r"data\.public: 1 of 31 records have the text of a private record.* is record 31"
    with pytest.raises(RefusedError, match=said):
        start_of(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / STARTED).exists()


def test_options_of_public_training_need_a_public_file() -> None:
    with pytest.raises(RecipeError, match=r"training\.public_steps: given without data\.public"):
        parse_recipe("", ["training.public_steps=3"])
    with pytest.raises(RecipeError, match=r"data\.public: each site keeps its own B"):
        parse_recipe("", ["data.public=a.jsonl", "lora.train=b-kept", "training.mode=local-steps"])


def test_a_deployment_states_the_same_and_refuses_the_same(tmp_path: Path, bert: Path) -> None:
    """And it begins with the same adapter: both take it from `Coordinator.start`."""
    from cloister.deployment.coordinator.deployed import resolved_recipe

    folder = tmp_path / "study"
    simulated = prepare(warm(folder, bert)).recipe
    path = tmp_path / "recipe.toml"
    path.write_text("")
    given = [*small_assignments(folder, bert), f"data.public={folder}/public.jsonl"]
    members = {name: SimpleNamespace(public_records=40) for name in ("east", "west")}
    found = resolved_recipe(path, given, members)  # type: ignore[arg-type]
    assert found.data.public_sha256 == simulated.data.public_sha256
    assert found.data.public_count == 30
    test = (folder / "test.jsonl").read_text().splitlines(keepends=True)
    (folder / "public.jsonl").write_text(test[0])
    with pytest.raises(DataError, match=r"data\.public: 1 of 1"):
        resolved_recipe(path, given, members)  # type: ignore[arg-type]


def test_public_training_does_not_change_the_adapter_that_sites_accepted() -> None:
    named = ["study.start='" + "a" * 64 + "'", "study.former='" + "b" * 64 + "'"]
    parse_recipe("", named)
    public = "data.public=public.jsonl"
    with pytest.raises(RecipeError, match=r"data.public: given with --from, but the sites accept"):
        parse_recipe("", [*named, public])
    replay = "federation.public_replay=2"
    with pytest.raises(RecipeError, match=r"training.public_steps: steps before round 1 given"):
        parse_recipe("", [*named, public, replay, "training.public_steps=3"])
    assert parse_recipe("", [*named, public, replay]).public_steps == 0
    assert parse_recipe("", [public, replay]).public_steps == 200


def test_the_mean_of_public_records_is_subtracted_and_sent_to_sites(
    tmp_path: Path, bert: Path
) -> None:
    recipe = warm(tmp_path / "study", bert, "model.center=public", "lora.train=none")
    stated = prepare(recipe).recipe
    values = stated.model.center_values
    assert values is not None
    received = parse_document(sent_document(stated))
    assert received.model.center_values == values
    # The slow twin: the mean of the base's vectors of these texts, in float64.
    workspace = open_workspace(
        dataclasses.replace(recipe.model, center=None),
        recipe.lora,
        recipe.task,
        stated.task.labels,
        recipe.study.seed,
    )
    rows = (tmp_path / "study" / "public.jsonl").read_text().splitlines()
    with torch.no_grad():
        vectors = [
            workspace.network.pooled(workspace.task.collate([workspace.encode([record])[0]]))[0]
            for record in (TextRecord(**json.loads(row)) for row in rows)
        ]
    mean = torch.stack(vectors).double().mean(0)
    assert np.abs(np.array(values) - mean.numpy()).max() <= 2.0**-7 + 1e-6
    said: list[str] = []
    events = Events(on_base=said.append)
    result = simulate(recipe, RunDirectory.create(tmp_path / "run", recipe), events=events)
    assert [line for line in said if line.startswith("centre: ")] == [
        'centre: the mean vector of data.public is subtracted (model.center = "public")'
    ]
    # Export merges it into the head, so the adapter needs neither the file nor the vector.
    (tmp_path / "study" / "public.jsonl").unlink()
    _, loaded = load_released(tmp_path / "run" / "adapter")
    tokens = recipe.machine.plain_tokens
    examples = loaded.encode(prepare(small_recipe(tmp_path / "study", base=bert)).test)
    scores = evaluate(loaded.network, loaded.task, examples, tokens).metrics
    assert scores["loss"] == pytest.approx(result.test["loss"], rel=1e-4)


def test_a_centre_that_does_not_fit_is_refused(tmp_path: Path, bert: Path) -> None:
    with pytest.raises(RecipeError, match=r'model\.center: "public" is the mean of public'):
        parse_recipe("", ["model.center=public"])
    with pytest.raises(RecipeError, match="center_values: given without"):
        parse_recipe("", ["model.center=english", "model.center_values=[1.0]"])
    recipe = warm(tmp_path / "study", bert, "model.center=public", "model.center_values=[1.0]")
    with pytest.raises(UsageError, match=r"model\.center_values: 1 given; the base's vectors have"):
        open_coordinator(recipe, RunDirectory.create(tmp_path / "run", recipe))
