"""Fuzzes what travels in a message: the adapter's bytes, requests and replies."""

from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from cloister.adapter.compact import decode_compact, encode_compact
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import MAGIC, decode, encode
from cloister.protocol.exchange import RoundReply, RoundRequest, Status, Step
from tests.support.fuzzing import fuzz, hostile_bytes, must_read, odd

ADAPTER = Adapter({"a.lora_A.weight": np.ones((2, 3)), "b": np.zeros(2), "é": np.ones(())})
WHOLE = {dtype: encode(ADAPTER, dtype) for dtype in ("float32", "bfloat16", "int8")}  # type: ignore[arg-type]


def framed(header: bytes, body: bytes = b"") -> bytes:
    return MAGIC + (1).to_bytes(2, "big") + len(header).to_bytes(4, "big") + header + body


def stated(dtype: str, tensors: str) -> bytes:
    text = f'{{"dtype":{dtype},"sha256":"{"0" * 64}","tensors":{tensors}}}'
    return framed(text.encode("utf-8", "surrogatepass"))


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A header whose every part may be of another kind."""
    size = st.integers(-1, 3) | st.sampled_from([2**31, 2**63, 10**30]) | st.just(True)
    shape = st.lists(size, max_size=12) | st.just([1] * 5000)
    name = st.sampled_from(['"a"', '"b"', '""', '"\\ud800"', '"\\u0061"', "1", "[]"])
    rows = draw(st.lists(st.tuples(name, shape), max_size=4))
    tensors = ",".join(f"[{name},{str(shape).replace(' ', '')}]" for name, shape in rows)
    dtype = draw(st.sampled_from(['"float32"', '"int8"', '"x"', "[]", "{}", "null", "1"]))
    return stated(dtype, f"[{tensors}]") + draw(st.binary(max_size=40))


@fuzz
@given(
    st.sampled_from(sorted(WHOLE)).flatmap(lambda dtype: hostile_bytes(WHOLE[dtype])) | headers(),
    st.booleans(),
)
@example(stated("[]", "[]"), True)
@example(stated('"float32"', f'[["a",[{",".join(["1"] * 100_000)}]]]'), True)
@example(stated('"float32"', f'[["a",[{",".join(["9" * 18] * 200_000)}]]]'), False)
@example(stated('"float32"', '[["a",[0,9999999999,9999999999]]]'), False)
@example(stated('"float32"', '[["\ud800",[1]]]'), False)
@example(framed(b"[" * 100_000), False)
@example(framed(b"[]," * 1_300_000), False)
def test_adapters(data: bytes, is_expected: bool) -> None:
    expected = [ADAPTER.shapes] if is_expected else []
    found = must_read(lambda: decode(data, *expected, dtype="float32" if is_expected else None))
    if is_expected and found is not None:
        assert isinstance(found, Adapter)
        assert found.shapes == ADAPTER.shapes


COMPACT = {dtype: encode_compact(ADAPTER, dtype) for dtype in WHOLE}  # type: ignore[arg-type]


@fuzz
@given(st.sampled_from(sorted(COMPACT)), st.data())
def test_compact_adapters(dtype: str, data: st.DataObject) -> None:
    message = data.draw(hostile_bytes(COMPACT[dtype]))
    others = ADAPTER if data.draw(st.booleans()) else Adapter({})
    found = must_read(
        lambda: decode_compact(message, ADAPTER.shapes, dtype=dtype, others=others)  # type: ignore[arg-type]
    )
    if found is not None:
        assert isinstance(found, Adapter)
        assert found.shapes == ADAPTER.shapes


REPLY = RoundReply("a", 1, Status.TRAINED, b"x", 1.0, "ab" * 32, b"").fields()
REQUEST = RoundRequest("study", 1, b"x", Step.TRAIN, b"").fields()
anything = odd | st.binary(max_size=10) | st.sampled_from([*Status, *Step]).map(str)


def fields(sound: dict[str, Any]) -> st.SearchStrategy[dict[Any, Any]]:
    return st.one_of(
        st.fixed_dictionaries({name: st.just(value) | anything for name, value in sound.items()}),
        st.dictionaries(st.sampled_from([*sound, "more", "\x1b[2J"]) | st.text(), anything),
    )


@fuzz
@given(fields(REPLY))
@example({**REPLY, "round": 10**5000})
@example({**REPLY, "epsilon": float("nan")})
@example({**REPLY, "site": "\ud800"})
@example({str(number): 1 for number in range(10_000)})
def test_replies(given_fields: dict[Any, Any]) -> None:
    found = must_read(lambda: RoundReply.from_fields(given_fields))
    if isinstance(found, RoundReply):
        assert found.statement("study")


@fuzz
@given(fields(REQUEST))
@example({**REQUEST, "step": "\x1b[2J" * 1000})
@example({**REQUEST, "round": -(10**5000)})
def test_requests(given_fields: dict[Any, Any]) -> None:
    must_read(lambda: RoundRequest.from_fields(given_fields))
