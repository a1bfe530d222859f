"""Shrinks the singular values of a noisy matrix whose noise level is known (Gavish & Donoho 2017,
"Optimal Shrinkage of Singular Values", doi:10.1109/TIT.2017.2653801, equation 7).

    Y = X + N,  N of m × n independent entries of deviation s, n ≥ m,  β = m / n,  y = σ_i(Y) / s√n
    η(y) = √((y² − β − 1)² − 4β) / y    from y = 1 + √β on, else 0

N alone has no singular value above s (√n + √m), the edge of Marchenko and Pastur (1967): what is
below it says nothing about X. For X of low rank, η has the least expected squared error of all
rules that change singular values alone, as m and n grow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def shrink_singular_values(matrix: NDArray[np.floating], deviation: float) -> NDArray[np.floating]:
    """Returns the estimate of a matrix without its noise.

    Args:
        matrix: [m, n], any shape.
        deviation: s, of the noise of each entry; 0: there is none.

    Returns:
        [m, n] in float64; without noise the matrix itself.
    """
    if deviation == 0:
        return matrix
    left, singular, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    estimate: NDArray[np.floating] = (left * shrunk(singular, matrix.shape, deviation)) @ right
    return estimate


def shrunk(
    singular: NDArray[np.float64], shape: tuple[int, ...], deviation: float
) -> NDArray[np.float64]:
    """Returns singular values after the shrinkage of the formula above.

    Args:
        singular: [k], not negative.
        shape: Of the matrix.
        deviation: s, above 0.
    """
    unit = deviation * np.sqrt(max(shape))
    ratio = min(shape) / max(shape)
    y = singular / unit
    above = y > 1 + np.sqrt(ratio)
    square = np.square(np.where(above, y, 2.0))
    inside = np.maximum(np.square(square - ratio - 1) - 4 * ratio, 0.0)
    shrunken: NDArray[np.float64] = np.where(above, unit * np.sqrt(inside) / np.sqrt(square), 0.0)
    return shrunken
