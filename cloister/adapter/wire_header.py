"""The header of an adapter's message: read by its one form, never by a general parser.

    {"dtype":"float32","sha256":"<64 hex digits>","tensors":[["name",[2,3]],…]}

It comes from another party, so numbers have few digits, tensors few dimensions, and names few
characters; a text of any other form is refused where it leaves the form.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import cast

from cloister.adapter.formats import WIDTH, Dtype, Shapes
from cloister.errors import AdapterFormatError

# Factors have 2 dimensions and biases 1; PyTorch's largest kernels of convolution have 5.
MOST_DIMENSIONS = 8
# As many as a header's most bytes (`wire.MAX_HEADER_BYTES`) hold at 100 bytes each.
MOST_TENSORS = 40_000
# Of a name as it stands in JSON, where a character may take 12 bytes: the longest of ours have 120.
MOST_NAME_BYTES = 2048
# Digits of a dimension: 10¹⁰ is above any, and the product of 8 such is quickly made.
_SIZE = rb"(?:0|[1-9][0-9]{0,9})"

_START = re.compile(rb'\{"dtype":"([a-z0-9]{1,16})","sha256":"([0-9a-f]{64})","tensors":\[')
_TENSOR = re.compile(
    rb'\[("(?:[ !#-\[\]-\x7f]|\\["\\bfnrtu]){0,%d}"),\[((?:%s(?:,%s){0,%d})?)\]\](,|\]\}\Z)'
    % (MOST_NAME_BYTES, _SIZE, _SIZE, MOST_DIMENSIONS - 1)
)


@dataclass(frozen=True)
class Header:
    """What a message says of its body.

    Attributes:
        sha256: Of the body, in hex.
        dtype: What its values travel as.
        shapes: Of the tensors, by name, in name order.
    """

    sha256: str
    dtype: Dtype
    shapes: Shapes


def write_header(header: Header) -> bytes:
    """Writes a header as canonical JSON bytes.

    Args:
        header: Its names in order.
    """
    document = {
        "dtype": header.dtype,
        "sha256": header.sha256,
        "tensors": [[name, list(shape)] for name, shape in header.shapes.items()],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def parse_header(raw: bytes) -> Header:
    """Reads what `write_header` wrote.

    Raises:
        AdapterFormatError: It is of another form, or of more or larger parts than any adapter's.

    Guarantees:
        Time and memory grow with the text's length and `MOST_TENSORS` alone.
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
    """A string from its JSON, as canonical JSON has it."""
    try:
        name = str(json.loads(literal))
        name.encode()
    except ValueError as error:  # an escape that is none, or half of a surrogate pair
        raise _other_form() from error
    if json.dumps(name).encode() != literal:
        raise _other_form()
    return name


def _other_form() -> AdapterFormatError:
    return AdapterFormatError("adapter: its header is not of the expected form")
