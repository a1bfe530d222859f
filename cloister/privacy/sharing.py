"""How many sites share a sum's noise, and how many of them may fail or collude.

Math:
    Of K sites, m may be missing in a round and c may work with the coordinator. A round counts
    from T = K − m sites on, so at least h = K − m − c honest ones are in its sum, and each adds
    noise of σ / √h. T sites must sign the one set of sites whose sum is unmasked, and T is the
    threshold of the shares. Two sets cannot both get T signatures: the K − c honest sites sign one
    of them, colluding ones both, so it takes 2 T ≤ (K − c) + 2 c, which K > 2 m + c rules out
    (Bonawitz et al. 2017, doi:10.1145/3133956.3133982, section 6).
"""

from __future__ import annotations

from dataclasses import dataclass

from cloister.errors import RefusedError

# With two sites each finds the other's update by subtracting its own from the sum.
FEWEST = 3


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """The public constants of a secure sum.

    Attributes:
        sites: K, sites of the study.
        missing: m, most sites whose update may be missing in a round.
        colluding: c, most sites that may work with the coordinator.
        bits: Bits of a value in a message, 16 or 32; sums are modulo 2^bits.

    Raises:
        RefusedError: There are too few sites for this number of missing and colluding ones.
    """

    sites: int
    missing: int
    colluding: int
    bits: int = 32

    def __post_init__(self) -> None:
        needed = 2 * self.missing + self.colluding
        if self.missing < 0 or self.colluding < 0 or self.bits not in (16, 32):
            raise RefusedError(
                f"secure aggregation: {self.missing} missing, {self.colluding} colluding, "
                f"{self.bits} bits; both counts are 0 or more, and bits are 16 or 32"
            )
        if self.sites < FEWEST or self.sites <= needed:
            raise RefusedError(
                f"secure aggregation among {self.sites} sites of which {self.missing} may be "
                f"missing and {self.colluding} may collude: at least {FEWEST} sites are needed, "
                f"and more than 2 · missing + colluding = {needed}"
            )

    @property
    def threshold(self) -> int:
        """T = K − m: the fewest updates of a round, signatures of their set, shares of a secret."""
        return self.sites - self.missing

    @property
    def honest(self) -> int:
        """The fewest honest sites whose noise is in a valid sum: h = T − c."""
        return self.threshold - self.colluding
