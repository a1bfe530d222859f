"""The examples run as they are written, on a tiny base."""

import re
import runpy
from pathlib import Path

import pytest

import cloister as cl
from cloister.data.records import TextRecord
from cloister.recipe import read_recipe
from cloister.tasks.plugins import named
from cloister.testing import check_strategy, check_task
from tests.support.studies import small_recipe

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


@pytest.mark.parametrize("name", MOST_LINES)
def test_an_example_runs_as_it_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bert: Path,
    name: str,
) -> None:
    """On two hospitals' worth of short notes and a tiny base in place of the quickstart's."""
    small = small_recipe(tmp_path / "study", base=bert)
    data, training, lora = small.data, small.training, small.lora
    given = {"data": data.train, "test": data.test, "public_records": 40, "rounds": 2}
    usual = {"model": str(bert), "training": training, "lora": lora}
    dealt = cl.partition(data.train, sites=2)

    def on_small_data(**own: object) -> cl.Study:
        if isinstance(own.get("task"), type):
            kind, plugin = named(own["task"])  # type: ignore[arg-type]
            own["task"] = {"kind": kind, "plugin": plugin.table(), "max_length": 16}
        else:
            own["task"] = {"max_length": 16}
        return cl_study(**{**given, **usual, "data": dealt, **own})  # type: ignore[arg-type]

    cl_study = cl.Study
    monkeypatch.setattr(cl, "Study", on_small_data)
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert "'loss': " in capsys.readouterr().out


def test_a_study_takes_a_class_or_an_object_of_one_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import custom_strategy
    import custom_task

    study = cl.Study(
        strategy=custom_strategy.Cautious(share=0.5), task=custom_task.MultiLabel, name="own"
    )
    assert study.recipe.strategy.table()["share"] == 0.5  # type: ignore[union-attr]
    assert study.recipe.task.kind == "custom_task:MultiLabel"
    assert cl.Study.from_toml(study.to_toml()) == study
    again = cl.Study(strategy=study.recipe.strategy, task=study.recipe.task, name="own")
    assert again == study
    with pytest.raises(cl.CloisterError, match=r"derives from cloister\.Strategy"):
        cl.Study(strategy=object())


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
