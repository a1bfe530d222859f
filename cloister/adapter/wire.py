"""The adapter's wire format: what travels between a site and the coordinator, byte for byte.

    magic    8 bytes   b"CLOISTER"
    version  2 bytes   unsigned, big-endian
    length   4 bytes   of the header, unsigned, big-endian
    header   JSON      {"dtype": …, "sha256": hex of body, "tensors": [[name, shape], …]}
    body               the tensors' values in the header's order (`cloister.adapter.formats`)

The header is canonical JSON (sorted keys, no white space) and tensors come in name order, so equal
adapters give equal bytes. Nothing is unpickled, nothing is executed, and anything unexpected is
refused: the length first, then the header, then the hash, and only then is a value read.
"""

from __future__ import annotations

import hashlib

from cloister.adapter.formats import Dtype, Shapes, body_length, from_body, to_body
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire_header import Header, parse_header, write_header
from cloister.bounds import shortened
from cloister.errors import AdapterFormatError

MAGIC = b"CLOISTER"
VERSION = 1
# A header is about 100 bytes a tensor; the largest models have a few thousand adapted tensors.
MAX_HEADER_BYTES = 4 * 1024 * 1024
_FRAME = len(MAGIC) + 6


def encode(adapter: Adapter, dtype: Dtype = "float32", max_norm: float | None = None) -> bytes:
    """Encodes an adapter as bytes for the wire.

    Args:
        adapter: Its values are float32.
        dtype: What they travel as.
        max_norm: Bound that int8 keeps although rounding may lengthen a vector; see `to_body`.

    Raises:
        AdapterFormatError: An element is not finite, or would not be as bfloat16.
    """
    if not adapter.is_finite():
        raise AdapterFormatError("adapter: NaN or infinite elements; only finite ones can travel")
    body = to_body(adapter, dtype, max_norm)
    header = write_header(Header(hashlib.sha256(body).hexdigest(), dtype, adapter.shapes))
    frame = MAGIC + VERSION.to_bytes(2, "big") + len(header).to_bytes(4, "big")
    return b"".join([frame, header, body])


def encoded_length(shapes: Shapes, dtype: Dtype) -> int:
    """Bytes of a message of tensors of these shapes: every one of them has this many."""
    return _FRAME + _header_length(shapes, dtype) + body_length(dtype, shapes)


def decode(data: bytes, *expected: Shapes, dtype: Dtype | None = None) -> Adapter:
    """Decodes an adapter that came over the wire, and checks all of it first.

    Args:
        data: What `encode` wrote.
        expected: Shapes by name that the adapter must have, all of them and no others; where there
            are several, one of these.
        dtype: What its values must travel as; None: whatever they do.

    Raises:
        AdapterFormatError: Wrong magic, version, header, length or hash, elements that are not
            finite, or tensors or values other than the expected ones.

    Guarantees:
        What is not of the expected shapes and length is refused before it is hashed and before
        anything is multiplied or made of it. The only copy made of the body is the adapter's
        float32 values, and one tensor's on the way.
    """
    if len(data) < _FRAME or not data.startswith(MAGIC):
        raise AdapterFormatError("adapter: these bytes do not start as a Cloister adapter does")
    version = int.from_bytes(data[len(MAGIC) : len(MAGIC) + 2], "big")
    if version != VERSION:
        raise AdapterFormatError(
            f"adapter: format version {version} given, {VERSION} understood; "
            "use the same version of cloister on both sides"
        )
    length = int.from_bytes(data[len(MAGIC) + 2 : _FRAME], "big")
    if length > MAX_HEADER_BYTES or _FRAME + length > len(data):
        raise AdapterFormatError("adapter: cut off, or its header's length is wrong")
    header = parse_header(data[_FRAME : _FRAME + length])
    if dtype not in (None, header.dtype):
        raise AdapterFormatError(f"adapter: its values are {header.dtype}; the study's are {dtype}")
    if expected and not any(dict(wanted) == header.shapes for wanted in expected):
        raise _other_tensors(header.shapes, expected[0])
    body = memoryview(data)[_FRAME + length :]
    if len(body) != body_length(header.dtype, header.shapes):
        raise AdapterFormatError("adapter: its body is not as long as its header says")
    if hashlib.sha256(body).hexdigest() != header.sha256:
        raise AdapterFormatError("adapter: its SHA-256 does not match; it was changed or damaged")
    adapter = from_body(body, header.dtype, header.shapes)
    if not adapter.is_finite():
        raise AdapterFormatError("adapter: NaN or infinite elements")
    return adapter


def digest(data: bytes) -> str:
    """SHA-256 of a whole message, in hex: what ledgers, checkpoints and certificates name."""
    return hashlib.sha256(data).hexdigest()


def _header_length(shapes: Shapes, dtype: Dtype) -> int:
    return len(write_header(Header("0" * 64, dtype, shapes)))


def _other_tensors(found: Shapes, wanted: Shapes) -> AdapterFormatError:
    name, shape = min({*found.items()} ^ {*wanted.items()})
    return AdapterFormatError(
        f"adapter: other tensors than the study trains, first {shortened(name)[1:-1]} {list(shape)}"
    )
