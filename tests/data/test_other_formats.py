"""TSV, compressed text, CoNLL, Arrow, and conversations in other data sets' forms, as records."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.data.records import ChatRecord, Message, TextRecord, TokenRecord
from cloister.data.tag_schemes import as_bio, scheme_of
from cloister.errors import DataError, MisfitError, RecipeError
from cloister.recipe import parse_recipe

ROWS = [{"text": "头痛，三天", "label": "01"}, {"text": "chest\tpain", "label": "NA"}]
EXPECTED = [TextRecord("头痛，三天", "01"), TextRecord("chest\tpain", "NA")]


def read(path: Path, kind: Any = "text") -> list[Any]:
    return load(str(path), "train", kind, DataConfig())


@pytest.mark.parametrize("name", ["t.tsv", "t.csv.gz", "t.jsonl.gz", "t.json.gz", "t.arrow"])
@pytest.mark.parametrize("stream", [False, True])
def test_every_format_gives_the_same_records(tmp_path: Path, name: str, stream: bool) -> None:
    path = tmp_path / name
    lines = "\n".join(json.dumps(row) for row in ROWS)
    match name:
        case "t.tsv":
            path.write_text('text\tlabel\n头痛，三天\t01\n"chest\tpain"\tNA\n', encoding="utf-8")
        case "t.csv.gz":
            content = "text,label\n头痛，三天,01\nchest\tpain,NA\n"
            path.write_bytes(gzip.compress(content.encode()))
        case "t.jsonl.gz":
            path.write_bytes(gzip.compress(lines.encode()))
        case "t.json.gz":
            path.write_bytes(gzip.compress(json.dumps(ROWS).encode()))
        case _:
            table = pa.Table.from_pylist(ROWS)
            new = pa.ipc.new_stream if stream else pa.ipc.new_file
            with new(str(path), table.schema) as writer:
                writer.write_table(table)
    assert read(path) == EXPECTED


def test_a_damaged_arrow_file_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "t.arrow"
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"t\.arrow: cannot be read"):
        read(path)
    path.write_bytes(b"no arrow at all")
    with pytest.raises(DataError, match=r"t\.arrow: cannot be read"):
        read(path)


@pytest.mark.parametrize("name", ["t.tsv", "t.csv.gz", "t.conll", "t.arrow"])
def test_a_private_file_of_any_format_is_never_its_own_test_set(name: str) -> None:
    assert DataConfig(train=name).test_source is None
    with pytest.raises(RecipeError, match="give a public test set"):
        parse_recipe("", [f"data.train={name}"])


# --- entities -------------------------------------------------------------------------------

BIO = ("B-X", "I-X", "B-X", "O", "B-Y", "B-X", "I-X", "I-X")


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("BIO (IOB2)", BIO),
        ("IOB1", ("I-X", "I-X", "B-X", "O", "I-Y", "I-X", "I-X", "I-X")),
        ("BIOES", ("B-X", "E-X", "S-X", "O", "S-Y", "B-X", "I-X", "E-X")),
        ("BILOU", ("B-X", "L-X", "U-X", "O", "U-Y", "B-X", "I-X", "L-X")),
        ("BMES", ("B-X", "E-X", "S-X", "O", "S-Y", "B-X", "M-X", "E-X")),
    ],
)
def test_every_scheme_says_the_same_entities(
    tmp_path: Path, scheme: str, tags: tuple[str, ...]
) -> None:
    assert as_bio(tags) == BIO
    letters = {tag[0] for tag in tags} - {"O"}
    # The letters of IOB1 with two entities side by side are those of IOB2: a sentence cannot tell.
    assert scheme_of(letters) == (scheme if scheme != "IOB1" else "BIO (IOB2)")
    words = [f"字{i}" for i in range(len(tags))]
    path = tmp_path / "ner.conll"
    lines = "".join(f"{word} NN {tag}\n" for word, tag in zip(words, tags, strict=True))
    path.write_text(f"# id = 1\n-DOCSTART- -X- O\n\n{lines}\n\n# NN O\n", encoding="utf-8")
    assert read(path, "tokens") == [TokenRecord(tuple(words), BIO), TokenRecord(("#",), ("O",))]
    if scheme not in ("IOB1",):
        path = tmp_path / "ner.jsonl"
        path.write_text(json.dumps({"tokens": words, "tags": tags}))
        assert read(path, "tokens") == [TokenRecord(tuple(words), BIO)]


ENTITIES = st.lists(st.tuples(st.sampled_from("XYO"), st.integers(1, 4)), min_size=1)


@given(entities=ENTITIES)
def test_bioes_and_bilou_lose_nothing(entities: list[tuple[str, int]]) -> None:
    bio, bioes, bilou = list[str](), list[str](), list[str]()
    for kind, size in entities:
        if kind == "O":
            for scheme in (bio, bioes, bilou):
                scheme += ["O"] * size
            continue
        bio += [f"B-{kind}"] + [f"I-{kind}"] * (size - 1)
        for scheme, (one, end) in ((bioes, "SE"), (bilou, "UL")):
            letters = one if size == 1 else "B" + "I" * (size - 2) + end
            scheme += [f"{letter}-{kind}" for letter in letters]
    assert as_bio(bioes) == as_bio(bilou) == as_bio(bio) == tuple(bio)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a O\nb\n", "line 2: 1 columns, but 2"),
        ("a O\nb x O\n", "line 2: 3 columns, but 2"),
        ("a\n", "line 1: 1 columns"),
        ("a O\nb Q-X\n", "line 2: tag 'Q-X' is of no known scheme"),
        ("a O\nb\0 O\n", "line 2: has a NUL byte"),
    ],
)
def test_a_line_that_is_no_word_with_its_tag_is_named(
    tmp_path: Path, lines: str, message: str
) -> None:
    path = tmp_path / "ner.conll"
    path.write_text(lines)
    with pytest.raises(DataError, match=message):
        read(path, "tokens")


# --- conversations --------------------------------------------------------------------------

ASK, REPLY = Message("user", "发烧怎么办？"), Message("assistant", "多喝水。")


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        (
            {
                "conversations": [
                    {"from": "human", "value": ASK.content},
                    {"from": "gpt", "value": REPLY.content},
                ]
            },
            (ASK, REPLY),
        ),
        ({"prompt": ASK.content, "completion": REPLY.content}, (ASK, REPLY)),
        (
            {
                "prompt": [{"role": "user", "content": ASK.content}],
                "completion": [{"role": "assistant", "content": REPLY.content}],
            },
            (ASK, REPLY),
        ),
        ({"instruction": ASK.content, "input": "", "output": REPLY.content}, (ASK, REPLY)),
        (
            {"instruction": "翻译", "input": "water", "output": "水", "system": "医生"},
            (
                Message("system", "医生"),
                Message("user", "翻译\n\nwater"),
                Message("assistant", "水"),
            ),
        ),
        (
            {"instruction": "b", "output": "B", "history": [["a", "A"]]},
            (
                Message("user", "a"),
                Message("assistant", "A"),
                Message("user", "b"),
                Message("assistant", "B"),
            ),
        ),
    ],
)
def test_a_conversation_in_another_form_is_read(
    tmp_path: Path, row: dict[str, Any], turns: tuple[Message, ...]
) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps(row))
    assert read(path, "messages") == [ChatRecord(turns)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"conversations": [{"from": "bing", "value": "x"}]}, "turn 1 needs a role"),
        ({"conversations": [{"from": "human", "value": "x"}]}, "no turn of the assistant"),
        ({"prompt": "x", "completion": 5}, "completion must be a list of turns"),
        ({"prompt": "x", "completion": " "}, "no turn of the assistant"),
        ({"instruction": "x", "output": 5}, "output is an integer; text is needed"),
        ({"instruction": "x", "output": "y", "history": "z"}, "history is text"),
        ({"instruction": "x", "output": "y", "history": [["z"]]}, "history holds a value"),
        ({"prompt": "x"}, "no column 'messages'"),
    ],
)
def test_a_conversation_that_cannot_be_used_is_named(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(MisfitError, match=message):
        read(path, "messages")
