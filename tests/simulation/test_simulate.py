"""Whole studies in one process: their files, promises and resumption."""

import dataclasses
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from cloister.adapter.factor_pairs import cut, filled
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, encode
from cloister.adapter.wire import digest as sha256
from cloister.client.round import answer
from cloister.data.records import TextRecord
from cloister.errors import BudgetError, DataError, RecipeError
from cloister.export.adapter_folder import load_released
from cloister.ledger import stated
from cloister.ledger.charge import Charge
from cloister.ledger.ledger import Ledger
from cloister.ledger.stated import Basis
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.privacy.entropy import OsEntropy
from cloister.protocol.exchange import RoundRequest
from cloister.recipe import Recipe, read_recipe
from cloister.server import ending
from cloister.server.class_plot import ClassScores, plot_classes
from cloister.server.plots import plot_run
from cloister.server.report import RoundReport
from cloister.server.run_directory import RunDirectory
from cloister.simulation.ledgers import begin_ledgers
from cloister.simulation.result import RunResult
from cloister.simulation.run import Events, open_coordinator, simulate
from cloister.simulation.study import SimulatedSites, plan_of, prepare, workspace_of
from cloister.simulation.twin import simulate_with_twin
from cloister.strategies.strategy import ServerState
from cloister.training.local import local_update
from tests.support.ledgers import odometer
from tests.support.studies import NOTES, small_recipe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "study"


def run(recipe: Recipe, out: Path, events: Events | None = None) -> RunResult:
    return simulate(recipe, RunDirectory.create(out, recipe), "local", events)


def final(recipe: Recipe, out: Path) -> Adapter:
    start = workspace_of(prepare(recipe)).start
    digest = prepare(recipe).recipe.digest()
    from cloister.strategies.strategy import ServerState

    return RunDirectory(out).load(ServerState(start), digest).adapter


