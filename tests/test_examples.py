"""The examples run as they are written, on a tiny base."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from cloister.data.records import TextRecord
from cloister.recipe import read_recipe
from cloister.testing import check_strategy, check_task
from tests.support.studies import small_assignments, small_recipe

EXAMPLES = Path(__file__).parents[1] / "examples"
# Lines that a reader must write, without imports, blank lines, docstrings and comments.
MOST_LINES = {"custom_strategy": 10, "custom_task": 40}


def lines(name: str) -> list[str]:
    text = (EXAMPLES / f"{name}.py").read_text()
    code = re.sub(r'""".*?"""', "", text, flags=re.DOTALL).splitlines()
    return [row for row in code if row.strip() and not re.match(r"\s*(#|import |from )", row)]


@pytest.mark.parametrize("name", MOST_LINES)
def test_an_example_is_short(name: str) -> None:
    assert len(lines(name)) <= MOST_LINES[name]


@pytest.mark.parametrize(
    ("name", "run", "says"),
    [
        ("custom_strategy", "cautious", 'name = "__main__:Cautious"'),
        ("custom_task", "multi-label", 'kind = "__main__:MultiLabel"'),
    ],
)
def test_an_example_runs_as_it_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bert: Path,
    name: str,
    run: str,
    says: str,
) -> None:
    script = str(EXAMPLES / f"{name}.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, *small_assignments(tmp_path / "study", bert)])
    runpy.run_path(script, run_name="__main__")
    assert "'loss': " in capsys.readouterr().out
    folder = tmp_path / "runs" / run
    assert says in (folder / "recipe.toml").read_text()
    assert (folder / "adapter" / "head.safetensors").stat().st_size > 0


def test_they_keep_the_contracts_and_run_by_import_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bert: Path
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import custom_strategy
    import custom_task

    check_strategy(custom_strategy.Cautious)
    records = [
        TextRecord("chest pain", "cardiology"),
        TextRecord("a swollen knee and an itchy rash", "orthopaedics|dermatology"),
        TextRecord("an itchy rash", "dermatology"),
    ]
    check_task(custom_task.MultiLabel, records)
    recipe = small_recipe(
        tmp_path / "study",
        "strategy.name=custom_strategy:Cautious",
        "task.kind=custom_task:MultiLabel",
        base=bert,
    )
    file = tmp_path / "recipe.toml"
    file.write_text(recipe.to_toml())
    assert read_recipe(file).digest() == recipe.digest()
