"""Fuzzes recipes, as files and as sent, a site's file, a policy, keys, and members' folders."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloister.cli.keys import read_keys
from cloister.client.policy_file import EXAMPLE as POLICY
from cloister.client.policy_file import read_policy
from cloister.client.site_file import EXAMPLE, site_of
from cloister.deployment.coordinator.folder import ServerFolder
from cloister.recipe import Recipe, parse_document, read_recipe
from cloister.recipe.read import read_run_recipe
from cloister.recipe.sent import sent_document
from tests.support.fuzzing import (
    as_json,
    canonical_or_json,
    fuzz,
    hostile_bytes,
    must_read,
    odd,
    reshaped,
)

DOCUMENT = sent_document(Recipe())
OPEN = b"""
[study]
name = "x"
seed = 3
[data]
train = "a.jsonl"
test = "b.jsonl"
sites = 3
[task]
kind = "chat"
max_length = 12
[privacy]
epsilon = 2.5
delta = 1e-6
[lora]
r = 4
target_modules = ["query", "value"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes")


@fuzz
@given(
    st.one_of(
        hostile_bytes(DOCUMENT.encode()).map(lambda raw: raw.decode(errors="surrogateescape")),
        reshaped(json.loads(DOCUMENT)).map(lambda value: canonical_or_json(value).decode()),
        st.text(max_size=50),
    )
)
@example('{"format":' + "9" * 5000 + "}")
@example('{"\ud800":1}')
@example("[" * 100_000)
def test_a_study_as_sent(text: str) -> None:
    found = must_read(lambda: parse_document(text), len(text))
    if isinstance(found, Recipe):
        assert found.document() == text


@fuzz
@given(hostile_bytes(OPEN))
@example(b"a." * 100_000 + b"b=1")
@example(b"[[a]]\n" * 10_000)
@example(b'[study]\nname = "\\u202e\\u001b[2J"')
@example(b"[study]\nseed = 1e400")
def test_a_recipe_s_file(folder: Path, content: bytes) -> None:
    path = folder / "recipe.toml"
    path.write_bytes(content)
    must_read(lambda: read_recipe(path), len(content))
    must_read(lambda: read_run_recipe(path), len(content))


@fuzz
@given(
    st.lists(
        st.text(max_size=30)
        | st.sampled_from(
            [
                "study.seed=1",
                "a=b",
                "=",
                "study.=1",
                ".seed=1",
                "study.seed=[[[",
                "study.seed=\x1b",
                "study.name='\ud800'",
                "privacy.epsilon=inf",
                "lora.r=9e999",
                "x" * 10_000 + "=1",
            ]
        ),
        max_size=3,
    )
)
def test_assignments(assignments: list[str]) -> None:
    must_read(lambda: read_recipe(None, assignments), sum(map(len, assignments)))


@fuzz
@given(hostile_bytes(EXAMPLE.encode()))
@example(EXAMPLE.replace('"st-marys"', '"\\u001b[2J"').encode())
@example(EXAMPLE.replace("1200", "9" * 5000).encode())
@example(b"[[records]]\n" * 500)
@example(b"site = [[1]]\nrecords = " + b"[" * 7 + b"1" * 200 + b"]" * 7)
def test_a_site_s_file(folder: Path, content: bytes) -> None:
    must_read(lambda: site_of(folder / "site.toml", content), len(content))


@fuzz
@given(hostile_bytes(POLICY.encode()))
def test_a_policy(folder: Path, content: bytes) -> None:
    path = folder / "policy.toml"
    path.write_bytes(content)
    must_read(lambda: read_policy(path), len(content))


KEYS: Any = {"members": [{"site": "a", "ledger_key": "0" * 64}], "a": "0" * 64}


@fuzz
@given(reshaped(KEYS).map(as_json) | hostile_bytes(as_json(KEYS)) | odd.map(as_json))
@example(as_json({"\x1b[2J": "zz"}))
@example(as_json({"a" * 20_000: "zz"}))
@example(b"[" * 100_000)
def test_keys_of_sites(folder: Path, content: bytes) -> None:
    path = folder / "keys.json"
    path.write_bytes(content)
    must_read(lambda: read_keys(path, []), len(content))


@fuzz
@given(st.lists(st.text(max_size=80), max_size=2))
def test_keys_on_the_command_line(given_keys: list[str]) -> None:
    must_read(lambda: read_keys(None, given_keys))


@fuzz
@given(hostile_bytes(b'name = "hub"\naddress = "localhost:9443"\n'))
def test_a_coordinator_s_file(folder: Path, content: bytes) -> None:
    (folder / "server.toml").write_bytes(content)
    must_read(lambda: ServerFolder.open(folder), len(content))
