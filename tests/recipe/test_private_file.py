"""Private records are recognized without labels and replies, with any white space."""

import json
from pathlib import Path

import pytest

from cloister.data.records import ChatRecord, Message, TextRecord
from cloister.errors import RefusedError
from cloister.recipe import parse_recipe
from cloister.recipe.private_file import refuse_private_texts


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
