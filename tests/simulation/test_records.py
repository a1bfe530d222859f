"""A simulation looks at all records before it trains: they are all the user's own."""

import json
from pathlib import Path

import pytest

from cloister.errors import DataError
from cloister.recipe import Recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import Events, open_coordinator
from tests.support.models import tiny_llama
from tests.support.studies import small_recipe


def chat(question: str, answer: str = "rest") -> str:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns, "site": "east"}) + "\n"


def chat_recipe(folder: Path, train: list[str], base: Path | None = None) -> Recipe:
    folder.mkdir(exist_ok=True)
    (folder / "chats.jsonl").write_text("".join(train))
    (folder / "public.jsonl").write_text(chat("fever"))
    return small_recipe(
        folder,
        "task.kind=causal-lm",
        f"data.train={folder / 'chats.jsonl'}",
        "data.sites=1",
        f"data.test={folder / 'public.jsonl'}",
        base=base or tiny_llama(folder / "llama"),
    )


def opened(recipe: Recipe, out: Path) -> list[str]:
    told: list[str] = []
    open_coordinator(recipe, RunDirectory.create(out, recipe), Events(on_warning=told.append))
    return told


def test_conversations_cut_before_their_replies_are_warned_of_before_training(
    tmp_path: Path,
) -> None:
    recipe = chat_recipe(tmp_path, [chat("chest pain " * 40)] * 7 + [chat("fever")] * 3)
    told = opened(recipe, tmp_path / "run")
    assert len(told) == 1
    assert told[0].startswith("7 of 10 records have no effect: ")
    assert "task.max_length = 16" in told[0]


def test_a_record_that_would_be_left_out_is_named_before_training(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "llama")
    (base / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if 'rash' in m.content %}{{ raise_exception('no rash') }}"
        "{% endif %}{{ m.content }} {% endfor %}"
    )
    recipe = chat_recipe(tmp_path, [chat("fever"), chat("a rash"), chat("cough")], base)
    with pytest.raises(DataError, match=r"chats.jsonl, record 2: .*cannot be rendered \(no rash\)"):
        opened(recipe, tmp_path / "run")


def test_a_study_without_such_records_is_not_warned_of(tmp_path: Path) -> None:
    assert opened(small_recipe(tmp_path / "study"), tmp_path / "run") == []
