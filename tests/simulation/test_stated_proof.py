"""A simulation keeps its proof, says so, and states it in the run's folder."""

import json
from pathlib import Path

import pytest

from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import Events, open_coordinator
from cloister.training import kept_proofs, proof
from tests.support.studies import small_recipe


def test_the_next_run_takes_the_proof_and_its_folder_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOISTER_KEPT_PROOFS", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe = small_recipe(tmp_path / "study")
    stated, notes = [], []
    for name in ("first", "second"):
        monkeypatch.setattr(kept_proofs, "_found", {})  # as in a new process
        monkeypatch.setattr(proof, "_proofs", {})
        run = RunDirectory.create(tmp_path / name, recipe)
        told: list[str] = []
        open_coordinator(recipe, run, Events(on_base=told.append))
        notes += [note for note in told if "per-record gradients" in note]
        stated += json.loads((run.path / "proof.json").read_text())
    made, kept = stated
    assert (made.pop("kept"), kept.pop("kept")) == (False, True)
    assert made == kept
    assert notes == [
        "per-record gradients: proved on this machine",
        f"per-record gradients: proved on {made['proved']} UTC on this machine, kept",
    ]
    assert (tmp_path / "cache/cloister/proofs" / f"{made['key']}.json").is_file()
    again = RunDirectory.create(tmp_path / "second", recipe)  # nothing was charged in it
    assert again.path.name == "second"
