"""The compact wire format, for parties that both know the names and shapes of the tensors.

    magic    8 bytes    b"CLOISTER"
    version  2 bytes    2, unsigned, big-endian
    dtype    1 byte     0: float32, 1: bfloat16, 2: int8
    layout  32 bytes    SHA-256 of the tensors' names and shapes, as canonical JSON
    whole   32 bytes    SHA-256 of layout and float32 values of the whole adapter after decoding
    body                the tensors' values in order of names (`cloister.adapter.formats`)

Version 1 (`cloister.adapter.wire`) states each tensor's name and shape, about 100 bytes each: more
than the int8 values of a vector of 96. This one has 75 bytes in all. A message may hold a part of
an adapter whose other tensors the receiver has already: the last hash covers them too, so that both
sides hold equal bits, or the message is refused.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

from cloister.adapter.formats import Dtype, Shapes, body_length, from_body, to_body
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import MAGIC
from cloister.errors import AdapterFormatError, DivergedError

VERSION = 2
_DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "int8")
_SHA256 = 32
_FRAME = len(MAGIC) + 2 + 1 + 2 * _SHA256
# Nothing else than the message's own tensors.
ALONE = Adapter({})


def encode_compact(
    adapter: Adapter, dtype: Dtype, max_norm: float | None = None, *, others: Adapter = ALONE
) -> bytes:
    """Encodes an adapter, or a part of one, as bytes for the wire.

    Args:
        adapter: The tensors that the message holds.
        dtype: Type of the values on the wire.
        max_norm: Bound on the norm after decoding; see `to_body`.
        others: The other tensors of the whole adapter, which the receiver has already.

    Raises:
        DivergedError: An element is not finite.
        AdapterFormatError: An element is too large for the type.
    """
    if not adapter.is_finite():
        raise DivergedError("adapter: NaN or infinite elements; only finite ones can travel")
    body = to_body(adapter, dtype, max_norm)
    whole = _hash_of(Adapter({**others, **from_body(body, dtype, adapter.shapes)}))
    kind = bytes([_DTYPES.index(dtype)])
    frame = MAGIC + VERSION.to_bytes(2, "big") + kind + _layout(adapter.shapes) + whole
    return frame + body


def compact_length(shapes: Shapes, dtype: Dtype) -> int:
    """Returns the length of every compact message with tensors of these shapes, in bytes."""
    return _FRAME + body_length(dtype, shapes)


def decode_compact(
    data: bytes, *expected: Shapes, dtype: Dtype, others: Adapter = ALONE
) -> Adapter:
    """Decodes an adapter from a compact message, after all checks.

    Args:
        data: The bytes that `encode_compact` wrote; not trusted.
        expected: The shapes by name that the message may have, one or more.
        dtype: The required type of the values.
        others: Further tensors of the whole adapter; those that the message holds replace them.

    Returns:
        The whole adapter.

    Raises:
        AdapterFormatError: Magic, version, type, tensors or length are not the expected ones, an
            element is not finite, or the whole adapter is not the sender's.

    Guarantees:
        A message of another length is refused before memory is allocated for its values.
    """
    if len(data) < _FRAME or not data.startswith(MAGIC):
        raise AdapterFormatError("adapter: these bytes do not start as a Cloister adapter does")
    at = len(MAGIC)
    version = int.from_bytes(data[at : at + 2], "big")
    if version != VERSION:
        raise AdapterFormatError(
            f"adapter: format version {version} given, {VERSION} is needed, because the study "
            "states training.adapter_dtype; use the same version of cloister on both sides"
        )
    if data[at + 2] != _DTYPES.index(dtype):
        raise AdapterFormatError(f"adapter: its values are not of the study's type, {dtype}")
    layout, whole = data[at + 3 : _FRAME - _SHA256], data[_FRAME - _SHA256 : _FRAME]
    shapes = next((dict(wanted) for wanted in expected if _layout(wanted) == layout), None)
    if shapes is None:
        raise AdapterFormatError("adapter: its tensors are not those that the study trains")
    body = memoryview(data)[_FRAME:]
    if len(body) != body_length(dtype, shapes):
        raise AdapterFormatError("adapter: its body has another length than its tensors take")
    adapter = Adapter({**others, **from_body(body, dtype, shapes)})
    if not adapter.is_finite():
        raise AdapterFormatError("adapter: NaN or infinite elements")
    if _hash_of(adapter) != whole:
        raise AdapterFormatError(
            "adapter: its SHA-256 does not match: it was changed or damaged, or the tensors that "
            "it leaves out, with which the study begins, are not the sender's; use the same "
            "versions of cloister, torch and the base on both sides"
        )
    return adapter


def _layout(shapes: Shapes) -> bytes:
    tensors = [[name, list(shapes[name])] for name in sorted(shapes)]
    return hashlib.sha256(json.dumps(tensors, separators=(",", ":")).encode()).digest()


def _hash_of(adapter: Adapter) -> bytes:
    found = hashlib.sha256(_layout(adapter.shapes))
    for array in adapter.values():
        found.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return found.digest()
