"""Finds exact and near duplicates among texts; keeps 8 or 264 bytes of each, and no text.

Near duplicates are texts whose sets of character shingles have an estimated Jaccard similarity of
at least `NEAR` (MinHash; Broder 1997). Signatures are cut into bands; texts that agree in a whole
band, a bucket, are compared (locality-sensitive hashing), in large buckets not all with all. All
steps sort arrays, so the time grows about linearly with the number of texts.
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
# A text is compared with the first text of its bucket and with this many texts before it: in
# buckets of up to 65 texts these are all pairs. Filled-in forms share bands: of 3,000 generated
# letters of one form, a bucket had 1,817, and comparing only with the first and the previous text
# missed 244 of 1,639 near copies. Each further text costs 16 comparisons of 0.3 µs per text.
REACH = 64


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
        first, places = exact, np.arange(len(exact))
        while True:  # until comparing the groups' first texts finds no new pair
            groups = _joined(signatures, np.flatnonzero(first == places), first)[exact]
            if np.array_equal(groups, first):
                return first
            first = groups

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


def _joined(signatures: Any, texts: Any, first: Any) -> Any:
    """Joins the groups of near texts, one band after another.

    Args:
        signatures: Signatures of all texts, uint32 [n, VALUES].
        texts: Indexes of the texts that are compared, int64, ascending.
        first: For each text the first one of its group, int64 [n].

    Returns:
        The new array of first texts.
    """
    width = VALUES // BANDS
    for band in range(BANDS):
        keys = np.zeros(len(texts), dtype=np.uint64)
        for column in range(band * width, (band + 1) * width):
            keys = keys * np.uint64(0x9E3779B97F4A7C15) + signatures[texts, column]
        order = np.argsort(keys, kind="stable")
        near = [
            (one[similar], other[similar])
            for one, other in _compared(keys[order], texts[order], first)
            if (similar := (signatures[one] == signatures[other]).mean(axis=1) >= NEAR).any()
        ]
        if near:
            ones, others = (np.concatenate(side) for side in zip(*near, strict=True))
            first = _with_pairs(first, ones, others)
    return first


def _compared(keys: Any, texts: Any, first: Any) -> Iterator[tuple[Any, Any]]:
    """Yields pairs of texts that share a bucket but not yet a group, at most `TOGETHER` at once.

    Args:
        keys: The band's values, ascending: texts with equal keys are in one bucket.
        texts: The texts, in the order of `keys`.
        first: For each text the first one of its group.
    """
    begins = np.concatenate(([True], keys[1:] != keys[:-1]))
    begin = np.maximum.accumulate(np.where(begins, np.arange(len(keys)), 0))
    size = int((np.arange(len(keys)) - begin).max(initial=0)) + 1
    for distance in range(1, min(size, REACH + 1)):
        yield from _blocks(
            texts, np.flatnonzero(keys[distance:] == keys[:-distance]), distance, first
        )
    if size > REACH + 1:
        far = np.flatnonzero(np.arange(len(keys)) - begin > REACH)
        yield from _blocks(texts, begin[far], far - begin[far], first)


def _blocks(texts: Any, places: Any, distance: Any, first: Any) -> Iterator[tuple[Any, Any]]:
    ones, others = texts[places], texts[places + distance]
    apart = first[ones] != first[others]
    ones, others = ones[apart], others[apart]
    for start in range(0, len(ones), TOGETHER):
        yield ones[start : start + TOGETHER], others[start : start + TOGETHER]


def _with_pairs(first: Any, ones: Any, others: Any) -> Any:
    """Joins the groups of the texts `ones` and `others`; a group's name is its smallest index."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = len(first)
    edges = coo_array((np.ones(len(ones)), (first[ones], first[others])), shape=(size, size))
    _, group = connected_components(edges, directed=False)
    _, begin, inverse = np.unique(group[first], return_index=True, return_inverse=True)
    return begin[inverse].astype(np.int64)


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
