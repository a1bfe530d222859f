"""A layer is chosen on records that are public, and never on the study's own."""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

import cloister as cl
from cloister.cli.main import app
from cloister.data.records import TextRecord
from cloister.errors import DataError, RefusedError, UsageError
from cloister.models.config import LoraConfig, ModelConfig
from cloister.simulation.layer_choice import MUST_BE_PUBLIC, choose_layers
from cloister.tasks.config import TaskConfig
from cloister.training.layer_probe import _features
from cloister.training.workspace import open_workspace
from tests.support.architectures import tiny
from tests.support.studies import NOTES, small_assignments, small_recipe, write_notes

LABELS = ("a", "b")
TEXTS = [TextRecord(text, "a") for texts in NOTES.values() for text in texts]


def write_public(path: Path) -> Path:
    """Notes that no site of the small study holds."""
    rows = [json.loads(line) for line in write_notes(path, 60, seed=7).read_text().splitlines()]
    notes = [{"text": f"acute {row['text']}", "label": row["label"]} for row in rows]
    path.write_text("".join(json.dumps(note) + "\n" for note in notes))
    return path


@pytest.mark.parametrize("name", ["llama", "bert", "gpt2", "t5"])
def test_a_layer_s_vector_is_what_a_study_that_ends_there_reads(name: str, tmp_path: Path) -> None:
    """One pass gives all layers; each is the base's that was cut, norm and pooling included."""
    model = ModelConfig(base=str(tiny(tmp_path, name)))
    task = TaskConfig(max_length=16, prompt="patient {text} has")
    whole = open_workspace(model, LoraConfig(train="none"), task, LABELS, 0, frozen_cache_gib=0.1)
    found = _features(whole, TEXTS, 2048, lambda done, of: None)
    assert len(found) == 2
    for layers, rows in enumerate(found, 1):
        ended = ModelConfig(base=str(tmp_path), layers=layers, normalize=True)
        cut = open_workspace(ended, LoraConfig(train="none"), task, LABELS, 0)
        cut.network.head = torch.nn.Identity()
        with torch.no_grad():
            expected = cut.network.logits(cut.task.collate(cut.encode(TEXTS)))
        width = expected.shape[1] ** 0.5
        assert torch.allclose(
            torch.tensor(rows).float(), F.normalize(expected, dim=1) * width, atol=1e-4
        )


def test_the_table_says_what_was_read_and_that_it_must_be_public(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path / "study", 'task.prompt="patient {text}"')
    public = write_public(tmp_path / "public.jsonl")
    before = sorted(tmp_path.rglob("*"))
    table = choose_layers(recipe, str(public))
    assert [one.layers for one in table.found.scores] == [1, 2]
    assert table.best in (1, 2)
    assert table.found.records == 60
    assert all(0.5 < one.accuracy <= 1 for one in table.found.scores)
    assert table.found.scores[table.best - 1].accuracy > table.found.majority
    assert MUST_BE_PUBLIC in str(table)
    assert f"--set model.layers={table.best}" in str(table)
    assert "prompt 'patient {text}', pooled by mean" in str(table)
    assert table.warnings == ()
    assert sorted(tmp_path.rglob("*")) == before  # no ledger, no run
    shutil.copy(public, tmp_path / "study" / "test.jsonl")
    on_test = choose_layers(recipe, str(tmp_path / "study" / "test.jsonl"))
    assert "the study's test set" in on_test.warnings[0]


def test_private_records_are_refused_under_any_name(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path / "study")
    private = tmp_path / "study" / "train.jsonl"
    link, hard, copy = (tmp_path / name for name in ("link.jsonl", "hard.jsonl", "copy.jsonl"))
    link.symlink_to(private)
    os.link(private, hard)
    shutil.copy(private, copy)
    east = tmp_path / "east.jsonl"  # one site's own file, with a note that is nobody else's
    rows = [json.loads(line) for line in private.read_text().splitlines()]
    rows[0]["text"] = "cough of the east alone"
    private.write_text("".join(json.dumps(row) + "\n" for row in rows))
    east.write_text("".join(json.dumps(row) + "\n" for row in rows if row["site"] == "east"))
    shutil.copy(private, copy)
    mixed = tmp_path / "mixed.jsonl"  # the east's, and one that is nobody's
    mixed.write_text(east.read_text() + json.dumps(rows[0] | {"text": "nobody's"}) + "\n")
    for place in (private, link, hard, copy, east, mixed):
        with pytest.raises(RefusedError, match="the study's private records"):
            choose_layers(recipe, str(place))


def test_private_records_of_a_home_folder_are_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    small_recipe(tmp_path / "study")
    recipe = small_recipe(tmp_path / "study", "data.train='~/study/train.jsonl'")
    with pytest.raises(RefusedError, match="the study's private records"):
        choose_layers(recipe, str(tmp_path / "study" / "train.jsonl"))


def test_what_cannot_be_chosen_on_is_refused(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path / "study")
    with pytest.raises(UsageError, match="no such file"):
        choose_layers(recipe, str(tmp_path / "none.jsonl"))
    few = tmp_path / "few.jsonl"
    few.write_text('{"text": "a rash", "label": "x"}\n' * 4 + '{"text": "b", "label": "y"}\n' * 9)
    with pytest.raises(DataError, match="4 of 13 records read have the label 'x'"):
        choose_layers(recipe, str(few))
    chat = small_recipe(tmp_path / "study", "task.kind=causal-lm")
    with pytest.raises(UsageError, match="layers are chosen for sequence-classification"):
        choose_layers(chat, str(few))


def test_the_command_and_the_api_give_the_same_table(tmp_path: Path) -> None:
    sets = [part for one in small_assignments(tmp_path / "study") for part in ("--set", one)]
    public = write_public(tmp_path / "public.jsonl")
    done = CliRunner().invoke(app, ["plan", *sets, "--layers", str(public), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    rows = [json.loads(line) for line in public.read_text().splitlines()]
    study = cl.Study.of(small_recipe(tmp_path / "study"))
    table = study.layers(pd.DataFrame(rows))
    assert table.to_json() | {"source": told["source"]} == told
    assert study.layers(public).to_json() == told
