"""The adapter's wire format: the bytes that a site and the coordinator send each other.

    magic    8 bytes   b"CLOISTER"
    version  2 bytes   unsigned, big-endian
    length   4 bytes   of the header, unsigned, big-endian
    header   JSON      {"dtype": …, "sha256": hex of body, "tensors": [[name, shape], …]}
    body               the tensors' values in the header's order (`cloister.adapter.formats`)

The header is canonical JSON (sorted keys, no white space) and tensors are in order of names, so
equal adapters give equal bytes. Nothing is unpickled or executed. Unexpected bytes are refused
step by step: first the length is checked, then the header, then the hash, and only then are values
read.
"""

from __future__ import annotations

import hashlib

from cloister.adapter.formats import Dtype, Shapes, body_length, from_body, to_body
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire_header import Header, parse_header, write_header
from cloister.bounds import shortened
from cloister.errors import AdapterFormatError, DivergedError

MAGIC = b"CLOISTER"
VERSION = 1
# Largest header: about 100 bytes for each tensor; the largest models have a few thousand of them.
MAX_HEADER_BYTES = 4 * 1024 * 1024
_FRAME = len(MAGIC) + 6


def encode(adapter: Adapter, dtype: Dtype = "float32", max_norm: float | None = None) -> bytes:
    """Encodes an adapter as bytes for the wire.

    Args:
        adapter: The adapter; its values are float32.
        dtype: Type of the values on the wire.
        max_norm: Bound on the norm after decoding, which int8 keeps in spite of rounding; see
            `to_body`.

    Raises:
        DivergedError: An element is not finite.
        AdapterFormatError: An element is too large for the type.
    """
    if not adapter.is_finite():
        raise DivergedError("adapter: NaN or infinite elements; only finite ones can travel")
    body = to_body(adapter, dtype, max_norm)
    header = write_header(Header(hashlib.sha256(body).hexdigest(), dtype, adapter.shapes))
    frame = MAGIC + VERSION.to_bytes(2, "big") + len(header).to_bytes(4, "big")
    return b"".join([frame, header, body])


def encoded_length(shapes: Shapes, dtype: Dtype) -> int:
    """Returns the length of every message with tensors of these shapes, in bytes."""
    return _FRAME + _header_length(shapes, dtype) + body_length(dtype, shapes)


def decode(data: bytes, *expected: Shapes, dtype: Dtype | None = None) -> Adapter:
    """Decodes an adapter from the wire, after all checks.

    Args:
        data: The bytes that `encode` wrote; not trusted.
        expected: The allowed shapes by name. The adapter must have all names and no others. If
            several are given, it must match one of them.
        dtype: The required type of the values; None: any.

    Raises:
        AdapterFormatError: Magic, version, header, length or hash is invalid, an element is not
            finite, or names, shapes or type are not the expected ones.

    Guarantees:
        A message with other shapes or another length is refused before it is hashed and before
        memory is allocated for its shapes. The body is copied once, into the adapter's float32
        values, and one tensor at a time is copied in between.
    """
    if len(data) < _FRAME or not data.startswith(MAGIC):
        raise AdapterFormatError("adapter: these bytes do not start as a Cloister adapter does")
    version = int.from_bytes(data[len(MAGIC) : len(MAGIC) + 2], "big")
    if version != VERSION:
        raise AdapterFormatError(
            f"adapter: format version {version} given, {VERSION} is needed; "
            "use the same version of cloister on both sides"
        )
    length = int.from_bytes(data[len(MAGIC) + 2 : _FRAME], "big")
    if length > MAX_HEADER_BYTES or _FRAME + length > len(data):
        raise AdapterFormatError("adapter: incomplete, or its header's length is invalid")
    header = parse_header(data[_FRAME : _FRAME + length])
    if dtype not in (None, header.dtype):
        raise AdapterFormatError(f"adapter: its values are {header.dtype}; the study's are {dtype}")
    if expected and not any(dict(wanted) == header.shapes for wanted in expected):
        raise _other_tensors(header.shapes, expected[0])
    body = memoryview(data)[_FRAME + length :]
    if len(body) != body_length(header.dtype, header.shapes):
        raise AdapterFormatError("adapter: its body has another length than its header states")
    if hashlib.sha256(body).hexdigest() != header.sha256:
        raise AdapterFormatError("adapter: its SHA-256 does not match; it was changed or damaged")
    adapter = from_body(body, header.dtype, header.shapes)
    if not adapter.is_finite():
        raise AdapterFormatError("adapter: NaN or infinite elements")
    return adapter


def digest(data: bytes) -> str:
    """Returns the SHA-256 of a whole message, in hex, as ledgers and certificates name it."""
    return hashlib.sha256(data).hexdigest()


def _header_length(shapes: Shapes, dtype: Dtype) -> int:
    return len(write_header(Header("0" * 64, dtype, shapes)))


def _other_tensors(found: Shapes, wanted: Shapes) -> AdapterFormatError:
    name, shape = min({*found.items()} ^ {*wanted.items()})
    return AdapterFormatError(
        "adapter: its tensors are not those that the study trains; the first that differs is "
        f"{shortened(name)[1:-1]} {list(shape)}"
    )
