"""A study that averages its adapters scores, exports and resumes with the average."""

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode
from cloister.recipe import Recipe
from cloister.server.report import RoundReport
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import Events, simulate
from cloister.simulation.study import prepare, workspace_of
from tests.support.studies import small_recipe

HEAD = "head.weight"


def averaging(folder: Path, bert: Path, *changes: str) -> Recipe:
    """Three rounds, of which all are averaged."""
    return small_recipe(
        folder,
        "training.mode=gradient-rounds",
        "training.local_steps=1",
        "training.learning_rate=2.0",
        "lora.train=b",
        "federation.num_rounds=3",
        "strategy.averaging=tail",
        "strategy.averaging_share=1.0",
        *changes,
        base=bert,
    )


def stored(run: Path, recipe: Recipe, part: str) -> Adapter:
    """A part of the last state as the run's folder has it."""
    shapes = workspace_of(prepare(recipe)).whole.shapes
    return decode((run / "checkpoint" / f"round-0003.{part}").read_bytes(), shapes)


def test_the_average_is_scored_and_exported_and_training_goes_on_from_the_last(
    tmp_path: Path, bert: Path
) -> None:
    plain = averaging(tmp_path / "study", bert)
    result = simulate(plain, RunDirectory.create(tmp_path / "plain", plain))
    # What a round scores is what it would deliver.
    assert RunDirectory(tmp_path / "plain").metrics()[-1]["test"] == dict(result.test)
    last, average = (stored(tmp_path / "plain", plain, part) for part in ("adapter", "average"))
    exported = load_file(tmp_path / "plain" / "adapter" / "head.safetensors")["weight"]
    assert (exported == average[HEAD]).all()
    # A study that begins with this run (--from) begins with what it delivered.
    run = RunDirectory(tmp_path / "plain")
    assert (run.load_best(run.last()).adapter[HEAD] == exported).all()
    assert abs(exported - last[HEAD]).max() > 1e-3


def test_a_study_of_averages_resumes_bit_for_bit(tmp_path: Path, bert: Path) -> None:
    recipe = averaging(
        tmp_path / "study",
        bert,
        "privacy.enabled=false",
        "strategy.name=fedavgm",
    )
    simulate(recipe, RunDirectory.create(tmp_path / "whole", recipe))

    def stop(report: RoundReport) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(
            recipe, RunDirectory.create(tmp_path / "broken", recipe), events=Events(on_round=stop)
        )
    simulate(recipe, RunDirectory.reopen(tmp_path / "broken"))
    for file in ("checkpoint/round-0003.average", "adapter/head.safetensors"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "broken" / file).read_bytes()
    scores = [RunDirectory(tmp_path / name).metrics()[-1]["test"] for name in ("whole", "broken")]
    assert scores[0] == scores[1]
