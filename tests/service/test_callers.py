"""Tokens are stored as hashes only, and each caller has its rate limit."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.errors import BadFileError, UsageError
from cloister.service.callers import ANYONE, CallerRates, Callers, add_caller, read_callers
from tests.support.examples import tries


def test_a_token_is_known_and_the_file_does_not_hold_it(tmp_path: Path) -> None:
    file = tmp_path / "callers.json"
    tokens = {name: add_caller(file, name) for name in ("desk", "ward-2")}
    assert file.stat().st_mode & 0o777 == 0o600
    callers = read_callers(file)
    for name, token in tokens.items():
        assert token not in file.read_text()
        assert callers.name_of(f"Bearer {token}") == name
        assert callers.name_of(f"bearer  {token} ") == name
        assert callers.name_of(token) is None
        assert callers.name_of(f"Basic {token}") is None
        assert callers.name_of(f"Bearer {token}x") is None
    assert callers.name_of("") is None
    assert callers.name_of("Bearer ") is None


def test_where_no_token_is_needed_everybody_is_anyone() -> None:
    assert Callers().name_of("") == ANYONE


def test_a_caller_has_one_token_and_a_name(tmp_path: Path) -> None:
    file = tmp_path / "callers.json"
    add_caller(file, "desk")
    before = file.read_text()
    for name in ("desk", "", "two words", "-x", "a" * 65, "../x"):
        with pytest.raises(UsageError):
            add_caller(file, name)
    assert file.read_text() == before


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"a": 1}', '{"a": "ff"}', '{"a b": "' + "0" * 64 + '"}', "\x00", '{"a": '],
)
def test_what_is_no_token_file_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "callers.json"
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(BadFileError, match="serve-token"):
        read_callers(file)


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "callers.json"
    file.write_text(json.dumps({"a": "0" * 64}))
    file.chmod(0o666)
    with pytest.raises(BadFileError, match="other users may write"):
        read_callers(file)


@settings(max_examples=tries(200))
@given(
    st.integers(1, 30),
    st.lists(st.tuples(st.floats(0, 40), st.sampled_from("ab")), max_size=60),
)
def test_no_caller_has_more_than_its_rate(a_minute: int, asked: list[tuple[float, str]]) -> None:
    """In any span of s seconds: at most what was saved up and what s seconds add."""
    now = 0.0
    rates = CallerRates(a_minute, lambda: now)
    taken: dict[str, list[float]] = {"a": [], "b": []}
    for pause, caller in asked:
        now += pause
        if not (wait := rates.wait(caller)):
            taken[caller].append(now)
        else:
            now += wait * (1 + 1e-9) + 1e-6  # rounding of the clock
            assert rates.wait(caller) == 0
            taken[caller].append(now)
    for times in taken.values():
        for i, first in enumerate(times):
            for count, last in enumerate(times[i:], 1):
                assert count <= a_minute * (1 + (last - first) / 60) + 1e-6


def test_one_caller_does_not_use_up_anothers() -> None:
    rates = CallerRates(1, lambda: 0.0)
    assert rates.wait("a") == 0
    assert rates.wait("a") == pytest.approx(60)
    assert rates.wait("b") == 0
