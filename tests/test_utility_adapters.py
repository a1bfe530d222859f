"""Runs of simulations/utility/adapters.py have the rates that they say; the page has its rows."""

import json
from pathlib import Path
from typing import Any

import pytest


def test_a_study_s_runs_differ_in_the_rate_alone(
    utility: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    adapters, ran = utility("adapters"), []

    def outcomes(recipe: Any, metric: str) -> dict[str, dict[str, float]]:
        ran.append(recipe)
        assert recipe.data.train.endswith("train.jsonl")
        return {"test": {metric: 0.5 + 0.1 * (recipe.lora.train == "b"), "untrained": 0.5}}

    monkeypatch.setattr(adapters, "outcomes", outcomes)
    (tmp_path / "rt_polarity").mkdir()
    rows = [{"text": f"text {at}", "label": ("no", "yes")[at % 2]} for at in range(400)]
    for part in ("train", "test"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "rt_polarity" / f"{part}.jsonl").write_text(text, encoding="utf-8")
    words = ["--data", str(tmp_path), "--study", "movie reviews"]
    words += ["--results", str(tmp_path / "rows.jsonl")]
    adapters.main(words)
    assert len(ran) == 10
    assert {recipe.data.public_records for recipe in ran} == {80}
    at_eight = [recipe for recipe in ran if recipe.privacy.epsilon == 8.0]
    default, alone, before, third, triple = at_eight
    assert (default.lora.train, alone.lora.train) == ("b", "none")
    assert (before.training.learning_rate, before.privacy.max_grad_norm) == (1.0, 8.0)
    rate = default.training.learning_rate
    assert third.training.learning_rate == pytest.approx(rate / 3)
    assert triple.training.learning_rate == pytest.approx(rate * 3)
    assert {recipe.privacy.max_grad_norm for recipe in (default, third, triple)} == {1.0}
    adapters.main(words)
    assert len(ran) == 10  # nothing is left to run
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text("utf-8").splitlines()]
    assert (
        "| rt_polarity | 8 | default | 0.500 | 0.600 | 0.600 | 0.600 | 0.600 | 0.500 |"
        in adapters.table(rows)
    )


def test_speeches_become_conversations_for_the_named_base(utility: Any, tmp_path: Path) -> None:
    adapters = utility("adapters")
    (tmp_path / "shakespeare_roles").mkdir()
    for part in ("train", "test"):
        lines = [json.dumps({"text": f"Speak, {at}.", "user": "A"}) + "\n" for at in range(400)]
        file = tmp_path / "shakespeare_roles" / f"{part}.jsonl"
        file.write_text("".join(lines), encoding="utf-8")
    study, folder = adapters.STUDIES["speeches"], tmp_path / "made"
    folder.mkdir()
    files = adapters.stated(study, tmp_path, tmp_path, folder)
    for method in adapters.methods(study):
        recipe = method.recipe(study, files, 0)
        assert recipe.task.kind == "causal-lm"
        assert recipe.model.base == str(tmp_path)
        assert recipe.training.expected_batch_size == 8
    first = json.loads((folder / "train.jsonl").read_text("utf-8").splitlines()[0])
    assert [turn["content"] for turn in first["messages"]] == ["Speak.", "Speak, 0."]


def test_the_raw_rows_in_the_project_print_as_the_page_s_tables(utility: Any) -> None:
    adapters, store_of = utility("adapters"), utility("grid_store")
    rows = [json.loads(line) for line in adapters.RESULTS.read_text("utf-8").splitlines()]
    page = (store_of.Path(__file__).parents[1] / "docs" / "utility.md").read_text("utf-8")
    for line in adapters.table(rows).splitlines():
        assert not line.startswith("| ") or line in page
