"""`cloister new`: a recipe that runs once its public test file is named."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cloister.cli.main import run
from cloister.recipe import read_recipe, warnings
from cloister.recipe.commented_recipe import declared, new_recipe
from cloister.recipe.head_defaults import head_rate, mean_noise
from cloister.simulation.early import refuse_early
from cloister.tasks.registry import BUILT_IN
from cloister.toml_text import parse_toml
from tests.support.models import tiny_bert
from tests.support.studies import write_notes


def test_a_recipe_for_a_file_runs_with_its_test_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = write_notes(tmp_path / "my notes.jsonl", 80)
    test = write_notes(tmp_path / "test.jsonl", 30, seed=1)
    base, recipe = tmp_path / "base", tmp_path / "study.toml"
    tiny_bert(base)
    assert run(["new", "--data", str(train), "--out", str(recipe)]) == 0
    assert "cloister simulate" in capsys.readouterr().out
    given = ["--set", f"data.test='{test}'", "--set", f"model.base='{base}'"]
    given += ["--set", "task.max_length=16"]  # the tiny base has 64 positions
    few = ["--set", "federation.num_rounds=1", "--out", str(tmp_path / "run"), "--json"]
    assert run(["simulate", str(recipe)]) == 2
    assert "give a public test set" in capsys.readouterr().err
    assert run(["simulate", str(recipe), *given, *few]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [site["name"] for site in result["sites"]] == ["east", "west"]
    assert result["unit"] == "person"


def test_a_guess_is_told_and_a_test_file_completes_the_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "feedback.csv", tmp_path / "study.toml"
    verdicts = ("good", "bad", "neutral")
    rows = [f"the parcel came late {n},{verdicts[n % 3]},{'ab'[n % 2]}" for n in range(30)]
    data.write_text("\n".join(["Comment,Verdict,Channel", *rows]) + "\n", encoding="utf-8")
    test = tmp_path / "test.csv"
    asked = ["new", "--data", str(data), "--test", str(test), "--out", str(out)]
    assert run(asked) == 2
    assert "test.csv: no such file; give a file of public records" in capsys.readouterr().err
    test.write_text("Comment,verdict\nthe parcel came,good\n")
    assert run(asked) == 2
    assert "test.csv lacks Verdict (label), a column of --data" in capsys.readouterr().err
    assert not out.exists()
    test.write_text("Comment,Verdict\nthe parcel came,good\n")
    assert run(asked) == 0
    told = capsys.readouterr().out
    assert "guessed: text = Comment, label = Verdict" in told
    assert "columns: Comment, Verdict, Channel" in told
    assert f"written; now: cloister simulate {out}" in told
    recipe = read_recipe(out)
    assert (recipe.data.train, recipe.data.test) == (str(data), str(test))
    assert (recipe.data.text, recipe.data.label) == ("Comment", "Verdict")


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "study.toml"
    out.write_text("mine")
    assert run(["new", "causal-lm", "--out", str(out)]) == 2
    assert "not overwritten" in capsys.readouterr().err
    assert out.read_text() == "mine"


@pytest.mark.parametrize("task", list(BUILT_IN))
def test_a_recipe_without_a_file_is_valid_and_asks_for_one(tmp_path: Path, task: str) -> None:
    out = tmp_path / "study.toml"
    assert run(["new", task, "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8") == new_recipe(task, None, None)  # type: ignore[arg-type]
    files = ["data.train='a.jsonl'", "data.test='b.jsonl'"]
    if task == "retrieval":
        files.append("task.passages={ a = 'rest', b = 'see a doctor' }")
    recipe = read_recipe(out, files)
    assert recipe.task.kind == task
    assert warnings(recipe) == []
    assert "NEEDED" in out.read_text(encoding="utf-8")
    assert read_recipe(out).has_stand_in


def test_a_new_recipe_leaves_rate_and_clip_bound_to_the_rules_that_there_are(
    tmp_path: Path,
) -> None:
    files = ["data.train='a.jsonl'", "data.test='b.jsonl'"]
    texts, words, talks = (tmp_path / f"{name}.toml" for name in ("texts", "words", "talks"))
    assert run(["new", "sequence-classification", "--out", str(texts)]) == 0
    assert run(["new", "token-classification", "--out", str(words)]) == 0
    assert run(["new", "causal-lm", "--out", str(talks)]) == 0

    def of(path: Path, *changes: str) -> tuple[float, float]:
        recipe = read_recipe(path, [*files, *changes])
        return recipe.training.learning_rate, recipe.privacy.max_grad_norm

    assert of(texts) == (1.0, 8.0)  # of adapters, as before
    assert of(words) == (24.0, 1.0)
    assert of(talks) == (1.0, 1.0)  # no rule: stated
    other = ["lora.train=none", "model.base=intfloat/multilingual-e5-small"]
    head = read_recipe(texts, [*files, *other])
    assert head.training.learning_rate == head_rate(head, mean_noise(head)) > 1.0
    assert (head.privacy.max_grad_norm, head.model.center) == (1.0, "english")
    for path, is_stated in ((texts, False), (words, False), (talks, True)):
        stated: dict[str, Any] = parse_toml(path.read_text(encoding="utf-8"))
        assert ("learning_rate" in stated["training"]) == is_stated
        assert ("max_grad_norm" in stated["privacy"]) == is_stated


def test_words_and_conversations_give_recipes_that_pass_the_first_checks(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    files = {
        "words": [{"words": ["no", "flu"], "ner": ["O", "B-Disease"]}] * 60,
        "talks": [{"talk": turns}] * 60,
    }
    for name, rows in files.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (tmp_path / f"{name}-test.jsonl").write_text(path.read_text())
        assert run(["new", "--data", str(path), "--out", str(tmp_path / f"{name}.toml")]) == 0
        test = f"data.test='{tmp_path / f'{name}-test.jsonl'}'"
        recipe = read_recipe(tmp_path / f"{name}.toml", [test])
        refuse_early(recipe)
        assert recipe.data.public_records == 10  # 60 rows over 4 sites, one digit of it


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "a task or --data is needed"),
        (["--data", "none.csv"], "none.csv: no such file"),
        (["--data", "numbers.csv"], "fit no task"),
        (["token-classification", "--data", "numbers.csv"], "fit no task token-classification"),
        (["--data", "numbers.csv", "--out", "none/a.toml"], "the folder none does not exist"),
        (["--data", "empty.csv"], "empty.csv: empty; give a file with at least one record"),
        (
            ["--data", "wards.csv"],
            "not UTF-8; save the file as UTF-8, or rewrite it with `cloister",
        ),
    ],
)
def test_what_cannot_be_guessed_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numbers.csv").write_text("a\n1\n2\n")
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "wards.csv").write_text("主诉;科室\n腰疼;骨科\n", encoding="gb18030")
    assert run(["new", *arguments]) in (2, 3)
    assert told in capsys.readouterr().err
    assert list(tmp_path.glob("*.toml")) == []


def test_the_declared_number_shows_one_digit_of_the_file_s() -> None:
    assert declared(None) == 1200


@pytest.mark.parametrize(
    ("task", "needed"),
    [
        ("retrieval", ", a public test file and the public passages (task.passages"),
        ("recommendation", ", a public test file and the public items (task.items"),
        ("scoring", " and a public test file in it"),
    ],
)
def test_the_closing_line_names_every_file_that_is_still_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, needed: str
) -> None:
    assert run(["new", task, "--out", str(tmp_path / "study.toml")]) == 0
    assert f"name the training file{needed}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("train", "public", "scale", "step"),
    [
        (range(1, 6), [3], (1, 5), 1),
        (range(5), [3], (0, 5), 1),
        ([0, 0.37, 0.9], [0.5], (0, 1), None),
        ([0, 2.5, 6], [3], (0, 6), 0.5),
        ([2, 37, 64], [8], (0, 100), 1),
        ([2, 6], [17], (0, 20), 1),  # the public test file has higher scores
        ([-0.4, 0.8], [0], (-1, 1), None),
        ([3, 4200], [7], (0, 10_000), None),  # more grades than a scale may have
        ([-250, 90], [7], (-1000, 1000), None),
    ],
)
def test_a_scale_of_scores_is_a_usual_one_that_has_the_file_s(
    tmp_path: Path,
    train: list[float],
    public: list[float],
    scale: tuple[float, float],
    step: float | None,
) -> None:
    files = {"train": train, "test": public}
    for name, scores in files.items():
        rows = [json.dumps({"essay": f"an answer {n}", "mark": x}) for n, x in enumerate(scores)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    out = tmp_path / "study.toml"
    given = ["--data", str(tmp_path / "train.jsonl"), "--test", str(tmp_path / "test.jsonl")]
    assert run(["new", "scoring", *given, "--out", str(out)]) == 0
    task = parse_toml(out.read_text())["task"]
    assert isinstance(task, dict)
    assert (tuple(task["score_range"]), task.get("score_step")) == (scale, step)
    assert "A usual one that fits the file; state your own" in out.read_text()


def test_without_a_file_the_scale_is_that_of_the_built_in_records(tmp_path: Path) -> None:
    out = tmp_path / "study.toml"
    assert run(["new", "scoring", "--out", str(out)]) == 0
    assert "score_range = [0, 6] " in out.read_text()
    assert "That of the built-in records" in out.read_text()


def test_a_column_of_dates_is_no_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"text": ["fever", "rash"], "label": [date(2024, 1, 1), date(2024, 1, 2)]}
    pq.write_table(pa.table(rows), tmp_path / "dated.parquet")
    out = ["--out", str(tmp_path / "study.toml")]
    assert run(["new", "--data", str(tmp_path / "dated.parquet"), *out]) == 2
    assert "a label (texts or integers, no dates)" in capsys.readouterr().err