def test_a_run_leaves_everything_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "plot_run", plot_run)
    drawn: list[ClassScores] = []

    def plotted(classes: ClassScores, title: str, path: Path) -> bool:
        drawn.append(classes)
        return plot_classes(classes, title, path)

    monkeypatch.setattr(ending, "plot_classes", plotted)
    recipe = small_recipe(folder, "tracking.tensorboard=true")
    result = run(recipe, tmp_path / "run")
    (classes,) = drawn
    assert {name: scores["support"] for name, scores in classes.items()} == Counter(
        record.label for record in prepare(recipe).test if isinstance(record, TextRecord)
    )
    hits = sum(scores["recall"] * scores["support"] for scores in classes.values())
    assert hits == pytest.approx(result.test["accuracy"] * len(prepare(recipe).test))
    out = result.run_dir
    for name in (
        "recipe.toml",
        "metrics.jsonl",
        "metrics.png",
        "classes.png",
        "checkpoint/latest.json",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "adapter/head.safetensors",
        "adapter/README.md",
        "ledgers/east.ledger",
        "ledgers/west.ledger",
    ):
        assert (out / name).stat().st_size > 0, name
    for name in ("metrics.png", "classes.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert list((out / "tensorboard").iterdir())
    stated = read_recipe(out / "recipe.toml")
    resolved = prepare(recipe).recipe
    assert stated == resolved.resolved()
    # What the file says is what the digest covers: the labels in force, and no empty list.
    assert stated.task.labels == tuple(sorted(NOTES))
    assert stated.digest() == resolved.digest() != recipe.digest()
    assert {
        e.fields["study"]
        for e in LedgerFile(out / "ledgers" / "east.ledger").entries()
        if "study" in e.fields
    } == {stated.digest()}


def test_what_is_reported_follows_from_the_ledgers(folder: Path, tmp_path: Path) -> None:
    result = run(small_recipe(folder, "privacy.epsilon=4.0"), tmp_path / "run")
    document = result.to_json()
    assert set(document) == {
        "run_dir",
        "task",
        "rounds",
        "unit",
        "neighbouring",
        "adversaries",
        "test",
        "untrained_test",
        "sites",
        "bytes_per_update",
        "seconds",
        "majority",
        "census",
    }
    assert document["adversaries"] == ["coordinator", "other-sites", "public"]
    assert document["rounds"] == 2
    assert [site["name"] for site in document["sites"]] == ["east", "west"]
    for site in document["sites"]:
        ledger = Ledger(result.run_dir / "ledgers" / f"{site['name']}.ledger")
        assert site["promise"] == ledger.promise.to_json()
        assert site["spent"] == ledger.spent.to_json()
        # The plan ran to its end, so both are one number; they do not say the same.
        assert site["promise"]["epsilon"] == odometer(ledger, 1e-5) <= 4.0
        assert site["promise"]["is_promise"] > site["spent"]["is_promise"]
        assert site["steps"] == 4
        assert site["sample_rate"] == 0.25
        assert site["public_records"] == 40
        assert set(site) == {
            "name",
            "promise",
            "spent",
            "steps",
            "sample_rate",
            "noise_multiplier",
            "public_records",
        }
    rows = [
        json.loads(line)
        for line in (result.run_dir / "metrics.jsonl").read_text().split("\n")
        if line
    ]
    assert [row["round"] for row in rows] == [1, 2]
    assert rows[-1]["test"]["accuracy"] == document["test"]["accuracy"]
    # Every round tells the promise of the whole plan, from the first on.
    stated = document["sites"][0]["promise"]["epsilon"]
    assert rows[0]["epsilon"]["east"] == rows[1]["epsilon"]["east"] == stated
    assert rows[0]["bytes_up"] == 2 * document["bytes_per_update"]


def test_equal_seeds_without_privacy_give_equal_adapters(folder: Path, tmp_path: Path) -> None:
    recipe = small_recipe(folder, "privacy.enabled=false")
    run(recipe, tmp_path / "one")
    run(recipe, tmp_path / "other")
    assert (final(recipe, tmp_path / "one") - final(recipe, tmp_path / "other")).norm() == 0.0


def test_equal_seeds_with_privacy_give_different_adapters(folder: Path, tmp_path: Path) -> None:
    recipe = small_recipe(folder)
    run(recipe, tmp_path / "one")
    run(recipe, tmp_path / "other")
    assert (final(recipe, tmp_path / "one") - final(recipe, tmp_path / "other")).norm() > 1e-3


def test_without_privacy_a_study_learns(folder: Path, tmp_path: Path) -> None:
    recipe = small_recipe(
        folder,
        "privacy.enabled=false",
        "federation.num_rounds=6",
        "training.local_steps=6",
        "training.optimizer=adamw",
        "training.learning_rate=0.05",
        "model.pooling=mean",
    )
    result = run(recipe, tmp_path / "run")
    assert result.majority is not None
    assert result.test["accuracy"] > result.majority + 0.2
    assert all(site.epsilon == math.inf for site in result.sites)
    assert all(site["promise"]["epsilon"] is None for site in result.to_json()["sites"])
    assert "**None: ε = ∞.**" in (result.run_dir / "adapter" / "README.md").read_text()


def rows_of_persons(path: Path, persons: list[object]) -> Path:
    names = list(NOTES)
    rows = [
        {"text": NOTES[names[i % 3]][i % 2], "label": names[i % 3], "patient": person}
        for i, person in enumerate(persons)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


PERSONS = (
    "data.partition=person",
    "data.person=patient",
    "privacy.unit=person",
    "privacy.max_records_per_person=2",
)


@pytest.mark.parametrize(
    ("persons", "units"),
    [
        ([80276883110000012000 + i for i in range(40)], 40),
        ([2**53 + i for i in range(40)], 40),
        ([f"{i:03d}" for i in range(40)] + [str(i) for i in range(40)], 80),
        (["NA"] * 40 + [f"p{i}" for i in range(20)], 21),
    ],
)
def test_each_person_as_written_is_a_unit_and_they_are_told_before_training(
    folder: Path, tmp_path: Path, persons: list[object], units: int
) -> None:
    recipe = small_recipe(folder)
    train = rows_of_persons(folder / "train.jsonl", persons)
    rows_of_persons(folder / "test.jsonl", [None] * 9)  # public: needs no person
    told: list[str] = []
    events = Events(on_note=told.append, on_warning=told.append)
    recipe = small_recipe(folder, f"data.train='{train}'", *PERSONS)
    open_coordinator(recipe, RunDirectory.create(tmp_path / "run", recipe), events)
    assert prepare(recipe).census().units == units
    assert told[0].startswith(f"{len(persons)} records of {units} persons (privacy units); the lar")
    assert told[1:] == list(prepare(recipe).census().warnings)
    assert any("the identifier 'NA' holds 40 of 60 records" in t for t in told) == ("NA" in persons)


def test_a_person_of_two_sites_is_a_unit_of_each(folder: Path) -> None:
    recipe = small_recipe(folder, "privacy.unit=person", "data.person=person")
    counted = prepare(recipe).census()  # 80 notes, four a person, at two sites in turn
    assert (counted.records, counted.units, counted.largest) == (80, 40, 2)


class CrashError(Exception):
    """Stands for a crash between two rounds."""


def crash_after(rounds: int) -> Events:
    def on_round(report: object) -> None:
        if report.round == rounds:  # type: ignore[attr-defined]
            raise CrashError

    return Events(on_round=on_round)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_plain_run_equals_an_unbroken_one(
    folder: Path, tmp_path: Path, optimizer: str
) -> None:
    recipe = small_recipe(
        folder,
        "privacy.enabled=false",
        "federation.num_rounds=4",
        f"training.optimizer={optimizer}",
    )
    run(recipe, tmp_path / "whole")
    with pytest.raises(CrashError):
        run(recipe, tmp_path / "broken", crash_after(2))
    simulate(recipe, RunDirectory.reopen(tmp_path / "broken"))
    assert (final(recipe, tmp_path / "whole") - final(recipe, tmp_path / "broken")).norm() == 0.0


def test_a_round_that_was_cut_off_stays_charged_and_the_budget_holds(
    folder: Path, tmp_path: Path
) -> None:
    recipe = small_recipe(folder, "federation.num_rounds=4", "privacy.epsilon=3.0")
    steps = 0

    def on_step() -> None:
        nonlocal steps
        steps += 1
        if steps == 2 * 2 * 2 + 1:  # in the first site's first step of round 3
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "run", Events(on_step=on_step))
    reports: list[RoundReport] = []
    result = simulate(
        recipe, RunDirectory.reopen(tmp_path / "run"), "local", Events(on_round=reports.append)
    )
    # East was cut off in round 3 and goes on with round 4; west, not asked yet, answers both.
    assert [report.missing for report in reports] == [("east",), ()]
    east, west = result.sites
    assert result.rounds == 4
    assert east.steps == west.steps == 4 * 2
    assert west.epsilon == east.epsilon <= 3.0


def test_a_round_that_was_cut_off_everywhere_is_skipped(folder: Path, tmp_path: Path) -> None:
    recipe = small_recipe(folder, "federation.num_rounds=3", "privacy.epsilon=3.0")
    digest = prepare(recipe).recipe.digest()
    start = ServerState(workspace_of(prepare(recipe)).start)

    first = RunDirectory.create(tmp_path / "run", recipe)
    begin_ledgers(prepare(recipe), first)
    for name in ("east", "west"):
        plan = plan_of(prepare(recipe), name)
        Ledger(first.ledger(name)).reserve(
            Charge(study=digest, round=1, plan=plan, request=sha256(encode(start.adapter)))
        )
    notes: list[str] = []
    result = simulate(recipe, first, "local", Events(on_stage=notes.append))
    assert any("round 1 was charged and cut off" in note for note in notes)
    assert result.rounds == 3
    assert all(site.steps == 3 * 2 for site in result.sites)
    assert first.metrics()[0]["update_norm"] == 0.0 < first.metrics()[1]["update_norm"]


def test_a_site_whose_budget_is_spent_retires_and_the_others_go_on(
    folder: Path, tmp_path: Path
) -> None:
    recipe = small_recipe(
        folder, "federation.num_rounds=6", "privacy.epsilon=6.0", "privacy.site_budgets=[6.0, 4.5]"
    )
    reports: list[RoundReport] = []
    result = run(recipe, tmp_path / "run", Events(on_round=reports.append))
    east, west = result.sites
    assert result.rounds == 6
    assert east.steps == 6 * 2
    assert 0 < west.steps < 6 * 2
    # West's budget does not cover the plan: the budget is what it is promised.
    assert west.epsilon == 4.5 < east.epsilon <= 6.0
    assert west.promise.basis is Basis.LIFETIME_BUDGET
    assert west.spent.epsilon <= 4.5
    assert reports[-1].retired == ("west",)
    assert reports[-1].missing == ()
    assert {report.epsilon["west"] for report in reports} == {4.5}


def test_a_study_ends_when_every_budget_is_spent(folder: Path, tmp_path: Path) -> None:
    recipe = small_recipe(
        folder, "federation.num_rounds=6", "privacy.epsilon=6.0", "privacy.site_budgets=[4.5, 4.5]"
    )
    notes: list[str] = []
    result = run(recipe, tmp_path / "run", Events(on_stage=notes.append))
    assert 0 < result.rounds < 6
    assert any("every site's budget is spent" in note for note in notes)
    with pytest.raises(BudgetError, match="no site's budget covers"):
        run(small_recipe(folder, "privacy.site_budgets=[0.1, 0.1]"), tmp_path / "none")


def test_another_recipe_cannot_go_on_with_a_run(folder: Path, tmp_path: Path) -> None:
    recipe = small_recipe(folder, "privacy.enabled=false")
    run(recipe, tmp_path / "run")
    other = dataclasses.replace(recipe, study=dataclasses.replace(recipe.study, seed=5))
    from cloister.errors import UsageError

    with pytest.raises(UsageError, match="another recipe"):
        simulate(other, RunDirectory.reopen(tmp_path / "run"))


def test_a_neighbouring_data_set_changes_nothing_but_the_values_sent(
    folder: Path, tmp_path: Path
) -> None:
    """Plans, ledgers and message sizes on n and n + 1 records are the same."""
    one = run(small_recipe(folder), tmp_path / "one")
    more = folder / "more.jsonl"
    row = {"text": "no fever", "label": "cardiology", "site": "east"}
    more.write_text((folder / "train.jsonl").read_text() + json.dumps(row) + "\n")
    other = run(small_recipe(folder, f"data.train='{more}'"), tmp_path / "other")
    for site, twin in zip(one.sites, other.sites, strict=True):
        assert dataclasses.replace(site, ledger=twin.ledger) == twin
        assert site.ledger.seq == twin.ledger.seq
    assert other.bytes_per_update == one.bytes_per_update

    def ledger(result: RunResult) -> list[dict[str, object]]:
        path = result.run_dir / "ledgers" / "east.ledger"
        own = {"sha256", "prev", "time", "key", "study", "request"}  # of values, keys and paths
        return [
            {name: value for name, value in entry.fields.items() if name not in own}
            for entry in LedgerFile(path).entries()
        ]

    assert ledger(one) == ledger(other)


def test_the_twin_s_score_is_on_the_card(folder: Path, tmp_path: Path) -> None:
    recipe = small_recipe(folder)
    result = simulate_with_twin(recipe, RunDirectory.create(tmp_path / "run", recipe))
    card = (result.run_dir / "adapter" / "README.md").read_text()
    assert result.plain_test is not None
    columns = (result.test, result.untrained, result.plain_test)
    cells = " | ".join(f"{scores['accuracy']:.4f}" for scores in columns)
    assert f"| accuracy | {cells} |" in card
    assert "most frequent label scores" in card
    assert "one unit added or removed" in card
    for site in result.sites:
        verdict = verify(
            LedgerFile(result.run_dir / "ledgers" / f"{site.name}.ledger").entries(), ""
        )
        assert verdict.promise == site.promise
        assert f"- {site.name}: entry {verdict.head.seq}, SHA-256 `{verdict.head.hash}`" in card
    for site in result.sites:
        assert f"| {site.name} | {stated.shown(site.epsilon, 3)} | 1e-05 |" in card
    assert (result.run_dir / "twin" / "recipe.toml").exists()


def test_early_stopping_keeps_the_best_adapter_on_public_validation_data(
    folder: Path, tmp_path: Path
) -> None:
    recipe = small_recipe(
        folder,
        "privacy.enabled=false",
        f"data.validation='{folder}/test.jsonl'",
        "federation.num_rounds=30",
        "federation.patience=2",
        "training.learning_rate=1e-7",
        "model.pooling=pooler",
    )
    result = run(recipe, tmp_path / "run")
    # Nothing moves the accuracy: the first evaluation is the best, and two more end the run.
    assert result.rounds == 3
    assert (tmp_path / "run" / "checkpoint" / "best.adapter").exists()
    selected = json.loads((tmp_path / "run" / "result.json").read_text())["selected"]
    assert (selected["by"], selected["round"], selected["compared"]) == ("public_validation", 1, 3)
    card = (result.run_dir / "adapter" / "README.md").read_text()
    said = "**Selected: the adapter after round 1, the best of 3 by accuracy on the public"
    assert said in card
    assert "too good on average" in card


def test_probe_rounds_send_the_head_alone(folder: Path, tmp_path: Path) -> None:
    run(small_recipe(folder, "training.probe_rounds=1"), tmp_path / "run")
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert rows[0]["bytes_up"] < rows[1]["bytes_up"]


def test_every_task_runs_and_is_scored(tmp_path: Path, bert: Path, llama: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "other"
    folder.mkdir()
    tokens, chats, pairs = (folder / f"{name}.jsonl" for name in ("tokens", "chats", "pairs"))
    with tokens.open("w") as words, chats.open("w") as talks, pairs.open("w") as choices:
        for index in range(40):
            site = ("east", "west")[index % 2]
            tag = ["B-D", "I-D", "O"] if rng.random() < 0.5 else ["O", "O", "B-D"]
            row = {"tokens": ["chest", "pain", "rash"], "tags": tag, "site": site}
            words.write(json.dumps(row) + "\n")
            turns = [
                {"role": "user", "content": "itchy rash"},
                {"role": "assistant", "content": "severe rash and fever"},
            ]
            talks.write(json.dumps({"messages": turns, "site": site}) + "\n")
            pair = {"prompt": "itchy rash", "chosen": "severe rash", "rejected": "chest pain"}
            choices.write(json.dumps({**pair, "site": site}) + "\n")
    for data in (tokens, chats, pairs):
        (folder / f"test-{data.name}").write_bytes(data.read_bytes())
    for kind, data, base, metric, *more in (
        ("token-classification", tokens, bert, "f1"),
        ("causal-lm", chats, llama, "rouge_l"),
        ("causal-lm", pairs, llama, "rouge_l", "task.loss=dpo"),
    ):
        recipe = small_recipe(
            folder,
            f"task.kind={kind}",
            f"data.train='{data}'",
            f"data.test='{folder}/test-{data.name}'",
            *more,
            base=base,
        )
        result = run(recipe, tmp_path / data.stem)
        assert 0 <= result.test[metric] <= 1
        assert result.majority is None


def test_a_label_that_one_record_brings_changes_nothing_that_is_seen(folder: Path) -> None:
    """Labels are the public test set's, so a rare one at a site is refused, and not a new row."""
    recipe = small_recipe(folder)
    before = prepare(recipe)
    with (folder / "train.jsonl").open("a") as file:
        file.write('{"text": "one more", "label": "rare", "site": "east"}\n')
    with pytest.raises(DataError, match=r"labels that are not the study's: rare"):
        prepare(recipe)
    named = dataclasses.replace(
        recipe, task=dataclasses.replace(recipe.task, labels=(*before.recipe.task.labels, "rare"))
    )
    assert "rare" in prepare(named).recipe.task.labels


def test_factors_take_turns(folder: Path, tmp_path: Path) -> None:
    """B and the head in round 1, A and the head in round 2: half of the adapters travels."""
    recipe = small_recipe(folder, "lora.train=alternate")
    workspace = workspace_of(prepare(recipe))
    first, second = (workspace.trained_in_round(recipe.training, number) for number in (1, 2))
    heads = {name for name in workspace.start if name.startswith("head.")}
    assert first & second == heads
    assert first | second == frozenset(workspace.start)
    assert all("lora_B" in name for name in first - heads)
    whole = workspace.start.select(workspace.start.keys() - heads).size
    for travels in (first, second):
        assert workspace.start.select(travels - heads).size / whole == pytest.approx(0.5, rel=0.01)
    run(recipe, tmp_path / "run")
    after = final(recipe, tmp_path / "run")
    assert all((after[name] != workspace.start[name]).any() for name in after)


def test_every_round_says_how_far_averaging_was_off(folder: Path, tmp_path: Path) -> None:
    errors, bytes_up = {}, {}
    for name, options in {
        "FedIT": ["lora.train=both"],
        "FFA": ["lora.train=b"],
        "alternating": ["lora.train=alternate"],
        "FedSVD": ["lora.train=b-moving", "strategy.name=fedsvd"],
        "FedEx": ["strategy.name=fedex", "lora.residual=16"],
        "momentum": ["strategy.name=fedavgm"],
        "no memory for it": ["tracking.aggregation_error_mib=0.001"],
        "gradients": ["training.mode=gradient-rounds", "training.local_steps=1"],
    }.items():
        rounds = 2 if name == "alternating" else 1
        run(small_recipe(folder, *options, f"federation.num_rounds={rounds}"), tmp_path / name)
        rows = RunDirectory.reopen(tmp_path / name).metrics()
        errors[name] = [row["aggregation_error"] for row in rows]
        bytes_up[name] = rows[0]["bytes_up"]
    assert all(error > 1e-3 for error in errors["FedIT"])
    for name in ("FFA", "alternating", "FedSVD", "FedEx"):
        assert all(error <= 1e-6 for error in errors[name]), name
    for name in ("momentum", "gradients", "no memory for it"):
        assert errors[name] == [None], name
    assert bytes_up["FedSVD"] == bytes_up["FFA"] < bytes_up["FedIT"] == bytes_up["FedEx"]


def test_sites_of_lower_rank_send_less_and_train_as_if_all_were_of_their_rank(
    folder: Path, tmp_path: Path
) -> None:
    """A site of rank 2 under r = 4 does what it does in a study of rank 2, at the same scale."""
    options = [
        "strategy.name=flexlora",
        "privacy.enabled=false",
        "training.learning_rate=0.5",
        "federation.num_rounds=1",
        "training.local_steps=4",
    ]
    mixed = small_recipe(folder, *options, "lora.ranks=[2, 4]")
    sent = {}
    for name, recipe in {
        "mixed": mixed,
        "low": small_recipe(folder, *options, "lora.r=2", "lora.alpha=4.0"),
        "high": small_recipe(folder, *options),
    }.items():
        place = RunDirectory.create(tmp_path / name, recipe)
        begin_ledgers(prepare(recipe), place)
        workspace = workspace_of(prepare(recipe))
        start = cut(workspace_of(prepare(mixed)).whole, 2 if name == "low" else 4)
        for index, site_name in enumerate(("east", "west")):
            context = Context(0, 0, {"partition-id": index}, RecordDict(), {})
            site, _ = SimulatedSites(recipe, place.path / "ledgers")(context)
            request = RoundRequest(site.study, 1, encode(start))
            reply = answer(site, workspace, request, lambda: None)
            sent[name, site_name] = decode(reply.delta)
            assert sent[name, site_name].shapes == dict(site.plan.message)
    east = sent["mixed", "east"]
    assert east.size < sent["mixed", "west"].size
    assert (east - sent["low", "east"]).norm() <= 1e-6 * east.norm()
    assert (sent["mixed", "west"] - sent["high", "west"]).norm() == 0.0


def test_a_site_of_lower_rank_lets_no_noise_in_beyond_it(folder: Path, tmp_path: Path) -> None:
    recipe = small_recipe(folder, "strategy.name=flexlora", "lora.ranks=[1, 4]")
    run(recipe, tmp_path / "run")
    rows = RunDirectory.reopen(tmp_path / "run").metrics()
    assert all(not row["refused"] and row["aggregation_error"] < 1 for row in rows)
    network = workspace_of(prepare(recipe)).network
    plan, training = plan_of(prepare(recipe), "east"), recipe.training
    start = workspace_of(prepare(recipe)).start
    workspace_of(prepare(recipe)).train_names(frozenset(start))
    delta = local_update(
        network,
        workspace_of(prepare(recipe)).task,
        [],
        filled(cut(start, 1), start.shapes),
        plan,
        training,
        round_number=1,
        entropy=OsEntropy(),
        rank=1,
    )
    assert delta.norm() > 0
    assert (filled(cut(delta, 1), delta.shapes) - delta).norm() == 0.0


MORE = {
    "fedsvd": ["lora.train=b-moving"],
    "fedex": ["lora.residual=5"],
    "flora": ["lora.residual=16"],
    "flexlora": ["lora.r=3", "lora.ranks=[1, 2, 3]"],
}


def test_sites_that_keep_b_resume_bit_for_bit_and_end_with_adapters_of_their_own(
    folder: Path, tmp_path: Path
) -> None:
    options = [
        "lora.train=b-kept",
        "privacy.enabled=false",
        "federation.num_rounds=3",
        "training.learning_rate=0.5",
    ]
    recipe = small_recipe(folder, *options)
    run(recipe, tmp_path / "unbroken")
    with pytest.raises(CrashError):
        run(recipe, tmp_path / "broken", crash_after(2))
    simulate(recipe, RunDirectory.reopen(tmp_path / "broken"))
    weights = {}
    for place in ("adapter", "personal/east", "personal/west"):
        one, other = (
            (tmp_path / name / place / "adapter_model.safetensors").read_bytes()
            for name in ("unbroken", "broken")
        )
        assert one == other
        weights[place] = one
    assert len(set(weights.values())) == 3
    rows = RunDirectory.reopen(tmp_path / "unbroken").metrics()
    assert [row["aggregation_error"] for row in rows] == [None, None, None]
    assert "no model by itself" in (tmp_path / "unbroken" / "adapter" / "README.md").read_text()
    about, _ = load_released(tmp_path / "unbroken" / "personal" / "east")
    assert about.lora.train == "b-kept"
    with pytest.raises(RecipeError, match="not that of the best one"):
        small_recipe(
            folder, *options, "federation.patience=2", f"data.validation='{folder}/test.jsonl'"
        )


# One with memory, one whose residual and one whose ranks travel; FedAvg, which has none of them, is
# resumed in the tests above.
QUICK = {"fedadam", "fedex", "flexlora"}


@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.nightly)
        for name in ("fedavgm", "fedadam", "median", "geometric-median", *MORE)
    ],
)
def test_other_strategies_run_and_resume_bit_for_bit(
    strategy: str, folder: Path, tmp_path: Path
) -> None:
    options = [
        f"strategy.name={strategy}",
        "data.sites=3",
        "data.partition=iid",
        "data.public_records=20",
        "privacy.enabled=false",
        *MORE.get(strategy, []),
    ]
    recipe = small_recipe(folder, *options, "federation.num_rounds=3")
    run(recipe, tmp_path / "unbroken")

    def stop(report: RoundReport) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "broken", Events(on_round=stop))
    simulate(recipe, RunDirectory.reopen(tmp_path / "broken"))
    memory = {}
    for name in ("unbroken", "broken"):
        files = (tmp_path / name / "checkpoint").glob("round-*")
        memory[name] = {path.name: path.read_bytes() for path in files}
    assert memory["broken"] == memory["unbroken"]
