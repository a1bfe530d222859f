"""Private records are recognized without labels and replies, with any white space."""

import json
from pathlib import Path

import pytest

from cloister.data.records import ChatRecord, Message, TextRecord
from cloister.errors import RefusedError
from cloister.recipe import parse_recipe, read_run_recipe
from cloister.recipe.private_file import refuse_private_file, refuse_private_texts


def test_a_chat_is_known_without_its_last_reply(tmp_path: Path) -> None:
    train = tmp_path / "train.jsonl"
    turns = [("user", "I have a fever"), ("assistant", "rest"), ("user", "and a cough")]
    rows = [[*turns, ("assistant", "drink")], [("user", "chest pain"), ("assistant", "wait")]]
    train.write_text(
        "".join(
            json.dumps({"messages": [{"role": r, "content": c} for r, c in row], "site": "a"})
            + "\n"
            for row in rows
        )
    )
    recipe = parse_recipe(
        "", [f"data.train={train}", f"data.test={tmp_path}/t.jsonl", "task.kind=causal-lm"]
    )
    asked = tuple(Message(*turn) for turn in turns)
    known = [
        ChatRecord(asked),
        ChatRecord((*asked, Message("assistant", "another"))),
        ChatRecord((), text=" chest\n pain "),
        ChatRecord((Message("user", "chest  pain"),)),
    ]
    for record in known:
        with pytest.raises(RefusedError, match="--public: these records"):
            refuse_private_texts(recipe, [record], "--public")
    refuse_private_texts(recipe, [ChatRecord(asked[:1]), ChatRecord((), text="pain")], "--public")


def test_a_text_is_known_with_another_label_and_form(tmp_path: Path) -> None:
    train = tmp_path / "train.jsonl"
    train.write_text(json.dumps({"text": "caf\u00e9 au lait", "label": "x", "site": "a"}) + "\n")
    recipe = parse_recipe("", [f"data.train={train}", f"data.test={tmp_path}/t.jsonl"])
    for text in ("café au lait", "cafe\u0301 au  lait\r\n"):
        with pytest.raises(RefusedError):
            refuse_private_texts(recipe, [TextRecord(text, "y")], "--test")
    refuse_private_texts(recipe, [TextRecord("café", "x")], "--test")


def test_a_relative_path_is_found_from_wherever_the_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run was started in a folder above its own, and is shipped from another one."""
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    (run := project / "runs" / "a").mkdir(parents=True)
    elsewhere.mkdir()
    train = project / "train.jsonl"
    train.write_text(json.dumps({"text": "chest pain", "label": "x", "site": "a"}) + "\n")
    (copy := tmp_path / "copy.jsonl").write_bytes(train.read_bytes())
    (other := tmp_path / "other.jsonl").write_text("{}\n")
    own = parse_recipe("", ["data.train=train.jsonl", "data.test=test.jsonl"])
    (run / "recipe.toml").write_text(own.to_toml())
    monkeypatch.chdir(elsewhere)
    recipe = read_run_recipe(Path("../project/runs/a/recipe.toml"))
    assert recipe.digest() == own.digest()
    for place in (train, copy):
        with pytest.raises(RefusedError, match=r"data\.train, train\.jsonl"):
            refuse_private_file(recipe, place, "--test")
    refuse_private_file(recipe, other, "--test")
    with pytest.raises(RefusedError):
        refuse_private_texts(recipe, [TextRecord("chest pain", "y")], "--test")
    # A file of that name in the present folder does not hide the study's.
    (elsewhere / "train.jsonl").write_text("{}\n")
    with pytest.raises(RefusedError):
        refuse_private_file(recipe, train, "--test")
