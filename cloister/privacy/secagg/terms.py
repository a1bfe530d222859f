"""Who takes part in an epoch of secure aggregation, and how many of them may fail or collude.

Math:
    Of K sites, m may be missing in a round and c may work with the coordinator. A round counts
    from T = K − m sites on, so at least K − m − c honest ones are in its sum, and each adds noise
    of σ / √(K − m − c). T sites must sign the one set of sites whose sum is unmasked, and T is
    the threshold of the shares. Two sets cannot both get T signatures: the K − c honest sites
    sign one of them, colluding ones both, so it takes 2 T ≤ (K − c) + 2 c, which K > 2 m + c
    rules out (Bonawitz et al. 2017, doi:10.1145/3133956.3133982, section 6).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cloister.errors import RefusedError
from cloister.privacy.chain import canonical

# Below three a site finds the other's update by taking its own from the sum.
FEWEST = 3


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What all members of an epoch agree on; public.

    Attributes:
        study: Digest of the recipe.
        epoch: From 1; a new one begins when a member has lost its keys, in a restart.
        members: Public key of each member's ledger, by site, hex.
        missing: m, most members whose update may be missing in a round.
        colluding: c, most members that may work with the coordinator.
        bits: Of a value on the wire: 16 or 32; sums are modulo 2^bits.
    """

    study: str
    epoch: int
    members: Mapping[str, str]
    missing: int
    colluding: int
    bits: int = 32

    def __post_init__(self) -> None:
        size, needed = len(self.members), 2 * self.missing + self.colluding
        if self.missing < 0 or self.colluding < 0 or self.bits not in (16, 32):
            raise RefusedError(
                f"secure aggregation: {self.missing} missing, {self.colluding} colluding, "
                f"{self.bits} bits; both counts are 0 or more, and bits are 16 or 32"
            )
        if size < FEWEST or size <= needed:
            raise RefusedError(
                f"secure aggregation among {size} sites of which {self.missing} may be missing "
                f"and {self.colluding} may collude: it takes at least {FEWEST} sites, and more "
                f"than 2 · missing + colluding = {needed}"
            )

    @property
    def sites(self) -> tuple[str, ...]:
        """Members in the order of their numbers."""
        return tuple(sorted(self.members))

    @property
    def threshold(self) -> int:
        """T: fewest updates of a round, signatures of their set, and shares of a secret."""
        return len(self.members) - self.missing

    @property
    def honest(self) -> int:
        """Fewest honest sites whose noise is in a sum that counts."""
        return self.threshold - self.colluding

    def share_of(self, noise_multiplier: float) -> float:
        """What each site's own noise multiplier must be for the sum to have this one."""
        return noise_multiplier / math.sqrt(self.honest)

    def number(self, site: str) -> int:
        """A member's number, from 1.

        Raises:
            RefusedError: It is no member.
        """
        if site not in self.members:
            raise RefusedError(f"{site!r} is not of this epoch")
        return self.sites.index(site) + 1

    def context(self, *what: object) -> bytes:
        """Bytes that tie a key, a signature or a sealed share to its one use."""
        return b"cloister secagg\n" + canonical([self.study, self.epoch, list(self.sites), *what])
