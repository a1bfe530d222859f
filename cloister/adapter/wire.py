"""The adapter's wire format: what travels between a site and the coordinator, byte for byte.

    magic    8 bytes   b"CLOISTER"
    version  2 bytes   unsigned, big-endian
    length   4 bytes   of the header, unsigned, big-endian
    header   JSON      {"dtype": …, "sha256": hex of body, "tensors": [[name, shape], …]}
    body               the tensors' values in the header's order (`cloister.adapter.formats`)

The header is canonical JSON (sorted keys, no white space) and tensors come in name order, so equal
adapters give equal bytes. Nothing is unpickled, nothing is executed, and anything unexpected is
refused.
"""

from __future__ import annotations

import hashlib
import json

from cloister.adapter.formats import WIDTH, Dtype, Shapes, body_length, from_body, to_body
from cloister.adapter.tensors import Adapter
from cloister.errors import AdapterFormatError

MAGIC = b"CLOISTER"
VERSION = 1
# A header is about 100 bytes a tensor; the largest models have a few thousand adapted tensors.
MAX_HEADER_BYTES = 4 * 1024 * 1024


def encode(adapter: Adapter, dtype: Dtype = "float32", max_norm: float | None = None) -> bytes:
    """Writes an adapter.

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
    header = json.dumps(
        {
            "dtype": dtype,
            "sha256": hashlib.sha256(body).hexdigest(),
            "tensors": [[name, list(array.shape)] for name, array in adapter.items()],
        },
        sort_keys=True,
        separators=(",", ":"),
    ).encode()
    frame = MAGIC + VERSION.to_bytes(2, "big") + len(header).to_bytes(4, "big")
    return frame + header + body


def decode(data: bytes, *expected: Shapes, dtype: Dtype | None = None) -> Adapter:
    """Reads an adapter.

    Args:
        data: What `encode` wrote.
        expected: Shapes by name that the adapter must have, all of them and no others; where there
            are several, one of these.
        dtype: What its values must travel as; None: whatever they do.

    Raises:
        AdapterFormatError: Wrong magic, version, header, length or hash, elements that are not
            finite, or tensors or values other than the expected ones.
    """
    frame = len(MAGIC) + 6
    if len(data) < frame or not data.startswith(MAGIC):
        raise AdapterFormatError("adapter: these bytes do not start as a Cloister adapter does")
    version = int.from_bytes(data[len(MAGIC) : len(MAGIC) + 2], "big")
    if version != VERSION:
        raise AdapterFormatError(
            f"adapter: format version {version} given, {VERSION} understood; "
            "use the same version of cloister on both sides"
        )
    length = int.from_bytes(data[len(MAGIC) + 2 : frame], "big")
    if length > MAX_HEADER_BYTES or frame + length > len(data):
        raise AdapterFormatError("adapter: cut off, or its header's length is wrong")
    digest, stated, shapes = _header(data[frame : frame + length])
    body = data[frame + length :]
    if len(body) != body_length(stated, shapes):
        raise AdapterFormatError("adapter: its body is not as long as its header says")
    if hashlib.sha256(body).hexdigest() != digest:
        raise AdapterFormatError("adapter: its SHA-256 does not match; it was changed or damaged")
    if dtype not in (None, stated):
        raise AdapterFormatError(f"adapter: its values are {stated}; the study's are {dtype}")
    if expected and not any(dict(wanted) == shapes for wanted in expected):
        odd = sorted({*shapes.items()} ^ {*expected[0].items()})
        raise AdapterFormatError(
            f"adapter: other tensors than the study trains, first {odd[0][0]} {list(odd[0][1])}"
        )
    adapter = from_body(body, stated, shapes)
    if not adapter.is_finite():
        raise AdapterFormatError("adapter: NaN or infinite elements")
    return adapter


def digest(data: bytes) -> str:
    """SHA-256 of a whole message, in hex: what ledgers, checkpoints and certificates name."""
    return hashlib.sha256(data).hexdigest()


def _header(raw: bytes) -> tuple[str, Dtype, dict[str, tuple[int, ...]]]:
    try:
        header = json.loads(raw)
        body_digest, dtype, listed = header["sha256"], header["dtype"], header["tensors"]
        shapes = {str(name): tuple(shape) for name, shape in listed}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AdapterFormatError("adapter: its header cannot be read") from error
    whole = all(type(size) is int and size >= 0 for shape in shapes.values() for size in shape)
    if (
        set(header) != {"sha256", "dtype", "tensors"}
        or dtype not in WIDTH
        or not isinstance(body_digest, str)
        or not whole
        or [name for name, _ in listed] != sorted(shapes)
    ):
        raise AdapterFormatError("adapter: its header is not of the expected form")
    return body_digest, dtype, shapes
