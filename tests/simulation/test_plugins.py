"""A failing plug-in ends a run by its name, and closed rounds stay saved."""

import dataclasses
import json
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.errors import PluginError, PreflightError, UsageError
from cloister.export.adapter_folder import read_released
from cloister.server.run_directory import RunDirectory
from cloister.serving.model import load
from cloister.simulation.run import simulate
from cloister.strategies.arithmetic import stepped, weighted_mean
from cloister.strategies.plugins import named
from cloister.strategies.strategy import Strategy
from cloister.tasks import plugins
from cloister.tasks.sequence import SequenceClassification
from tests.support.studies import small_recipe


class Tiring(Strategy):
    """Stops after a round, unless it was mended."""

    ends = 1

    def aggregate(self, state, updates):  # type: ignore[no-untyped-def]
        if state.round >= self.ends:
            raise KeyError("sum")
        return stepped(state, weighted_mean(updates, {}))


def test_a_strategy_that_raises_ends_the_run_and_what_was_closed_goes_on(
    tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe(tmp_path / "study", base=bert)
    recipe = dataclasses.replace(recipe, strategy=named(Tiring))
    run = RunDirectory.create(tmp_path / "run", recipe)
    with pytest.raises(PluginError, match=r"Tiring failed in aggregate, round 2: KeyError: 'sum'"):
        simulate(recipe, run)
    latest = json.loads((run.path / "checkpoint" / "latest.json").read_text())
    assert latest["round"] == 1
    assert len(run.metrics()) == 1
    monkeypatch.setattr(Tiring, "ends", 9)
    result = simulate(run.recipe(), run)
    assert result.rounds == 2


class Coupled(SequenceClassification):
    """Weighs each record by the batch's mean, so that no clip bounds what a record moves."""

    def record_losses(self, logits, batch):  # type: ignore[no-untyped-def]
        losses = super().record_losses(logits, batch)
        return losses * (1 + losses.mean().detach())


def test_a_loss_that_couples_records_is_refused_before_anything_is_charged(
    tmp_path: Path, bert: Path
) -> None:
    recipe = small_recipe(tmp_path / "study", base=bert)
    kind, plugin = plugins.named(Coupled)
    task = dataclasses.replace(recipe.task, kind=kind, plugin=plugin)
    run = RunDirectory.create(tmp_path / "run", dataclasses.replace(recipe, task=task))
    with pytest.raises(PreflightError, match="gradient"):
        simulate(dataclasses.replace(recipe, task=task), run)
    assert not (run.path / "checkpoint").exists()


def test_a_task_of_a_notebook_is_refused_where_ray_would_need_it(
    tmp_path: Path, bert: Path
) -> None:
    class Local(SequenceClassification):
        pass

    recipe = small_recipe(tmp_path / "study", base=bert)
    kind, plugin = plugins.named(Local)
    task = dataclasses.replace(recipe.task, kind=kind, plugin=plugin)
    changed = dataclasses.replace(recipe, task=task)
    with pytest.raises(UsageError, match="use --engine local"):
        simulate(changed, RunDirectory.create(tmp_path / "run", changed), "ray")


def test_an_adapter_of_a_plug_in_s_task_runs_no_code_that_its_user_did_not_name(
    tmp_path: Path,
    bert: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Local(SequenceClassification):
        pass

    recipe = small_recipe(tmp_path / "study", "federation.num_rounds=1", base=bert)
    kind, plugin = plugins.named(Local)
    task = dataclasses.replace(recipe.task, kind=kind, plugin=plugin)
    changed = dataclasses.replace(recipe, task=task)
    simulate(changed, RunDirectory.create(tmp_path / "run", changed))
    monkeypatch.setattr("cloister.plugins._HERE", {})  # another process
    stated = read_released(tmp_path / "run" / "adapter").task
    assert (stated.kind, stated.plugin) == (kind, plugin)
    with pytest.raises(UsageError, match="comes from a plug-in"):
        load(tmp_path / "run")
    scored = ["evaluate", str(tmp_path / "run"), "--data", "none.jsonl"]
    for given in ([], ["--plugin", "another:Task"]):
        assert run([*scored, *given]) == 2
        told = capsys.readouterr().err
        assert f"give --plugin {kind} if you trust it" in " ".join(told.split())
    assert run([*scored, "--plugin", kind]) != 0  # now the class of the other process is missing
