"""The claim of a delivered adapter has three plain values, and nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import AdapterFormatError
from cloister.protocol.delivery import MOST_BYTES, Claim

SOUND = {"metric": "macro_f1", "score": 0.5, "rounds": 3}


@given(
    st.from_regex("[a-z][a-z0-9_]{0,39}", fullmatch=True),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.integers(0, 10**6),
)
def test_a_claim_reads_as_it_was_written(metric: str, score: float | None, rounds: int) -> None:
    claim = Claim(metric, score, rounds)
    assert Claim.from_bytes(claim.to_bytes()) == claim


@pytest.mark.parametrize(
    "change",
    [
        {"metric": "../../etc/passwd"},
        {"metric": "\u001b[2J"},
        {"metric": ""},
        {"metric": 3},
        {"score": "0.9"},
        {"score": True},
        {"rounds": -1},
        {"rounds": 1.5},
        {"rounds": True},
        {"name": "study"},
    ],
)
def test_what_is_no_claim_is_refused(change: dict[str, object]) -> None:
    assert Claim.from_bytes(json.dumps(SOUND).encode())
    with pytest.raises(AdapterFormatError):
        Claim.from_bytes(json.dumps(SOUND | change).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"metric": "f1", "score": NaN, "rounds": 1}',
        b'{"metric": "f1", "score": 1e999, "rounds": 1}',
        json.dumps(SOUND).encode() + b" " * MOST_BYTES,
    ],
)
def test_bytes_that_are_no_claim_are_refused(body: bytes) -> None:
    with pytest.raises(AdapterFormatError):
        Claim.from_bytes(body)
