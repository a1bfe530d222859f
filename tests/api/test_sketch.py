"""A user's first script, as the design sketched it, runs on a tiny base."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
from safetensors.numpy import load_file

import cloister as cl
from cloister.ledger.ledger import Ledger
from cloister.recipe import read_run_recipe
from tests.support.models import tiny_bert
from tests.support.studies import NOTES


@dataclass(frozen=True)
class MyStrategy(cl.Strategy):
    """The mean of the updates, by a step of one's own."""

    step: float = 1.0

    def aggregate(self, state: cl.ServerState, updates: Mapping[str, cl.Adapter]) -> cl.ServerState:
        adapter = state.adapter
        for update in updates.values():
            adapter = adapter + update.scale(self.step / len(updates))
        return replace(state, adapter=adapter, round=state.round + 1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """With as many positions as a task reads by default."""
    return str(tiny_bert(tmp_path_factory.mktemp("base"), positions=130))


def frame_of(count: int) -> pd.DataFrame:
    """Notes of three departments, in turn."""
    labels = list(NOTES)
    rows = [
        {"text": NOTES[labels[i % 3]][i // 3 % 3], "label": labels[i % 3]} for i in range(count)
    ]
    return pd.DataFrame(rows)


def test_the_sketch_runs_as_written(
    base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame, test_frame = frame_of(150), frame_of(18)
    study = cl.Study(
        model=base,
        task="sequence-classification",
        data=cl.partition(frame, sites=5, alpha=0.3),
        test=test_frame,
        privacy=cl.Privacy(epsilon=8),
        strategy=MyStrategy(),
        rounds=2,
    )
    print(study.plan())  # noqa: T201 - as a researcher writes it
    assert "5 sites of 1,200 declared records: ε = " in capsys.readouterr().out
    seen: list[int] = []
    result = cl.simulate(study, progress=lambda row: seen.append(row["round"]))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert [0, *seen] == [0, 1, 2] == list(result.rounds.index)  # row 0: not trained yet
    assert result.rounds.test_accuracy[2] == result.test["accuracy"]
    assert list(result.sites.index) == [f"site-{i}" for i in range(5)]
    assert 7.9 < float(result.epsilon) == result.sites.epsilon.max() <= 8
    for word in ("δ = 1e-05", "one record added or removed", "promised for the whole plan"):
        assert word in str(result.epsilon)
    assert set(result.sites.unit) == {"record"}
    assert set(result.sites.basis) == {"whole-plan"}
    assert "against the coordinator" in repr(result)
    assert read_run_recipe(result.folder / "recipe.toml").strategy == study.recipe.strategy
    temporary = result.folder
    assert (temporary / "data" / "train.jsonl").stat().st_mode & 0o077 == 0
    saved = result.save(tmp_path / "mine")
    predictions = cl.load(saved).predict(list(test_frame.text))
    hits = [p.to_json()["label"] == label for p, label in zip(predictions, test_frame.label)]  # noqa: B905
    assert sum(hits) / len(hits) == result.test["accuracy"]
    assert (saved / "adapter" / "adapter_model.safetensors").stat().st_size > 0
    assert not (saved / "data").exists()
    assert json.loads((saved / "result.json").read_text())["run_dir"] == str(saved)
    with pytest.raises(cl.CloisterError, match="choose one outside of it"):
        result.save(temporary / "copy")
    assert (
        Ledger(saved / "ledgers" / "site-0.ledger").promise.epsilon == result.sites.epsilon.iloc[0]
    )
    with pytest.raises(cl.CloisterError, match="exists already; choose a new folder"):
        result.save(tmp_path / "mine")
    model = cl.load(tmp_path / "mine")
    (found,) = model.predict(["chest pain at rest"])
    assert set(found.probabilities) == set(NOTES)  # type: ignore[union-attr]
    del result
    assert not temporary.exists()


def test_sites_by_name_run_in_a_folder_that_is_kept_and_resumed(base: str, tmp_path: Path) -> None:
    study = cl.Study(
        model=base,
        data={"st-marys": frame_of(60), "general": frame_of(50)},
        test=frame_of(18),
        privacy=cl.Privacy(enabled=False),
        rounds=2,
    )

    def stop(row: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        cl.simulate(study, out=out, progress=stop)
    result = cl.resume(out)
    assert list(result.sites.index) == ["general", "st-marys"]
    assert list(result.rounds.index) == [0, 1, 2]
    assert math.isinf(float(result.epsilon))
    assert "ε = ∞" in str(result)
    whole = cl.simulate(study, out=tmp_path / "unbroken")
    weights = [
        (run.folder / "adapter" / "adapter_model.safetensors").read_bytes()
        for run in (result, whole)
    ]
    assert weights[0] == weights[1]
    with pytest.raises(cl.CloisterError, match="exists already and is not overwritten"):
        cl.simulate(study, out=out)


@pytest.mark.nightly
def test_rows_in_memory_run_on_ray_and_give_the_local_engine_s_adapter(
    base: str, tmp_path: Path
) -> None:
    study = cl.Study(
        model=base,
        data={"st-marys": frame_of(60), "general": frame_of(50)},
        test=frame_of(18),
        privacy=cl.Privacy(enabled=False),
        rounds=1,
    )
    weights = []
    for engine in ("local", "ray"):
        result = cl.simulate(study, out=tmp_path / engine, engine=engine)  # type: ignore[arg-type]
        assert list(result.sites.index) == ["general", "st-marys"]
        weights.append(load_file(result.folder / "adapter" / "adapter_model.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    # Threads differ between the engines, and with them the order of float32 sums.
    assert max(float(abs(weights[0][n] - weights[1][n]).max()) for n in weights[0]) < 1e-6


def test_what_is_no_study_or_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(cl.CloisterError, match=r"study: str given.*from_toml\(path\)"):
        cl.simulate("study.toml")  # type: ignore[arg-type]
    with pytest.raises(cl.CloisterError, match="engine: 'spark' given; local or ray is needed"):
        cl.simulate(cl.Study(), engine="spark")  # type: ignore[arg-type]
    with pytest.raises(cl.CloisterError, match="engine: 'spark' given"):
        cl.resume(tmp_path, engine="spark")  # type: ignore[arg-type]
    with pytest.raises(cl.CloisterError, match=r"ray_address: 'h:1' given .* uses no Ray"):
        cl.simulate(cl.Study(), ray_address="h:1")
    with pytest.raises(cl.CloisterError, match="ray_address: 6379 given; HOST:PORT of a Ray"):
        cl.resume(tmp_path, engine="ray", ray_address=6379)  # type: ignore[arg-type]
    with pytest.raises(cl.CloisterError, match="progress: 3 given; a function is needed"):
        cl.simulate(cl.Study(), progress=3)  # type: ignore[arg-type]
    with pytest.raises(cl.CloisterError, match="is not a run's folder"):
        cl.resume(tmp_path)


def test_a_run_that_fails_leaves_no_records_behind(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    study = cl.Study(model=str(tmp_path / "none"), data={"a": frame_of(9)}, test=frame_of(6))
    with pytest.raises(cl.CloisterError):
        cl.simulate(study)
    assert list(tmp_path.iterdir()) == []
