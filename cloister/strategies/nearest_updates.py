"""Finds the updates that are nearest to their neighbours, by one product of matrices.

    ‖a − b‖² = ‖a‖² + ‖b‖² − 2 a·b

All products a·b are one Gram matrix, computed piece by piece. Rounding could change which of two
nearly equal scores is smaller, so each distance is bounded from both sides, and only scores whose
bounds overlap at the border are computed again from differences.

Shapes: K sites, d values of an update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cloister.adapter.tensors import Adapter

Matrix = NDArray[np.float64]

# Values of all sites that are multiplied together: 16 MB in float64.
PIECE = 2**21
# A squared distance from differences in float32 is off by at most this part: 2⁻²⁴ for each
# difference, twice in its square, and less for a sum in float64.
FLOAT32 = 2.0**-22
# Rounding of one operation in float64; a sum of d products is off by at most d of them, relative to
# the sum of the products' absolute values, which is at most ‖a‖ ‖b‖.
FLOAT64 = 2.0**-53


def nearest(updates: Mapping[str, Adapter], near: int, count: int) -> list[str]:
    """Returns the sites with the smallest sums of squared distances to their nearest neighbours.

    Args:
        updates: By site, all of the same shapes.
        near: How many neighbours count.
        count: How many sites are returned.

    Raises:
        ValueError: The shapes differ.

    Guarantees:
        The same sites as by `score` of each; of equal scores, the first by name.
    """
    sites = sorted(updates)
    possible = [sites[row] for row in _possible(_bounds(updates, sites), near, count)]
    if len(possible) == count:
        return possible
    return sorted(possible, key=lambda site: score(updates, site, near))[:count]


def score(updates: Mapping[str, Adapter], site: str, near: int) -> float:
    """Returns the sum of squared distances of a site's update to its nearest ones, one by one."""
    others = sorted(
        (updates[site] - update).norm() ** 2 for other, update in updates.items() if other != site
    )
    return sum(others[:near])


def _bounds(updates: Mapping[str, Adapter], sites: Sequence[str]) -> tuple[Matrix, Matrix]:
    """Bounds on what `score` computes of each pair, [K, K] each; ∞ on the diagonal."""
    gram = _gram(updates, sites)
    lengths = np.sqrt(np.diag(gram))
    squares = np.diag(gram)[:, None] + np.diag(gram)[None, :] - 2 * gram
    # Four operations besides the products; norms are below the sum of both lengths.
    size = updates[sites[0]].size
    slack = (size + 4) * FLOAT64 * (lengths[:, None] + lengths[None, :]) ** 2
    low = np.maximum(squares - slack, 0.0) * (1 - FLOAT32)
    high = (squares + slack) * (1 + FLOAT32)
    np.fill_diagonal(low, np.inf)
    np.fill_diagonal(high, np.inf)
    return low, high


def _gram(updates: Mapping[str, Adapter], sites: Sequence[str]) -> Matrix:
    """All inner products of the sites' updates, [K, K]."""
    first = updates[sites[0]]
    for site in sites[1:]:
        updates[site].check_shapes(first.shapes)
    columns = max(PIECE // len(sites), 1)
    gram = np.zeros((len(sites), len(sites)))
    for name, array in first.items():
        flat = [updates[site][name].reshape(-1) for site in sites]
        for start in range(0, array.size, columns):
            part = np.stack([row[start : start + columns] for row in flat]).astype(np.float64)
            gram += part @ part.T
    return gram


def _possible(bounds: tuple[Matrix, Matrix], near: int, count: int) -> list[int]:
    """Rows whose score may be among the smallest ones; all rows if a value is not finite."""
    low, high = (np.sort(bound, axis=1)[:, :near].sum(axis=1) for bound in bounds)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return list(range(len(low)))
    border = np.sort(high)[count - 1]
    return [int(row) for row in np.flatnonzero(low <= border)]
