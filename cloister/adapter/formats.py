"""Encodes the values of tensors as bytes, exactly or rounded.

    float32    4 bytes for each value
    bfloat16   2 bytes for each value, rounded to nearest, ties to even
    int8       1 byte for each value, and 4 bytes for a scale s before each tensor: s·n, with n from
               -127 to 127, where x/s is rounded up or down at random so that its mean is x/s

Decoded int8 values, encoded again, give the same values: s has 17 bits, so that s·n is an exact
float32, and the largest value becomes 127 (rounded by at most 2⁻¹⁶ of itself), so that s is found
again. A coordinator that keeps decoded values can so send them any number of times.

Everything is little-endian. A site rounds after it clipped and added noise, so rounding is
post-processing and costs no ε. The other order (rounding first) would change the sensitivity for
which the noise is calibrated, so it is not offered.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from cloister.adapter.tensors import Adapter, Array
from cloister.errors import AdapterFormatError

Shapes = Mapping[str, tuple[int, ...]]
Dtype = Literal["float32", "bfloat16", "int8"]

# Bytes of a value, by type.
WIDTH: Mapping[Dtype, int] = {"float32": 4, "bfloat16": 2, "int8": 1}
# Bytes of the scale before each int8 tensor.
SCALE_WIDTH = 4
# Largest factor by which rounding to bfloat16's 8 bits lengthens a vector.
BFLOAT16_ROUNDING = 2.0**-8
# Largest level of int8; -128 is not used, so that levels are symmetric.
LEVELS = 127
# The largest scale: its product with the largest level is still a float32.
LARGEST_SCALE = float(np.finfo(np.float32).max) / LEVELS
# Bits of an encoded scale: its product with a level, of 7 bits, then fits into float32's 24.
SCALE_BITS = 17
# The smallest encoded scale that is not 0: far below any use, and such products are not subnormal.
SMALLEST_SCALE = 2.0**-100


def body_length(dtype: Dtype, shapes: Shapes) -> int:
    """Returns the number of bytes that tensors of these shapes take."""
    scales = SCALE_WIDTH * len(shapes) if dtype == "int8" else 0
    return scales + WIDTH[dtype] * sum(math.prod(shape) for shape in shapes.values())


def to_body(adapter: Adapter, dtype: Dtype, max_norm: float | None) -> bytes:
    """Encodes an adapter's values, in order of names.

    Args:
        adapter: The adapter; its values are finite.
        dtype: Type of the encoded values.
        max_norm: Bound on the norm of the decoded adapter. Rounding may lengthen a vector, so
            int8's scales are lowered to meet the bound; other types are not changed.

    Raises:
        AdapterFormatError: An element is too large for bfloat16.
    """
    if dtype == "int8":
        return _to_int8(adapter, max_norm)
    write = _to_bfloat16 if dtype == "bfloat16" else _to_float32
    return b"".join(write(array) for array in adapter.values())


def from_body(body: bytes | memoryview, dtype: Dtype, shapes: Shapes) -> Adapter:
    """Decodes the bytes that `to_body` wrote; there must be `body_length` of them.

    Raises:
        AdapterFormatError: An int8 tensor's scale is negative or NaN, a level is -128, or a shape
            is one that no tensor can have.
    """
    return Adapter(_Body(body, dtype, shapes))


class _Body(Mapping[str, Array]):
    """The tensors of a body, decoded one at a time, so that only one is in memory twice."""

    def __init__(self, body: bytes | memoryview, dtype: Dtype, shapes: Shapes) -> None:
        self._read = {"float32": _from_float32, "bfloat16": _from_bfloat16, "int8": _from_int8}[
            dtype
        ]
        self._shapes, self._parts = shapes, dict[str, memoryview]()
        start, whole = 0, memoryview(body)
        for name, shape in shapes.items():
            stop = start + body_length(dtype, {name: shape})
            self._parts[name] = whole[start:stop]
            start = stop

    def __getitem__(self, name: str) -> Array:
        values = self._read(self._parts[name])
        try:
            return values.reshape(self._shapes[name])
        except ValueError as error:  # an empty tensor whose other sizes overflow when multiplied
            raise AdapterFormatError("adapter: a shape that no tensor can have") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def _to_float32(array: Array) -> bytes:
    return array.astype("<f4").tobytes()


def _from_float32(body: memoryview) -> Array:
    return np.frombuffer(body, dtype="<f4")


def _to_bfloat16(array: Array) -> bytes:
    bits = array.astype("<f4").view("<u4").astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    if ((rounded & 0x7F80) == 0x7F80).any():
        raise AdapterFormatError("adapter: an element is too large for bfloat16")
    return rounded.astype("<u2").tobytes()


def _from_bfloat16(body: memoryview) -> Array:
    bits = np.frombuffer(body, dtype="<u2").astype("<u4")
    bits <<= 16
    return bits.view("<f4")


def _to_int8(adapter: Adapter, max_norm: float | None) -> bytes:
    """Rounds at random from a generator that the values seed: equal adapters give equal bytes."""
    whole = hashlib.sha256(b"".join(_to_float32(array) for array in adapter.values()))
    generator = np.random.default_rng(int.from_bytes(whole.digest(), "big"))
    scales, levels = [], []
    for array in adapter.values():
        scale = _scale(array)
        exact = array.astype(np.float64) / scale if scale else np.zeros(array.shape)
        down = np.floor(exact)
        level = down + (generator.random(array.shape) < exact - down)
        scales.append(scale)
        levels.append(np.where(np.abs(exact) > LEVELS - 1 / 2**8, np.sign(exact) * LEVELS, level))
    pairs = list(zip(scales, levels, strict=True))
    norm = math.sqrt(sum(float(np.square(scale * level).sum()) for scale, level in pairs))
    shrink = 1.0 if max_norm is None or norm <= max_norm else max_norm / norm
    return b"".join(
        np.array(scale * shrink, "<f4").tobytes() + level.astype(np.int8).tobytes()
        for scale, level in pairs
    )


def _scale(array: Array) -> float:
    """Returns the smallest scale of 17 bits that, times 127, is at least the largest absolute
    value; 0 for zeros."""
    largest = float(np.abs(array).max(initial=0.0))
    fraction, exponent = math.frexp(largest / LEVELS)
    scale = math.ldexp(math.ceil(math.ldexp(fraction, SCALE_BITS)), exponent - SCALE_BITS)
    if scale > LARGEST_SCALE:
        raise AdapterFormatError("adapter: an element is too large for int8")
    return max(scale, SMALLEST_SCALE) if largest else 0.0


def _from_int8(body: memoryview) -> Array:
    scale = np.frombuffer(body[:SCALE_WIDTH], dtype="<f4")[0]
    levels = np.frombuffer(body[SCALE_WIDTH:], dtype=np.int8)
    if not 0 <= float(scale) <= LARGEST_SCALE or (levels < -LEVELS).any():
        raise AdapterFormatError("adapter: a scale or level that int8 does not have")
    return np.asarray(scale * levels.astype(np.float32), dtype=np.float32)
