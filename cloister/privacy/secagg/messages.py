"""What travels in a round: a masked update with sealed shares, and revealed shares.

A masked update is laid out as one box of sealed shares for each other member, in order of numbers,
and the values, little-endian. With K members a box has 28 + 33 K bytes: all of them 3.2 kB for 10
members, so a value takes 4.2 bytes from 16,000 values on with 32 bits, and 2.2 with 16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from cloister.errors import AdapterFormatError
from cloister.privacy.secagg.keystream import Words, word
from cloister.privacy.secagg.sealing import sealed_bytes
from cloister.privacy.secagg.terms import Terms


@dataclass(frozen=True)
class MaskedUpdate:
    """What a site sends in a round.

    Attributes:
        values: Uniform modulo 2^bits to who lacks its masks.
        boxes: For each other member, by site: shares of the seed of its own mask, and of those
            of its pairwise masks.
    """

    values: Words
    boxes: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        """As it travels."""
        return b"".join(self.boxes[site] for site in sorted(self.boxes)) + self.values.tobytes()

    @classmethod
    def from_bytes(cls, terms: Terms, site: str, payload: bytes, count: int) -> Self:
        """Reads a member's update of `count` values.

        Raises:
            AdapterFormatError: It has another length.
        """
        peers = [peer for peer in terms.sites if peer != site]
        size = sealed_bytes(len(terms.sites))
        needed = size * len(peers) + count * terms.bits // 8
        if len(payload) != needed:
            raise AdapterFormatError(
                f"{site}: a masked update of {len(payload)} bytes; {count} values take {needed}"
            )
        return cls(
            np.frombuffer(payload, dtype=word(terms.bits), offset=size * len(peers)),
            {peer: payload[size * at : size * (at + 1)] for at, peer in enumerate(peers)},
        )


@dataclass(frozen=True)
class Revealed:
    """Shares that a site reveals so that a sum can be unmasked.

    Attributes:
        seeds: Of the own masks of those whose update is in the sum, by site.
        pairs: Of the masks between one of these and a missing member, by both.
    """

    seeds: Mapping[str, bytes] = field(repr=False)
    pairs: Mapping[tuple[str, str], bytes] = field(repr=False)
