"""`new`, `data check` and `data clean` read files with several labels or scores."""

import json
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.recipe import read_recipe

ROWS = [
    ("Chest pain at rest since monday morning", "heart; chest ", "4"),
    ("An itchy rash on both of the arms", "", "2"),
    ("A swollen knee after a fall from a bicycle", "knee", "3"),
    ("Pain of the knee and of the chest, with fever", "knee;heart", "x"),
]
Texts = pytest.CaptureFixture[str]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    lines = ["text,departments,mark", *(f'"{t}",{labels},{m}' for t, labels, m in ROWS)]
    (tmp_path / "notes.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "notes.csv"


def test_check_counts_several_labels_and_texts_without_one(table: Path, capsys: Texts) -> None:
    options = ["--labels", "departments", "--label-separator", ";", "--json", "--no-near"]
    assert run(["data", "check", str(table), *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kind"] == "labels"
    assert report["labels"]["counts"] == {"heart": 2, "knee": 2, "chest": 1}
    assert report["labels"]["texts_without"] == 1
    assert run(["data", "check", str(table), *options[:-2], "--no-near"]) == 0
    assert "1 texts without one" in capsys.readouterr().out


def test_check_tells_the_ends_of_scores_and_rows_without_one(
    table: Path, capsys: Texts, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    options = ["--score", "mark", "--json", "--no-near", "--page", str(page)]
    assert run(["data", "check", str(table), *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kind"] == "score"
    assert report["scores"] == {
        "count": 3,
        "lowest": 2.0,
        "highest": 4.0,
        "mean": 3.0,
        "counts": {"2": 1, "3": 1, "4": 1},
    }
    (finding,) = [one for one in report["findings"] if one["code"] == "no-score"]
    assert finding["count"] == 1
    assert "<h2>Scores</h2>" in page.read_text()


def test_cleaned_labels_are_a_list_and_cleaned_scores_are_numbers(
    table: Path, tmp_path: Path, capsys: Texts
) -> None:
    out = tmp_path / "labels.jsonl"
    options = ["--labels", "departments", "--label-separator", ";"]
    assert run(["data", "clean", str(table), "--out", str(out), *options]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["labels"] for row in rows] == [["heart", "chest"], [], ["knee"], ["knee", "heart"]]
    scores = tmp_path / "scores.csv"
    assert run(["data", "clean", str(table), "--out", str(scores), "--score", "mark"]) == 0
    assert [line.split(",")[1] for line in scores.read_text().splitlines()[1:]] == ["4", "2", "3"]
    capsys.readouterr()
    assert run(["data", "clean", str(table), "--out", str(tmp_path / "x.csv"), *options]) == 2
    assert "labels are lists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "row", "columns"),
    [
        ("multi-label-classification", {"note": "a b", "topics": ["x"]}, ("note", "topics")),
        ("scoring", {"essay": "a b c", "domain1_score": 8}, ("essay", "domain1_score")),
    ],
)
def test_a_new_recipe_names_the_columns_that_it_guessed(
    kind: str, row: dict[str, object], columns: tuple[str, str], tmp_path: Path, capsys: Texts
) -> None:
    data, out = tmp_path / "data.jsonl", tmp_path / "study.toml"
    data.write_text(f"{json.dumps(row)}\n" * 20)
    assert run(["new", kind, "--data", str(data), "--test", str(data), "--out", str(out)]) == 0
    text = out.read_text().replace(f'test = "{data}"', 'test = "public.jsonl"')
    out.write_text(text)
    recipe = read_recipe(out)
    assert recipe.task.kind == kind
    named = recipe.data.score_column if kind == "scoring" else recipe.data.labels_column
    assert (recipe.data.text, named) == columns
    if kind != "scoring":  # a list of topics beside a text says it by itself
        alone = tmp_path / "alone.toml"
        assert run(["new", "--data", str(data), "--out", str(alone)]) == 0
        assert f'kind = "{kind}"' in alone.read_text()


@pytest.mark.parametrize("kind", ["multi-label-classification", "scoring"])
def test_a_plan_needs_no_file_but_says_which_records_stand_in(
    kind: str, tmp_path: Path, capsys: Texts
) -> None:
    path = tmp_path / "study.toml"
    path.write_text(f'[task]\nkind = "{kind}"\n')
    recipe = read_recipe(path)
    assert recipe.data.train.startswith("synthetic:")
    assert recipe.has_stand_in
    assert recipe.task.records in ("labels", "score")
