"""Reads and checks the header of a GGUF file within bounds, before any library opens the file.

A GGUF is written by another party, and the readers of transformers and gguf trust every count in
it: an array of 2⁶³ numbers in a file of 100 bytes keeps them reading for ever. Here each count is
compared with the bytes that exist, each tensor must be inside the file, and no two may share bytes,
so that the unpacked size is bounded by the file's size.

Layout (version 3): magic, version, number of tensors, number of values; the values, each a key, a
type and its content; of each tensor name, dimensions, type and offset; padding; the tensors' bytes.
"""

from __future__ import annotations

import itertools
import mmap
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from cloister.errors import ModelFileError
from cloister.files import open_file
from cloister.printable import one_line

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
_STRING, _ARRAY = 8, 9
# Formats of the values of fixed size, by type.
_FIXED = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}

# Most tensors. DeepSeek V3 has 1,100 with stacked experts, and 45,000 without.
MOST_TENSORS = 65_536
# Most values; llama.cpp writes 20 to 60.
MOST_VALUES = 1024
# The specification's limits: bytes of a key, bytes of a tensor's name, dimensions.
MOST_KEY, MOST_TENSOR_NAME, MOST_DIMENSIONS = 65_535, 64, 4
# Most characters of a value that is kept; chat templates have their own limit when they are read.
MOST_KEPT = 2**20
# Most items of one array: four times Gemma 3's 515,000 merges.
MOST_ITEMS = 2**21
# Largest size of a layer, head, vocabulary or context: the largest public one is Llama 4 Scout's
# context of 10,485,760 tokens.
MOST_SIZE = 2**24

_LAYER = re.compile(r"(?:^|\.)blk\.(\d{1,9})\.")


@dataclass(frozen=True)
class GgufHeader:
    """The fields of a GGUF header that decide how the file is read.

    Attributes:
        values: Numbers, booleans and strings, by key; for arrays their number of items.
        tensors: The dimensions of each tensor, fastest-changing first.
    """

    values: Mapping[str, object]
    tensors: Mapping[str, tuple[int, ...]]

    @property
    def architecture(self) -> str:
        """Returns the architecture's name in llama.cpp."""
        return str(self.values["general.architecture"])

    @property
    def elements(self) -> int:
        """Returns the number of elements of all tensors together."""
        return sum(map(prod, self.tensors.values()))


