"""Records that are held out of training for a data set's life, so that an adapter can be scored.

A unit is held out if its keyed hash is below the declared share. So its side is a function of the
unit, the site's key and a public number: in neighbouring data sets all other units are on the same
sides, and ε of the training holds for the whole file. A held-out unit is in no batch at all.

The plan does not change: q stays `expected_batch_size` over the declared `public_records`, which
counts the held-out units too. Each trained unit is in a batch with probability q, as the accountant
assumes, and a held-out one with probability 0. So batches are smaller by the share on average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from cloister.bounds import shortened
from cloister.data.unit_hash import MARKS, mark_of
from cloister.errors import UsageError

PURPOSE = "held-out"
# Fewest declared held-out units: with 30, Wilson's 95 % interval of a share of one half is 0.34
# wide; with fewer a score says little.
FEWEST = 30
# Above it more is held out than trained on.
LARGEST_SHARE = 0.5

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class HeldOut:
    """Which units a data set holds out.

    Attributes:
        key: The site's secret for hashes of units, 32 bytes.
        share: The share of units, above 0 and at most `LARGEST_SHARE`.
    """

    key: bytes
    share: float

    def holds(self, digest: bytes) -> bool:
        """Returns whether the unit of this digest is held out."""
        return mark_of(digest, self.key, PURPOSE) < int(self.share * MARKS)


def sides(
    values: Sequence[Kept], digests: Sequence[bytes], held_out: HeldOut
) -> tuple[list[Kept], list[Kept]]:
    """Splits values into those that are trained on and those that are held out, in their order.

    Args:
        values: Any values.
        digests: The digest of each value's unit.
        held_out: Which units are held out.
    """
    train: list[Kept] = []
    held: list[Kept] = []
    for value, digest in zip(values, digests, strict=True):
        (held if held_out.holds(digest) else train).append(value)
    return train, held


def declared_held_out(public_records: int, share: float) -> int:
    """Returns the declared number of held-out units, from public numbers alone."""
    return round(public_records * share)


def check_share(share: float, public_records: int) -> None:
    """Refuses a share of which nothing could be said.

    Raises:
        UsageError: It is not a share, or too few units are held out by declaration; the message
            begins with the field's name.
    """
    if not 0 < share <= LARGEST_SHARE:
        raise UsageError(
            f"held_out_share: {shortened(share)} given; above 0 and at most {LARGEST_SHARE:g} is "
            "needed; leave the key out to hold out nothing"
        )
    found = declared_held_out(public_records, share)
    if found < FEWEST:
        least = FEWEST / public_records
        remedy = f"raise it to {least:.2g} or more" if least <= LARGEST_SHARE else "leave it out"
        raise UsageError(
            f"held_out_share: {share:g} of the declared {public_records} is {found}; a score of "
            f"fewer than {FEWEST} says little: {remedy}"
        )
