"""JSON from another party has one reading and bounded costs."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.json_text import MOST_DEPTH, read_json

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(values)
def test_what_was_written_is_read(value: object) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        if text.count("[") + text.count("{") < MOST_DEPTH:
            assert read_json(text.encode(), most_bytes=10**6) == value
            assert read_json(text, most_bytes=10**6) == value


REFUSED = {
    "too long": (b" " * 1001, "more than 1000 bytes"),
    "too deep": (b"[" * 13 + b"]" * 13, "12 deep"),
    "deep and unclosed": (b"[" * 900, "12 deep"),
    "deep in objects": (b'{"a":' * 20, "12 deep"),
    "too many values": (b"[" + b"1," * 200 + b"1]", "over 100 values"),
    "too many lists": (b"[" + b"[]" * 200 + b"]", "over 100 values"),
    "not a number": (b"[NaN]", "NaN is not a number"),
    "infinite": (b"[-Infinity]", "-Infinity is not a number"),
    "too large a number": (b"[1e999]", "too large"),
    "65 bits": (b"[9223372036854775808]", "64 bits"),
    "900 digits": (b"-" + b"9" * 900, "64 bits"),
    "a name twice": (b'{"a":1,"a":2}', "duplicate name"),
    "half a pair": (b'["\\ud800"]', "surrogate"),
    "half a pair as a name": (b'{"\\udfff":[1]}', "surrogate"),
    "not UTF-8": (b'"\xff"', "codec"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "BOM"),
    "a control character": (b'"\x1b"', "control"),
    "nothing": (b"", "Expecting"),
    "more after it": (b"{} x", "Extra"),
}


@pytest.mark.parametrize(("content", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_what_could_be_read_twice_or_without_end_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        read_json(content, most_bytes=1000, most_values=100)
    assert len(str(caught.value)) < 200


def test_brackets_and_commas_in_a_text_are_none() -> None:
    text = json.dumps(['[{,"' * 500, "\\"])
    assert read_json(text, most_bytes=10**4, most_values=10) == ['[{,"' * 500, "\\"]


def test_a_text_is_one_of_surrogates_neither_way() -> None:
    with pytest.raises(ValueError, match="surrogate"):
        read_json('"\ud800"', most_bytes=100)


def test_memory_is_bounded_by_the_number_of_values() -> None:
    content = b"[" + b"[]," * 1_000_000 + b"[]]"
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="values"):
            read_json(content, most_bytes=10**7)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(content)
    finally:
        tracemalloc.stop()
