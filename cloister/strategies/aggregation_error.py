"""Measures how far a round's model is from the mean of the sites' models.

    ‖Σ w_k B_k A_k + R₀ − B A − R‖ / ‖Σ w_k B_k A_k + R₀‖      Frobenius, over all adapted modules

B_k and A_k are site k's factors after its update, R₀ is the residual beside them (if the method has
one), and B, A, R are the factors and the residual after the round. The mean of factors is not the
mean of products (Sun et al. 2024, arXiv:2403.12313; Singhal et al. 2024, arXiv:2410.09432).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from cloister.adapter.factor_pairs import find_pairs
from cloister.adapter.tensors import Adapter
from cloister.strategies.low_rank import mean_product, product_of, total


def aggregation_error(
    before: Adapter,
    updates: Mapping[str, Adapter],
    after: Adapter,
    weights: Mapping[str, float],
    frozen: Adapter,
) -> float | None:
    """Computes the relative aggregation error of a round.

    Args:
        before: The global adapter that sites started from.
        updates: Their updates that count, by site.
        after: The global adapter that the round ended with.
        weights: Declared weights by site; a site without one weighs 1.
        frozen: Factors that no adapter has because they never change: A, if only B trains.

    Returns:
        The error; 0 if all products are zero. None: no product moved, because only the head
        trained or there was no update.
    """
    pairs = find_pairs(next(iter(updates.values()), ()))
    if not pairs:
        return None
    started, ended = {**frozen, **before}, {**frozen, **after}
    distance = size = 0.0
    for pair in pairs:
        mean = mean_product(pair, started, updates, weights)
        now = product_of(pair, ended)
        if pair.residual.left in before:
            mean = total([mean, product_of(pair.residual, started)])
            now = total([now, product_of(pair.residual, ended)])
        distance += total([mean, now.scale(-1.0)]).norm() ** 2
        size += mean.norm() ** 2
    return math.sqrt(distance / size) if size else math.sqrt(distance)
