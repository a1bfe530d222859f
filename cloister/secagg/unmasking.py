"""Computes the sum of a round's masked updates at the coordinator, or nothing.

Σ_{i ∈ U} x_i = Σ_{i ∈ U} (y_i − PRG(b_i)) − Σ_{i ∈ U, j ∉ U} ± PRG(s_ij)   mod 2^bits
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cloister.errors import AdapterFormatError, QuorumError
from cloister.secagg.epoch_terms import EpochTerms
from cloister.secagg.keystream import mask, word
from cloister.secagg.messages import MaskedUpdate, Revealed
from cloister.secagg.participant import pair_mask
from cloister.secagg.shamir import combine


def unmasked_sum(
    terms: EpochTerms,
    number: int,
    updates: Mapping[str, MaskedUpdate],
    revealed: Mapping[str, Revealed],
) -> NDArray[np.int64]:
    """Computes the sum of the updates that arrived.

    Args:
        terms: The epoch's.
        number: The round.
        updates: By site; at least the threshold.
        revealed: The members' revealed shares for exactly these updates, by site; at least the
            threshold.

    Returns:
        The sum as signed integers [n], from −2^(bits−1) on; exact if it fits. A site that sends
        false shares spoils the sum, as it also can with its update.

    Raises:
        QuorumError: There are too few updates, or too few members revealed: nothing is unmasked.
        AdapterFormatError: Updates of different lengths, or shares that do not fit.
    """
    for what, came in (("sent an update", updates), ("revealed their shares", revealed)):
        if len(came) < terms.threshold:
            raise QuorumError(
                f"round {number}: {len(came)} of {len(terms.members)} sites {what}, "
                f"{terms.threshold} are needed: nothing is unmasked; resume the run when the "
                "others are back"
            )
    sizes = {len(update.values) for update in updates.values()}
    if len(sizes) > 1:
        raise AdapterFormatError(f"round {number}: masked updates of {sorted(sizes)} values")
    count, gone = sizes.pop(), sorted(set(terms.members) - set(updates))
    total = np.zeros(count, dtype=word(terms.bits))
    numbers = {by: terms.number(by) for by in revealed}
    for site, update in updates.items():
        seed = combine({numbers[by]: said.seeds[site] for by, said in revealed.items()})
        total = total + update.values - mask(seed, count, terms.bits)
        for lost in gone:
            shares = {numbers[by]: said.pairs[site, lost] for by, said in revealed.items()}
            total = total - pair_mask(site, lost, combine(shares), count, terms.bits)
    # The words are a sum modulo 2^bits; read as signed words, they are the sum if it fits.
    return total.view(np.dtype(f"<i{terms.bits // 8}")).astype(np.int64)
