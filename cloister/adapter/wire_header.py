"""Reads and writes the header of an adapter's message, in its one form.

    {"dtype":"float32","sha256":"<64 hex digits>","tensors":[["name",[2,3]],…]}

The header comes from another party, so it is not given to a general JSON parser: the number of
digits, dimensions and characters is bounded, and the first unexpected byte is refused.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import cast

from cloister.adapter.formats import WIDTH, Dtype, Shapes
from cloister.errors import AdapterFormatError

# Most dimensions. Factors have 2 and biases 1; PyTorch's largest convolution kernels have 5.
MOST_DIMENSIONS = 8
# Most tensors: as many as fit into the largest header (`wire.MAX_HEADER_BYTES`) at 100 bytes each.
MOST_TENSORS = 40_000
# Longest name in JSON, where a character may take 12 bytes; our longest names have 120.
MOST_NAME_BYTES = 2048
# Most digits of a dimension: 10¹⁰ is above any, and the product of 8 such is quickly computed.
_SIZE = rb"(?:0|[1-9][0-9]{0,9})"

_START = re.compile(rb'\{"dtype":"([a-z0-9]{1,16})","sha256":"([0-9a-f]{64})","tensors":\[')
_TENSOR = re.compile(
    rb'\[("(?:[ !#-\[\]-\x7f]|\\["\\bfnrtu]){0,%d}"),\[((?:%s(?:,%s){0,%d})?)\]\](,|\]\}\Z)'
    % (MOST_NAME_BYTES, _SIZE, _SIZE, MOST_DIMENSIONS - 1)
)


@dataclass(frozen=True)
class Header:
    """A message's statements about its body.

    Attributes:
        sha256: SHA-256 of the body, in hex.
        dtype: Type of the values in the body.
        shapes: Shapes of the tensors by name, in order of names.
    """

    sha256: str
    dtype: Dtype
    shapes: Shapes


def write_header(header: Header) -> bytes:
    """Writes a header as canonical JSON bytes.

    Args:
        header: The header; its names are in order.
    """
    document = {
        "dtype": header.dtype,
        "sha256": header.sha256,
        "tensors": [[name, list(shape)] for name, shape in header.shapes.items()],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def parse_header(raw: bytes) -> Header:
    """Parses the bytes that `write_header` wrote.

    Raises:
        AdapterFormatError: They have another form, or more or larger parts than any adapter has.

    Guarantees:
        Time and memory grow only with the length of the bytes and with `MOST_TENSORS`.
    """
    start = _START.match(raw)
    if start is None or (dtype := start[1].decode()) not in WIDTH:
        raise _other_form()
    shapes: dict[str, tuple[int, ...]] = {}
    at, last, more = start.end(), "", raw[start.end() :] != b"]}"
    while more:
        tensor = _TENSOR.match(raw, at)
        if tensor is None or len(shapes) >= MOST_TENSORS:
            raise _other_form()
        name = _name(tensor[1])
        if shapes and name <= last:
            raise _other_form()
        shapes[name] = tuple(int(size) for size in tensor[2].split(b",") if size)
        at, last, more = tensor.end(), name, tensor[3] == b","
    return Header(start[2].decode(), cast(Dtype, dtype), shapes)


def _name(literal: bytes) -> str:
    """Decodes a canonical JSON string."""
    try:
        name = str(json.loads(literal))
        name.encode()
    except ValueError as error:  # an invalid escape, or half of a surrogate pair
        raise _other_form() from error
    if json.dumps(name).encode() != literal:
        raise _other_form()
    return name


def _other_form() -> AdapterFormatError:
    return AdapterFormatError("adapter: its header is not of the expected form")
