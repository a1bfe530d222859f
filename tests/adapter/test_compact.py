"""Compact messages: 75 bytes beside the values, parts of an adapter, and values that are kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cloister.adapter.compact import compact_length, decode_compact, encode_compact
from cloister.adapter.formats import Dtype, from_body, to_body
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, encode
from cloister.errors import AdapterFormatError, DivergedError

DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "int8")
WIDTHS = dict(zip(DTYPES, (4, 2, 1), strict=True))
# 10⁵ values in the tensors of a base of 12 layers with two adapted modules each.
NAMES = [
    f"encoder.layer.{n}.attention.self.{m}.lora_B" for n in range(12) for m in ("query", "value")
]
LARGE = Adapter({name: np.random.default_rng(0).normal(size=4167) for name in NAMES})
SMALL = Adapter({"b": np.array([[0.5, -2.0]]), "w": np.array([1.0, 0.25, -8.0])})


def kept(adapter: Adapter, dtype: Dtype) -> Adapter:
    return from_body(to_body(adapter, dtype, None), dtype, adapter.shapes)


def bits(adapter: Adapter) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in adapter.items()}


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_header_is_less_than_a_hundredth_of_100_000_values(dtype: Dtype) -> None:
    message = encode_compact(LARGE, dtype)
    assert len(message) == compact_length(LARGE.shapes, dtype)
    values = LARGE.size * WIDTHS[dtype]
    assert values < len(message) < 1.01 * values
    # Names and shapes alone are more than that in version 1.
    assert len(encode(LARGE, "int8")) > 1.015 * LARGE.size


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_decoded_is_what_version_1_gives(dtype: Dtype) -> None:
    found = decode_compact(encode_compact(LARGE, dtype), LARGE.shapes, dtype=dtype)
    assert bits(found) == bits(decode(encode(LARGE, dtype), LARGE.shapes))


FINITE = st.floats(-(2.0**100), 2.0**100, width=32)


@pytest.mark.parametrize("dtype", DTYPES)
@given(values=hnp.arrays(np.float32, st.integers(0, 40), elements=FINITE))
def test_what_was_decoded_once_stays_equal_in_every_bit(dtype: Dtype, values: np.ndarray) -> None:
    """So a coordinator sends what it keeps, round after round, and after a restart."""
    once = kept(Adapter({"x": values, "y": values[:1] / 3}), dtype)
    assert bits(kept(once, dtype)) == bits(once)


@given(st.integers(1, 2**24 - 1), st.integers(-90, 90))
def test_the_scale_of_int8_is_found_again_for_any_largest_value(largest: int, power: int) -> None:
    top = np.float32(largest * 2.0**power)
    once = kept(Adapter({"x": np.array([top, -top, top / 2, top / 300], np.float32)}), "int8")
    assert once["x"][0] == -once["x"][1]
    assert abs(float(once["x"][0]) / float(top) - 1) <= 2.0**-16
    assert bits(kept(once, "int8")) == bits(once)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_part_is_filled_up_with_the_tensors_that_the_receiver_has(dtype: Dtype) -> None:
    others = Adapter({"a": np.array([3.0])})
    message = encode_compact(SMALL, dtype, others=others)
    assert len(message) == compact_length(SMALL.shapes, dtype)
    start = Adapter({**others, **SMALL.zeros()})
    found = decode_compact(message, SMALL.shapes, dtype=dtype, others=start)
    assert bits(found) == bits(Adapter({**others, **kept(SMALL, dtype)}))
    empty = encode_compact(Adapter({}), dtype, others=start)
    assert bits(decode_compact(empty, {}, dtype=dtype, others=start)) == bits(start)


def test_a_receiver_with_other_tensors_than_the_sender_s_refuses() -> None:
    """The tensors that were left out are covered by the hash, to the last bit."""
    message = encode_compact(SMALL, "int8", others=Adapter({"a": np.array([3.0])}))
    near = Adapter({"a": np.nextafter(np.array([3.0], np.float32), np.float32(4))})
    with pytest.raises(AdapterFormatError, match="are not the sender's"):
        decode_compact(message, SMALL.shapes, dtype="int8", others=near)


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_any_changed_byte_is_refused(dtype: Dtype, data: st.DataObject) -> None:
    message = bytearray(encode_compact(SMALL, dtype))
    place = data.draw(st.integers(0, len(message) - 1))
    message[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(AdapterFormatError):
        decode_compact(bytes(message), SMALL.shapes, dtype=dtype)


@given(st.binary(max_size=200), st.sampled_from(DTYPES))
def test_no_bytes_of_another_party_raise_anything_else(data: bytes, dtype: Dtype) -> None:
    for message in (data, encode_compact(SMALL, dtype)[:75] + data):
        with pytest.raises(AdapterFormatError):
            decode_compact(message, {"x": (300,)}, dtype=dtype)


def test_another_version_type_or_set_of_tensors_is_refused_by_name() -> None:
    message = encode_compact(SMALL, "int8")
    with pytest.raises(AdapterFormatError, match=r"version 1 given, 2 .* training.adapter_dtype"):
        decode_compact(encode(SMALL, "int8"), SMALL.shapes, dtype="int8")
    with pytest.raises(AdapterFormatError, match="version 2 given, 1 is needed"):
        decode(message, SMALL.shapes)
    with pytest.raises(AdapterFormatError, match="the study's type, bfloat16"):
        decode_compact(message, SMALL.shapes, dtype="bfloat16")
    with pytest.raises(AdapterFormatError, match="not those that the study trains"):
        decode_compact(message, {"w": (3,)}, dtype="int8")
    with pytest.raises(AdapterFormatError, match="another length"):
        decode_compact(message + b"\0", SMALL.shapes, dtype="int8")
    with pytest.raises(DivergedError):
        encode_compact(Adapter({"x": np.array([np.nan])}), "int8")
