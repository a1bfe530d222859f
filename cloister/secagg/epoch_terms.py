"""The members of an epoch of secure aggregation, which hold keys of each other, and its bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloister.canonical import canonical
from cloister.errors import RefusedError
from cloister.privacy.sharing import Sharing


@dataclass(frozen=True, kw_only=True)
class EpochTerms:
    """What all members of an epoch agree on; public.

    Attributes:
        study: Digest of the recipe.
        epoch: From 1; a new one begins when a member has lost its keys, in a restart.
        members: Public key of each member's ledger, by site, hex; all of the study's sites, or
            what is left of them, which lowers how many more may be missing, and no threshold.
        sharing: The study's.

    Raises:
        RefusedError: They are fewer than close a round, or more than the study has.
    """

    study: str
    epoch: int
    members: Mapping[str, str]
    sharing: Sharing

    def __post_init__(self) -> None:
        size, sharing = len(self.members), self.sharing
        if not sharing.threshold <= size <= sharing.sites:
            raise RefusedError(
                f"secure aggregation: an epoch of {size} sites; from {sharing.threshold} to "
                f"{sharing.sites} are needed"
            )

    @property
    def sites(self) -> tuple[str, ...]:
        """Returns the members' names in the order of their numbers."""
        return tuple(sorted(self.members))

    @property
    def bits(self) -> int:
        """The number of bits of one value on the wire."""
        return self.sharing.bits

    @property
    def threshold(self) -> int:
        """The fewest updates of a round, signatures of their set, and shares of a secret (T)."""
        return self.sharing.threshold

    def number(self, site: str) -> int:
        """Returns a member's number in the epoch, from 1.

        Raises:
            RefusedError: It is no member.
        """
        if site not in self.members:
            raise RefusedError(f"{site!r} is not of this epoch")
        return self.sites.index(site) + 1

    def context(self, *what: object) -> bytes:
        """Returns the bytes that bind a key, a signature or a sealed share to its one use."""
        return b"cloister secagg\n" + canonical([self.study, self.epoch, list(self.sites), *what])
