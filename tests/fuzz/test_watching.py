"""Fuzzes what a watch reads: lines of a stream, a watch file, events, and a state."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloister.errors import DataError
from cloister.watching.history_events import read_events
from cloister.watching.parsing import RowError, parse_line
from cloister.watching.row import METHODS
from cloister.watching.watch_file import EXAMPLE, watch_file_of
from tests.support.fuzzing import as_json, fuzz, hostile_bytes, must_read, reshaped
from tests.support.watched import form

ROWS: list[Any] = [
    {"label": "negative", "probabilities": {"negative": 0.9, "neutral": 0.1}, "at": 5, "text": "x"},
    {"labels": ["a"], "probabilities": {"a": 0.9}, "is_cut": False, "at": "2026-01-05"},
    {"score": 2.5, "grade": 3.0, "at": 5, "embedding": [1.0, 2.0], "company": "Acme"},
    {"passages": [{"id": "a", "text": "t", "similarity": 0.5}], "at": 5},
    {"items": [{"item": "a", "score": 2.0}], "at": 5},
    {"entities": [{"type": "person", "text": "Ann", "probability": 0.5}], "tags": ["O"], "at": 5},
    {"reply": "no", "at": 5},
    {"choices": [{"message": {"content": "no"}}], "at": 5},
    {"predictions": [{"label": "negative"}, {"label": "neutral"}], "at": 5},
]
KINDS = sorted(METHODS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watching")


def read(line: bytes, kind: str) -> object:
    try:
        return parse_line(line, form(kind))
    except RowError as error:
        raise DataError(error.reason) from error


@fuzz
@given(
    st.sampled_from(ROWS).flatmap(
        lambda row: reshaped(row).map(as_json) | hostile_bytes(as_json(row))
    ),
    st.sampled_from(KINDS),
)
@example(b"[" * 100_000, "scoring")
@example(b'{"reply": "' + b"x" * 3_000_000 + b'"}', "causal-lm")
@example(b'{"at": "9999-12-31T23:59:59-14:00", "score": 1}', "scoring")
@example(b'{"at": 1' + b"0" * 4000 + b', "score": 1}', "scoring")
def test_a_line_of_a_stream(line: bytes, kind: str) -> None:
    must_read(lambda: read(line, kind), len(line))


@fuzz
@given(hostile_bytes(EXAMPLE.encode()))
@example(EXAMPLE.replace('"news"', '"\\u001b[2J"').encode())
@example(EXAMPLE.replace("http://127.0.0.1:9000/alerts", "http://[").encode())
@example(EXAMPLE.replace("127.0.0.1:9470", "[::1").encode())
@example(b"[topics]\n" + b"".join(b'[topics.t%d]\nanswers = ["x"]\n' % n for n in range(400)))
def test_a_watch_file(folder: Path, content: bytes) -> None:
    must_read(lambda: watch_file_of(folder / "watch.toml", content), len(content))


EVENT = {"kind": "surge", "key": "acme", "start": "2026-01-05T00:00:00Z", "end": 1.8e9}


@fuzz
@given(reshaped(EVENT).map(as_json) | hostile_bytes(as_json(EVENT)))
def test_events(folder: Path, content: bytes) -> None:
    path = folder / "events.jsonl"
    path.write_bytes(content)
    must_read(lambda: read_events(path), len(content))


def test_what_the_fuzzers_begin_with_is_read() -> None:
    kinds = {
        kind
        for kind in KINDS
        for row in ROWS
        if must_read(lambda row=row, kind=kind: read(json.dumps(row).encode(), kind))  # type: ignore[misc]
    }
    assert kinds == set(KINDS)
