"""The wire format makes exact round trips and refuses everything else."""

import hashlib
import json
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cloister.adapter.formats import BFLOAT16_ROUNDING, Dtype
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import MAGIC, decode, encode, encoded_length
from cloister.errors import AdapterFormatError

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
adapters = st.dictionaries(
    st.text(min_size=1, max_size=12),
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=4, min_side=0), elements=finite),
    max_size=4,
).map(Adapter)
SMALL = Adapter({"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float32)})
FRAME = len(MAGIC) + 6


@given(adapters)
def test_reading_gives_what_was_written_bit_for_bit(adapter: Adapter) -> None:
    again = decode(encode(adapter), adapter.shapes)
    assert again.shapes == adapter.shapes
    for name, array in adapter.items():
        assert again[name].tobytes() == array.tobytes()


@given(adapters)
def test_equal_adapters_give_equal_bytes(adapter: Adapter) -> None:
    shuffled = Adapter(dict(reversed(list(adapter.items()))))
    assert encode(shuffled) == encode(adapter)


@given(st.data())
def test_any_changed_byte_is_refused(data: st.DataObject) -> None:
    message = bytearray(encode(SMALL))
    place = data.draw(st.integers(0, len(message) - 1))
    message[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(AdapterFormatError):
        decode(bytes(message), SMALL.shapes)


@given(st.integers(0, len(encode(SMALL)) - 1))
def test_a_cut_message_is_refused(length: int) -> None:
    with pytest.raises(AdapterFormatError):
        decode(encode(SMALL)[:length], SMALL.shapes)


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(AdapterFormatError):
        decode(MAGIC + data, SMALL.shapes)


def test_other_tensors_than_expected_are_refused_by_name() -> None:
    with pytest.raises(AdapterFormatError, match=r"first that differs is b \[2\]"):
        decode(encode(SMALL), {"w": (2, 3)})


def test_values_that_are_not_finite_neither_leave_nor_enter() -> None:
    with pytest.raises(AdapterFormatError, match="NaN"):
        encode(Adapter({"x": np.array([np.nan])}))
    clean = encode(Adapter({"x": np.array([1.0])}))
    body = np.array([np.inf], "<f4").tobytes()
    header = json.dumps(
        {"dtype": "float32", "sha256": hashlib.sha256(body).hexdigest(), "tensors": [["x", [1]]]},
        sort_keys=True,
        separators=(",", ":"),
    ).encode()
    forged = clean[: len(MAGIC) + 2] + len(header).to_bytes(4, "big") + header + body
    with pytest.raises(AdapterFormatError, match="NaN"):
        decode(forged)


@pytest.mark.parametrize(
    "header",
    [
        {"dtype": "float64", "sha256": "0", "tensors": []},
        {"dtype": "float32", "sha256": 1, "tensors": []},
        {"dtype": "float32", "sha256": "0", "tensors": [["x", [-1]]]},
        {"dtype": "float32", "sha256": "0", "tensors": [["x", [True]]]},
        {"dtype": "float32", "sha256": "0", "tensors": [["x", [1]], ["a", [1]]]},
        {"dtype": "float32", "sha256": "0", "tensors": [], "more": 1},
        {"dtype": "float32", "tensors": []},
        [],
    ],
)
def test_a_header_of_another_form_is_refused(header: object) -> None:
    raw = json.dumps(header).encode()
    message = MAGIC + (1).to_bytes(2, "big") + len(raw).to_bytes(4, "big") + raw
    with pytest.raises(AdapterFormatError, match="header"):
        decode(message)


def test_another_version_says_what_to_do() -> None:
    message = MAGIC + (2).to_bytes(2, "big") + encode(SMALL)[len(MAGIC) + 2 :]
    with pytest.raises(AdapterFormatError, match="version 2 given, 1 is needed"):
        decode(message)


def test_a_deeply_nested_header_is_refused() -> None:
    raw = b"[" * 100_000
    message = MAGIC + (1).to_bytes(2, "big") + len(raw).to_bytes(4, "big") + raw
    with pytest.raises(AdapterFormatError, match="header"):
        decode(message)


# --- bfloat16 --------------------------------------------------------------------------------

ordinary = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)


@given(hnp.arrays(np.float32, st.integers(0, 30), elements=ordinary))
def test_bfloat16_rounds_to_nearest_in_half_the_bytes(values: np.ndarray) -> None:
    adapter = Adapter({"x": values})
    short, whole = encode(adapter, "bfloat16"), encode(adapter)
    assert len(whole) - len(short) == 2 * values.size - 1  # the header's longer word
    again = decode(short, adapter.shapes)["x"]
    expected = torch.from_numpy(values.copy()).to(torch.bfloat16).float().numpy()
    assert again.tobytes() == expected.tobytes()
    assert float(np.linalg.norm(again.astype(np.float64))) <= (
        float(np.linalg.norm(values.astype(np.float64))) * (1 + BFLOAT16_ROUNDING)
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@given(data=st.data())
def test_any_changed_byte_of_a_short_message_is_refused(dtype: Dtype, data: st.DataObject) -> None:
    message = bytearray(encode(SMALL, dtype))
    place = data.draw(st.integers(0, len(message) - 1))
    message[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(AdapterFormatError):
        decode(bytes(message), SMALL.shapes)


def test_what_bfloat16_cannot_hold_does_not_leave() -> None:
    with pytest.raises(AdapterFormatError, match="too large"):
        encode(Adapter({"x": np.array([3.4e38], np.float32)}), "bfloat16")


# --- int8 ------------------------------------------------------------------------------------


@given(hnp.arrays(np.float32, st.integers(0, 30), elements=finite.filter(lambda x: abs(x) < 3e38)))
def test_int8_lies_within_one_level_in_a_quarter_of_the_bytes(values: np.ndarray) -> None:
    adapter = Adapter({"x": values})
    short, whole = encode(adapter, "int8"), encode(adapter)
    assert len(short) - len(whole) == 4 - 3 * values.size - len("float32") + len("int8")
    again = decode(short, adapter.shapes)["x"].astype(np.float64)
    level = np.abs(values).max(initial=0.0).astype(np.float64) / 127
    assert (np.abs(again - values) <= level * (1 + 1e-6) + 2e-45).all()
    assert encode(adapter, "int8") == short  # equal adapters, equal bytes


def test_what_int8_cannot_hold_does_not_leave() -> None:
    with pytest.raises(AdapterFormatError, match="too large"):
        encode(Adapter({"x": np.array([3.4028234e38], np.float32)}), "int8")


def test_int8_is_right_on_average() -> None:
    """Over 4000 roundings of 50 values, each mean lies within 5 standard errors of its value."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=50).astype(np.float32)
    found = [
        decode(encode(Adapter({"x": values, "y": np.array([float(turn)])}), "int8"))["x"]
        for turn in range(1, 4001)
    ]
    level = np.abs(values).max() / 127
    error = np.abs(np.mean(found, axis=0, dtype=np.float64) - values)
    assert (error <= 5 * (level / 2) / np.sqrt(len(found))).all()


@given(
    hnp.arrays(np.float32, st.integers(1, 200), elements=st.floats(-1, 1, width=32)),
    st.floats(0.001, 100.0),
)
def test_int8_keeps_the_bound_on_the_norm(values: np.ndarray, bound: float) -> None:
    """One large value makes coarse levels, and small ones rounded up to them a long vector."""
    adapter = Adapter({"x": np.concatenate([values * np.float32(0.004), [np.float32(1.0)]])})
    adapter = adapter.scale(bound / adapter.norm())
    again = decode(encode(adapter, "int8", bound), adapter.shapes)
    assert again.norm() <= bound * (1 + 1e-6)  # what the coordinator allows for rounding


def test_a_scale_or_level_that_int8_does_not_have_is_refused() -> None:
    for body in (
        np.array([-1.0, 0.0], "<f4").tobytes(),
        np.array([np.nan, 0.0], "<f4").tobytes(),
        np.float32(1.0).tobytes() + b"\x80\x00\x00\x00",
    ):
        raw = json.dumps(
            {"dtype": "int8", "sha256": hashlib.sha256(body).hexdigest(), "tensors": [["x", [4]]]},
            sort_keys=True,
            separators=(",", ":"),
        ).encode()
        message = MAGIC + (1).to_bytes(2, "big") + len(raw).to_bytes(4, "big") + raw + body
        with pytest.raises(AdapterFormatError, match="int8 does not have"):
            decode(message)


# --- hostile messages ------------------------------------------------------------------------


def headed(raw: bytes, body: bytes = b"") -> bytes:
    return MAGIC + (1).to_bytes(2, "big") + len(raw).to_bytes(4, "big") + raw + body


def of_tensors(tensors: str) -> bytes:
    return f'{{"dtype":"float32","sha256":"{"0" * 64}","tensors":{tensors}}}'.encode()


def many_sizes() -> str:
    return ",".join(["999999999"] * 400_000)


def many_tensors() -> str:
    return ",".join(f'["{n:06x}",[]]' for n in range(300_000))


HOSTILE_HEADERS: dict[str, Callable[[], bytes]] = {
    "100,000 dimensions": lambda: of_tensors(f'[["w",[{many_sizes()[:999_999]}]]]'),
    "4 MB of dimensions": lambda: of_tensors(f'[["w",[{many_sizes()}]]]'),
    "a dimension of 4 million digits": lambda: of_tensors(f'[["w",[{"9" * 4_000_000}]]]'),
    "4 million lists": lambda: of_tensors("[" * 4_000_000),
    "a million empty lists": lambda: of_tensors(f"[{'[],' * 1_300_000}[]]"),
    "500,000 tensors": lambda: of_tensors(f"[{many_tensors()}]"),
    "a name of 4 MB": lambda: of_tensors(f'[["{"w" * 4_000_000}",[1]]]'),
    "unclosed escapes": lambda: of_tensors('[["' + '\\"' * 2_000_000),
}


@pytest.mark.parametrize("made", HOSTILE_HEADERS.values(), ids=HOSTILE_HEADERS.keys())
@pytest.mark.parametrize("is_expected", [True, False])
def test_a_hostile_header_is_refused_at_once(made: Callable[[], bytes], is_expected: bool) -> None:
    """In processor time: multiplying such dimensions took up to two minutes."""
    message = headed(made()[: 4 * 2**20])
    expected = [SMALL.shapes] if is_expected else []
    began = time.process_time()
    with pytest.raises(AdapterFormatError, match=r"header|tensors"):
        decode(message, *expected)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("made", HOSTILE_HEADERS.values(), ids=HOSTILE_HEADERS.keys())
def test_a_hostile_header_takes_little_memory(made: Callable[[], bytes]) -> None:
    message = headed(made()[: 4 * 2**20])

    def read() -> None:
        with pytest.raises(AdapterFormatError):
            decode(message)

    assert peak_of(read) < 3 * len(message) + 12_000_000


def peak_of(call: Callable[[], object]) -> int:
    """Bytes allocated at once at most."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("bfloat16", 2), ("int8", 1)])
def test_reading_copies_an_adapter_once(dtype: Dtype, width: int) -> None:
    """Beside the message there are its float32 values, and one tensor's on the way.

    20 tensors: that one is a twentieth, at most four times: as it travelled, as wider bits, as
    float32 and its copy; 1.25 leaves the marks of finite elements.
    """
    adapter = Adapter({f"{n:02d}": np.ones((50, 1000), np.float32) for n in range(20)})
    message = encode(adapter, dtype)
    assert len(message) > width * 1_000_000
    assert peak_of(lambda: decode(message, adapter.shapes, dtype=dtype)) < 1.25 * 4_000_000


def test_the_length_of_a_message_follows_from_its_shapes() -> None:
    for dtype in ("float32", "bfloat16", "int8"):
        for adapter in (SMALL, Adapter({}), Adapter({"é\n": np.ones(())})):
            assert len(encode(adapter, dtype)) == encoded_length(adapter.shapes, dtype)  # type: ignore[arg-type]


def test_other_shapes_are_refused_before_anything_is_hashed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message = encode(SMALL)
    monkeypatch.setattr(hashlib, "sha256", lambda data=b"": pytest.fail("it was hashed"))
    for wrong in (
        lambda: decode(message, {"w": (3, 2)}),
        lambda: decode(message, dtype="int8"),
        lambda: decode(message + b"x", SMALL.shapes),
    ):
        with pytest.raises(AdapterFormatError):
            wrong()
