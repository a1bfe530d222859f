"""The messages of a round: a masked update with sealed shares, and revealed shares.

A masked update is laid out as one box of sealed shares for each other member, in order of numbers,
and the values, little-endian. With K members a box has 28 + 33 K bytes: all of them 3.2 kB for 10
members, so from 20,000 values on a value takes 4.2 bytes with 32 bits and 2.2 with 16, including
signing and revealing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from cloister.errors import AdapterFormatError
from cloister.secagg.epoch_terms import EpochTerms
from cloister.secagg.keystream import Words, word
from cloister.secagg.sealing import sealed_bytes
from cloister.secagg.shamir import SHARE_BYTES


@dataclass(frozen=True)
class MaskedUpdate:
    """The update that a site sends in a round.

    Attributes:
        values: The masked values. Without the masks they look uniform modulo 2^bits.
        boxes: For each other member, by site: shares of the seed of its own mask, and of those
            of its pairwise masks.
    """

    values: Words
    boxes: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        """Encodes the message as bytes for the wire."""
        return b"".join(self.boxes[site] for site in sorted(self.boxes)) + self.values.tobytes()

    @classmethod
    def from_bytes(cls, terms: EpochTerms, site: str, payload: bytes, count: int) -> Self:
        """Reads a member's update of `count` values.

        Raises:
            AdapterFormatError: It has another length.
        """
        peers = [peer for peer in terms.sites if peer != site]
        size = sealed_bytes(len(terms.sites))
        needed = masked_bytes(terms, count)
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
        seeds: Shares of the own mask's seed of each site in the sum, by site.
        pairs: Shares of the seed of each mask between a site in the sum and a missing member, by
            both.
    """

    seeds: Mapping[str, bytes] = field(repr=False)
    pairs: Mapping[tuple[str, str], bytes] = field(repr=False)

    def to_bytes(self) -> bytes:
        """Encodes the shares for the wire: one after another, by site, then by pair."""
        return b"".join(
            [self.seeds[site] for site in sorted(self.seeds)]
            + [self.pairs[pair] for pair in sorted(self.pairs)]
        )

    @classmethod
    def from_bytes(cls, terms: EpochTerms, survivors: Collection[str], payload: bytes) -> Self:
        """Reads the shares that were revealed for a sum over these sites.

        Raises:
            AdapterFormatError: It has another length.
        """
        there = sorted(survivors)
        pairs = [(site, lost) for site in there for lost in sorted(set(terms.members) - set(there))]
        needed = revealed_bytes(terms, len(there))
        if len(payload) != needed:
            raise AdapterFormatError(f"{len(payload)} bytes of shares; {needed} are needed")
        shares = [payload[at : at + SHARE_BYTES] for at in range(0, needed, SHARE_BYTES)]
        return cls(
            dict(zip(there, shares, strict=False)),
            dict(zip(pairs, shares[len(there) :], strict=True)),
        )


def masked_bytes(terms: EpochTerms, values: int) -> int:
    """Returns how many bytes a masked update has."""
    peers = len(terms.sites) - 1
    return sealed_bytes(len(terms.sites)) * peers + values * terms.bits // 8


def revealed_bytes(terms: EpochTerms, survivors: int) -> int:
    """Returns how many bytes a site reveals for a sum over this number of sites."""
    return SHARE_BYTES * survivors * (1 + len(terms.sites) - survivors)
