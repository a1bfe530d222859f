"""Finds exact and near duplicates among texts; keeps 8 or 264 bytes of each, and no text.

Near duplicates are texts whose sets of character shingles have an estimated Jaccard similarity of
at least `NEAR` (MinHash; Broder 1997). Signatures are cut into bands; texts that agree in a whole
band are compared (locality-sensitive hashing). All steps sort arrays, so the time grows about
linearly with the number of texts.
"""

from __future__ import annotations

import hashlib
import itertools
import unicodedata
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np

# Values of a signature, as 16 bands of 4: two texts of similarity 0.8 agree in at least one band
# with probability 1 - (1 - 0.8⁴)¹⁶ = 0.9998, two of 0.4 with 0.34. The estimate's standard error at
# 0.8 is √(0.8·0.2/64) = 0.05.
VALUES, BANDS = 64, 16
NEAR = 0.8
# Characters of a shingle: more than a Chinese word, which has two, and about one Latin word.
SHINGLE = 3
# Characters of a text that are compared: computing a signature needs 256 bytes for each of them.
MOST_CHARACTERS = 20_000
# Pairs of signatures that are compared at once: 34 MB of copies.
TOGETHER = 65_536


class Fingerprints:
    """Fingerprints of texts, in the order in which they were added.

    Args:
        near: Whether to look for near duplicates too, which needs a signature for each text.
    """

    def __init__(self, *, near: bool) -> None:
        self._near = near
        self._hashes = array("Q")
        self._signatures = array("I")
        self._minhash: Any = None

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, text: str) -> None:
        """Adds one text to the search for near duplicates."""
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self._hashes.append(int.from_bytes(digest, "little"))
        if self._near:
            self._signatures.frombytes(self._signature(text).tobytes())

    def exact(self) -> Any:
        """Returns, for each text, the index of the first equal one: an int64 array, shape (n,).

        Among a million texts, two different ones share their 8 bytes with probability 3·10⁻⁸.
        """
        hashes = np.frombuffer(self._hashes, dtype=np.uint64)
        _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        return first[inverse].astype(np.int64)

    def near(self) -> Any:
        """Returns, for each text, the index of the first text of its group: an int64 array, shape
        (n,). A group has equal and near texts, and texts that are near to one of these."""
        exact = self.exact()
        if not self._near or not len(exact):
            return exact
        signatures = np.frombuffer(self._signatures, dtype=np.uint32).reshape(-1, VALUES)
        distinct = np.flatnonzero(exact == np.arange(len(exact)))
        groups = _Groups(len(exact))
        joined = True
        while joined:  # until comparing the groups' first texts finds no new pair
            joined = False
            for one, other in _pairs(signatures, distinct):
                joined = True
                groups.join(one, other)
            distinct = np.array([i for i in distinct if groups.first(int(i)) == i], dtype=np.int64)
        return np.array([groups.first(int(i)) for i in exact], dtype=np.int64)

    def _signature(self, text: str) -> Any:
        if self._minhash is None:
            from datasketch import MinHash

            self._minhash = MinHash(num_perm=VALUES, seed=1, hashfunc=int, scheme="affine32")
        self._minhash.clear()
        self._minhash.update_batch(_shingles(text))
        return self._minhash.hashvalues.astype(np.uint32)


def _shingles(text: str) -> list[int]:
    """Returns 32-bit hashes of a text's shingles, after folding case, width and blanks."""
    plain = unicodedata.normalize("NFKC", text[:MOST_CHARACTERS]).casefold()
    plain = " ".join(plain.split()).ljust(SHINGLE)
    codes = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    hashes = np.zeros(len(codes) - SHINGLE + 1, dtype=np.uint32)
    for place in range(SHINGLE):  # a polynomial in a large odd number, modulo 2³²
        hashes = hashes * np.uint32(0x9E3779B1) + codes[place : place + len(hashes)]
    found: list[int] = np.unique(hashes).tolist()
    return found


def _pairs(signatures: Any, texts: Any) -> Iterator[tuple[int, int]]:
    """Yields pairs of near texts, enough to join every group.

    In a band's bucket each text is compared with the one before it and with the first.

    Args:
        signatures: Of all texts, uint32 [n, VALUES].
        texts: Indexes of those that are compared, int64, ascending.
    """
    width = VALUES // BANDS
    for band in range(BANDS):
        keys = np.zeros(len(texts), dtype=np.uint64)
        for column in range(band * width, (band + 1) * width):
            keys = keys * np.uint64(0x9E3779B97F4A7C15) + signatures[texts, column]
        order = np.argsort(keys, kind="stable")
        same = keys[order][1:] == keys[order][:-1]
        starts = np.concatenate(([True], ~same))
        first = order[np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))]
        others = order[1:][same]
        for before in (order[:-1][same], first[1:][same]):
            for start in range(0, len(others), TOGETHER):
                one, other = (
                    texts[places[start : start + TOGETHER]] for places in (before, others)
                )
                similar = (signatures[one] == signatures[other]).mean(axis=1) >= NEAR
                yield from zip(one[similar].tolist(), other[similar].tolist(), strict=True)


class _Groups:
    """Disjoint groups of indexes (union-find); the smallest index names a group."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def first(self, index: int) -> int:
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index

    def join(self, one: int, other: int) -> None:
        small, large = sorted((self.first(one), self.first(other)))
        self._parent[large] = small


def copies(first: Any) -> int:
    """Returns how many texts are copies of an earlier one."""
    return int((first != np.arange(len(first))).sum())


def shared(first: Any, parts: Any, names: list[str]) -> list[tuple[str, str, int]]:
    """Returns, for each two parts, how many texts of the second are also in the first.

    Args:
        first: The array that `exact` or `near` returned.
        parts: Each text's part, as its index in `names`; integers, shape (n,).
        names: Names of the parts.
    """
    found = []
    for one, other in itertools.combinations(range(len(names)), 2):
        common = np.isin(first[parts == other], first[parts == one])
        found.append((names[one], names[other], int(common.sum())))
    return found
