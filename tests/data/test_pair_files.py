"""Commands on files of pairs look at both texts."""

import json
from pathlib import Path

import pytest

from cloister.cli.main import run

ROWS = [
    ("Ｆever  since Monday", "The patient has a fever.", "entailed"),
    ("Call 13812345678 at home", "Write to anna@example.com", "open"),
    ("Ｆever  since Monday", "There is <b>no</b> fever.", "contradicted"),
] * 4


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    lines = [
        {"premise": one, "hypothesis": two, "verdict": label, "case": f"p{number}"}
        for number, (one, two, label) in enumerate(ROWS)
    ]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return path


def test_a_check_compares_pairs_and_not_first_texts(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "check", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "pairs"
    assert found["roles"]["text"] == "premise"
    assert found["roles"]["text_b"] == "hypothesis"
    assert found["roles"]["label"] == "verdict"
    given = ["--text", "hypothesis", "--text-b", "premise", "--label", "verdict"]
    assert run(["data", "check", str(file), *given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["roles"]["text"] == "hypothesis"


def test_cleaning_writes_both_texts_anew(file: Path, tmp_path: Path) -> None:
    with file.open("a") as rows:
        rows.write('{"premise": "alone", "hypothesis": null, "verdict": "open"}\n')
    out = tmp_path / "clean.csv"
    assert run(["data", "clean", str(file), "--out", str(out)]) == 0
    lines = out.read_text().splitlines()
    assert len(lines) == 1 + len(ROWS)  # half a pair is none
    assert lines[0].startswith("text,text_b,label")
    assert lines[3].startswith("Fever since Monday,There is no fever.,contradicted")


def test_scrubbing_looks_through_both_texts(file: Path, tmp_path: Path) -> None:
    clean, out = tmp_path / "clean.jsonl", tmp_path / "scrubbed.jsonl"
    assert run(["data", "clean", str(file), "--out", str(clean)]) == 0
    assert run(["data", "scrub", str(clean), "--out", str(out)]) == 0
    text = out.read_text()
    assert "13812345678" not in text
    assert "anna@example.com" not in text


def test_a_recipe_is_begun_with_both_columns(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cloister.recipe import read_recipe

    out = tmp_path / "study.toml"
    public = tmp_path / "public.jsonl"
    public.write_bytes(file.read_bytes())
    test = ["--test", str(public)]
    assert run(["new", "--data", str(file), *test, "--out", str(out)]) == 0
    recipe = read_recipe(out)
    assert recipe.task.kind == "text-pairs"
    assert (recipe.data.text, recipe.data.text_b) == ("premise", "hypothesis")
    capsys.readouterr()
    other = tmp_path / "other.toml"
    assert (
        run(["new", "sequence-classification", "--data", str(file), *test, "--out", str(other)])
        == 0
    )
    assert read_recipe(other).data.text_b is None


def test_what_a_pair_cannot_have_is_refused_with_the_reason() -> None:
    from cloister.errors import RecipeError
    from cloister.recipe import parse_recipe

    for field, told in (
        ("model.center=english", "pairs have another mean"),
        ("lora.head=label-words", "it is for sequence-classification"),
        ("task.prompt='{text} ?'", "only sequence-classification has it"),
    ):
        with pytest.raises(RecipeError, match=told):
            parse_recipe("", ["task.kind=text-pairs", field])
