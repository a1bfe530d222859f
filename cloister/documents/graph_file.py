"""Checks every number in a graph's file before usearch reads it.

usearch uses the numbers of the file as memory positions without checking them. A position beyond
the end would crash the process or return arbitrary memory. The layout is that of usearch 2 (its
`index_dense.hpp` and `index.hpp`), little-endian:

    uint32 K, uint32 bytes of a vector; K vectors
    64 bytes: "usearch", version, kinds of metric, number, key and place; uint64 K, deleted, H
    uint64 K, links of a node, links at level 0, highest level, place of the entry
    int16 level of each node
    for each node: uint64 key, int16 level, and for each level uint32 count and space for the
    largest number of links, uint32 each, of which the first `count` are used

Shapes: K vectors, H coordinates.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloister.documents.encoder import Vectors

# Metric "ip", numbers float32, keys uint64, places uint32: `index_plugins.hpp`.
_KINDS = b"i\x0b\x0e\x0f"
_MAGIC, _HEAD, _FACTS = b"usearch", 64, 40
# Bytes of a node before its links: its key and its level.
_NODE = 10
# Nodes that are checked together, which takes 3 MB.
_BLOCK = 16384

Places = NDArray[np.int64]


def check_graph_file(path: Path, vectors: Vectors, links: int) -> None:
    """Refuses a file that is not a whole graph of these vectors.

    Args:
        path: The file.
        vectors: float32 [K, H].
        links: Most links of a node at each level above 0; at level 0 it has twice as many.

    Raises:
        ValueError: A number in it is invalid.
        OSError: It cannot be read.

    Guarantees:
        usearch reads only bytes inside of an accepted file: each link leads to a node that exists
        at the link's level.
    """
    count, width = vectors.shape
    start = 8 + 4 * count * width
    after = start + _HEAD + _FACTS + 2 * count
    if path.stat().st_size < after:
        raise _invalid(path, "is too short")
    content = np.memmap(path, np.uint8, mode="r")
    if content[:8].tobytes() != struct.pack("<II", count, 4 * width):
        raise _invalid(path, f"is not of {count} vectors of {width}")
    if not np.array_equal(content[8:start].view("<u4"), vectors.astype("<f4").view("<u4").ravel()):
        raise _invalid(path, "has other vectors")
    head = content[start : start + _HEAD].tobytes()
    if not head.startswith(_MAGIC) or head[13:17] != _KINDS:
        raise _invalid(path, "has numbers of an unexpected type")
    if head[17:41] != struct.pack("<QQQ", count, 0, width):
        raise _invalid(path, "has another head")
    facts = struct.unpack("<QQQQQ", content[start + _HEAD : start + _HEAD + _FACTS].tobytes())
    *sizes, highest, entry = facts
    levels = content[after - 2 * count : after].view("<i2").astype(np.int64)
    if sizes != [count, links, 2 * links]:
        raise _invalid(path, "has another number of links")
    if entry >= count or levels.min() < 0 or not highest == levels.max() == levels[entry]:
        raise _invalid(path, "has levels that do not fit together")
    bytes_each = _NODE + 4 * (1 + 2 * links) + 4 * (1 + links) * levels
    places = after + np.cumsum(bytes_each) - bytes_each
    if len(content) != after + bytes_each.sum():
        raise _invalid(path, "has another length")
    _check_nodes(path, content, places, levels)
    _check_links(path, content, places + _NODE, levels, 0, 2 * links)
    first = places + _NODE + 4 * (1 + 2 * links)
    for level in range(1, int(highest) + 1):
        here = levels >= level
        own = first[here] + 4 * (1 + links) * (level - 1)
        _check_links(path, content, own, levels, level, links)


def _check_nodes(path: Path, content: Any, places: Places, levels: Places) -> None:
    keys = [
        _numbers(content, places[first : first + _BLOCK], "<u8", 1).ravel()
        for first in range(0, len(places), _BLOCK)
    ]
    if not np.array_equal(np.sort(np.concatenate(keys)), np.arange(len(places), dtype=np.uint64)):
        raise _invalid(path, "has other keys than the vectors' places")
    read_levels = np.concatenate(
        [
            _numbers(content, places[first : first + _BLOCK] + 8, "<i2", 1).ravel()
            for first in range(0, len(places), _BLOCK)
        ]
    )
    if not np.array_equal(read_levels, levels):
        raise _invalid(path, "has levels that do not fit together")


def _check_links(
    path: Path, content: Any, places: Places, levels: Places, level: int, most: int
) -> None:
    """Checks the lists of links at one level, given their positions in the file."""
    for first in range(0, len(places), _BLOCK):
        lists = _numbers(content, places[first : first + _BLOCK], "<u4", 1 + most)
        counts, linked = lists[:, :1], lists[:, 1:]
        used = linked[np.arange(most) < counts]
        if (counts > most).any() or (used >= len(levels)).any() or (levels[used] < level).any():
            raise _invalid(path, "has a link to a node that does not exist")


def _numbers(content: Any, places: Places, kind: str, many: int) -> Any:
    """Reads `many` numbers at each position of the file, [len(places), many]."""
    size = np.dtype(kind).itemsize * many
    return np.ascontiguousarray(content[places[:, None] + np.arange(size)]).view(kind)


def _invalid(path: Path, what: str) -> ValueError:
    return ValueError(f"{path.name} {what}")
