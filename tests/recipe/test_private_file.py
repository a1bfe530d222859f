"""Texts of a study's private records are found in a public file, whatever labels they have."""

import json
from pathlib import Path
from typing import Any

import pytest

from cloister.data.records import ChatRecord, Message, PairRecord, Record, TextRecord, TokenRecord
from cloister.errors import RefusedError
from cloister.recipe import parse_recipe
from cloister.recipe.private_file import refuse_private_texts


def chat(text: str) -> ChatRecord:
    return ChatRecord((Message("user", text), Message("assistant", "rest")))


def turns(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}, {"role": "assistant", "content": "rest"}]


# By task: a private row of a text, and a record of it as a public file has it.
KINDS: dict[str, Any] = {
    "sequence-classification": (
        lambda text: {"text": text, "label": "x"},
        lambda text: TextRecord(text, "other"),
    ),
    "text-pairs": (
        lambda text: {"text": text, "text_b": "no", "label": "x"},
        lambda text: PairRecord(text, "other", text_b="no"),
    ),
    "token-classification": (
        lambda text: {"tokens": text.split(), "tags": ["B-X"] * len(text.split())},
        lambda text: TokenRecord(tuple(text.split()), ("O",) * len(text.split())),
    ),
    "causal-lm": (lambda text: {"messages": turns(text)}, chat),
}


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_a_tenth_of_private_texts_is_refused(tmp_path: Path, kind: str) -> None:
    row, record = KINDS[kind]
    train = tmp_path / "train.jsonl"
    train.write_text(
        "".join(json.dumps({**row(f"private {n}"), "site": "east"}) + "\n" for n in range(20))
    )
    sets = [f"task.kind={kind}", f"data.train='{train}'", f"data.test='{tmp_path}/test.jsonl'"]
    recipe = parse_recipe("", sets)

    def public(private: int) -> list[Record]:
        texts = [f"{'private' if n < private else 'public'} {n}" for n in range(20)]
        return [record(text) for text in texts]

    refuse_private_texts(recipe, public(2), "--public")
    with pytest.raises(RefusedError, match="--public: these records are the study's private"):
        refuse_private_texts(recipe, public(3), "--public")