def read_header(path: Path) -> GgufHeader:
    """Reads and checks the header of a GGUF file.

    Args:
        path: The file.

    Raises:
        ModelFileError: It is not a GGUF, is cut off, or contradicts itself or the format.

    Guarantees:
        Memory and time are bounded by the file's size, and so is the number of tensors' elements.
    """
    try:
        with open_file(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Cursor(data).header()
    except OSError as error:
        why = error.strerror or "it does not exist"
        raise ModelFileError(f"model.base: {path} cannot be read ({why})") from error
    except (ValueError, struct.error) as error:
        why = "it ends too early" if isinstance(error, struct.error) else str(error)
        raise ModelFileError(
            f"model.base: {path} is not a sound GGUF file ({one_line(why, 200)}); get "
            "it again, and compare its SHA-256 with the publisher's"
        ) from error


class _Cursor:
    """Reads one value after another; raises ValueError or struct.error if one is not valid."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    def header(self) -> GgufHeader:
        if self._data[:4] != _MAGIC:
            raise ValueError("it does not begin with GGUF")
        self._at = 4
        version = self._number("<I")
        if version not in _VERSIONS:
            raise ValueError(f"it is of version {version}; only versions 2 and 3 are read")
        tensor_count, value_count = self._number("<Q"), self._number("<Q")
        _at_most("tensors", tensor_count, MOST_TENSORS)
        _at_most("values", value_count, MOST_VALUES)
        values: dict[str, object] = {}
        for _ in range(value_count):
            key = self._text(MOST_KEY)
            if key in values:
                raise ValueError(f"duplicate key {key!r}")
            values[key] = self._value(self._number("<I"))
        if not isinstance(values.get("general.architecture"), str):
            raise ValueError("it names no architecture")
        tensors = self._tensors(tensor_count, values.get("general.alignment", 32))
        _check_sizes(values, tensors)
        return GgufHeader(values, tensors)

    def _number(self, form: str) -> int:
        (found,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return int(found)

    def _skip(self, count: int) -> None:
        if count > len(self._data) - self._at:
            raise ValueError(f"it ends before the next {count} bytes that it announces")
        self._at += count

    def _text(self, most: int) -> str:
        size = self._number("<Q")
        _at_most("bytes of a string", size, most)
        start = self._at
        self._skip(size)
        return self._data[start : self._at].decode("utf-8")

    def _value(self, kind: int) -> object:
        if kind == _STRING:
            return self._text(MOST_KEPT)
        if kind == _ARRAY:
            return self._array()
        if kind not in _FIXED:
            raise ValueError(f"a value of type {kind}, which the format does not have")
        (found,) = struct.unpack_from(_FIXED[kind], self._data, self._at)
        self._at += struct.calcsize(_FIXED[kind])
        return found

    def _array(self) -> int:
        kind, count = self._number("<I"), self._number("<Q")
        _at_most("items of a list", count, MOST_ITEMS)
        if kind in _FIXED:
            self._skip(count * struct.calcsize(_FIXED[kind]))
        elif kind == _STRING:
            for _ in range(count):
                self._skip(self._number("<Q"))
        else:
            raise ValueError(f"a list of type {kind}, which is not supported")
        return count

    def _tensors(self, count: int, alignment: object) -> dict[str, tuple[int, ...]]:
        if not isinstance(alignment, int) or alignment not in {2**k for k in range(3, 17)}:
            raise ValueError("general.alignment is not a power of two from 8 to 65536")
        tensors: dict[str, tuple[int, ...]] = {}
        places: list[tuple[int, int]] = []
        for _ in range(count):
            name = self._text(MOST_TENSOR_NAME)
            dimensions = self._number("<I")
            if name in tensors or not 1 <= dimensions <= MOST_DIMENSIONS:
                raise ValueError(f"tensor {name!r} is duplicate, or has {dimensions} dimensions")
            shape = tuple(self._number("<Q") for _ in range(dimensions))
            kind, offset = self._number("<I"), self._number("<Q")
            tensors[name] = shape
            places.append((offset, offset + _bytes_of(name, shape, kind)))
        start = -(-self._at // alignment) * alignment
        places.sort()
        if places and start + places[-1][1] > len(self._data):
            raise ValueError("its tensors extend beyond the end of the file")
        if any(one[1] > two[0] for one, two in itertools.pairwise(places)):
            raise ValueError("two tensors share bytes")
        return tensors


def _bytes_of(name: str, shape: Sequence[int], kind: int) -> int:
    from gguf.constants import GGML_QUANT_SIZES

    sizes = {known.value: size for known, size in GGML_QUANT_SIZES.items()}
    if kind not in sizes or min(shape) < 1:
        raise ValueError(f"tensor {name!r} is empty, or of unknown type {kind}")
    block, size = sizes[kind]
    if shape[0] % block:
        raise ValueError(f"tensor {name!r} has rows of {shape[0]}, not a multiple of {block}")
    return prod(shape) // block * size


def _check_sizes(values: Mapping[str, object], tensors: Mapping[str, tuple[int, ...]]) -> None:
    """Refuses a header whose sizes differ from those of the tensors."""
    prefix = f"{values['general.architecture']}."
    for key, value in values.items():
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if key.startswith(prefix) and is_number and abs(int(str(value))) > MOST_SIZE:
            raise ValueError(f"{key} is {value}, but at most {MOST_SIZE} is allowed")
    found = (match for name in tensors if (match := _LAYER.search(name)))
    layers = max((int(match[1]) + 1 for match in found), default=0)
    said = values.get(f"{prefix}block_count", layers)
    if said != layers:
        raise ValueError(f"it has tensors of {layers} layers, but states {said}")


def _at_most(what: str, count: int, most: int) -> None:
    if count > most:
        raise ValueError(f"{count} {what}, but at most {most} are allowed")
