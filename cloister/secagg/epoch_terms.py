"""The terms of an epoch of secure aggregation: its members, their keys, and the threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloister.canonical import canonical
from cloister.errors import RefusedError
from cloister.privacy.sharing import Sharing


@dataclass(frozen=True, kw_only=True)
class EpochTerms:
    """The public facts on which all members of an epoch agree.

    Attributes:
        study: Digest of the recipe.
        epoch: From 1; a new epoch begins when a member has lost its keys, for example in a restart.
        members: Public key of each member's ledger, by site, hex. They may be fewer than the
            study's sites; then fewer may be missing, and the threshold stays the same.
        sharing: How the study's noise is shared.

    Raises:
        RefusedError: There are fewer members than a round needs, or more than the study has.
    """

    study: str
    epoch: int
    members: Mapping[str, str]
    sharing: Sharing

    def __post_init__(self) -> None:
        size, sharing = len(self.members), self.sharing
        if not sharing.threshold <= size <= sharing.sites:
            raise RefusedError(
                f"secure aggregation: the epoch has {size} sites; from {sharing.threshold} to "
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
            RefusedError: The site is not a member.
        """
        if site not in self.members:
            raise RefusedError(f"{site!r} is not a member of this epoch")
        return self.sites.index(site) + 1

    def context(self, *what: object) -> bytes:
        """Returns the bytes that bind a key, a signature or a sealed share to its one use."""
        return b"cloister secagg\n" + canonical([self.study, self.epoch, list(self.sites), *what])
