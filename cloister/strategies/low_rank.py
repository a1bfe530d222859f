"""Arithmetic of low-rank matrices that stay factored and are never multiplied out.

A product is kept as its factors, left [m, k] and right [k, n], in float64. A sum of
products is one product of stacked factors: Σ B_i A_i = [B_1 … B_K] [A_1; …; A_K].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cloister.adapter.factor_pairs import Pair
from cloister.adapter.tensors import Adapter, Array

Matrix = NDArray[np.float64]


class Product(NamedTuple):
    """A low-rank matrix, kept as the product left · right.

    Attributes:
        left: [m, k].
        right: [k, n].
    """

    left: Matrix
    right: Matrix

    def scale(self, factor: float) -> Product:
        """Returns the product times a number."""
        return Product(self.left * factor, self.right)

    def norm(self) -> float:
        """Returns the Frobenius norm of the product.

        With left = Q₁T₁ and rightᵀ = Q₂T₂ it is ‖T₁T₂ᵀ‖. After a cancellation its error is about
        1e-16 of the terms; a sum of squares would give 1e-8.
        """
        left, right = np.linalg.qr(self.left)[1], np.linalg.qr(self.right.T)[1]
        return float(np.linalg.norm(left @ right.T))

    def truncated(self, rank: int) -> Product:
        """The nearest product of a rank (Eckart & Young 1936), zero-padded to that rank.

        Returns:
            U√Σ [m, rank] and √ΣVᵀ [rank, n], largest singular values first.
        """
        left, singular, right = self.svd()
        root = np.sqrt(singular[:rank])
        padding = rank - len(root)
        return Product(
            np.pad(left[:, :rank] * root, ((0, 0), (0, padding))),
            np.pad(root[:, None] * right[:rank], ((0, padding), (0, 0))),
        )

    def svd(self) -> tuple[Matrix, Matrix, Matrix]:
        """U [m, k'], Σ [k'] and Vᵀ [k', n], with k' the smallest of m, k and n."""
        basis_left, core_left = np.linalg.qr(self.left)
        basis_right, core_right = np.linalg.qr(self.right.T)
        turned_left, singular, turned_right = np.linalg.svd(
            core_left @ core_right.T, full_matrices=False
        )
        return basis_left @ turned_left, singular, turned_right @ basis_right.T


def total(products: Iterable[Product]) -> Product:
    """The sum of products, as one product of stacked factors."""
    parts = list(products)
    return Product(
        np.concatenate([part.left for part in parts], axis=1),
        np.concatenate([part.right for part in parts], axis=0),
    )


def product_of(pair: Pair, *tensors: Mapping[str, Array]) -> Product:
    """A pair's product; if several mappings have a factor, the last one counts.

    Raises:
        KeyError: No mapping has the factor.
    """
    known = {name: part[name] for part in tensors for name in pair if name in part}
    return Product(*(known[name].astype(np.float64) for name in pair))


def tensors_of(pair: Pair, product: Product) -> Adapter:
    """A product's factors under a pair's names, in float32."""
    return Adapter(dict(zip(pair, product, strict=True)))


def mean_product(
    pair: Pair,
    before: Mapping[str, Array],
    updates: Mapping[str, Adapter],
    weights: Mapping[str, float],
) -> Product:
    """Σ w_k B_k A_k / Σ w_k over the sites' factors after their updates, of rank K·r.

    Args:
        pair: B and A.
        before: What the sites started from, all factors included.
        updates: By site; a factor that did not travel is unchanged. A factor of lower rank comes
            from a site that took the first columns of B and rows of A.
        weights: By site; a site without one weighs 1.
    """
    whole = sum(weights.get(site, 1.0) for site in updates)
    held = []
    for site, update in sorted(updates.items()):
        moved = {
            name: before[name][tuple(slice(size) for size in update[name].shape)] + update[name]
            for name in pair
            if name in update
        }
        held.append(product_of(pair, before, moved).scale(weights.get(site, 1.0) / whole))
    return total(held)
