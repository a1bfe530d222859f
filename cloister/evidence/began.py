"""States with which finished run's adapter a study began, for its run folder and card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cloister.errors import BadFileError
from cloister.files import open_file
from cloister.json_text import read_json
from cloister.ledger.chain import Head
from cloister.ledger.stated import Basis, Stated
from cloister.privacy import adversaries

# Path of the statement in a run's folder.
BEGAN = Path("start", "began.json")
# Most bytes of it: a site takes about 500, and a study has at most 10,000 (`bounds.MOST_SITES`).
MOST_BYTES = 2**24


@dataclass(frozen=True, kw_only=True)
class FormerSite:
    """The ledger of one site of the finished run, at that run's end.

    Attributes:
        promise: The ε that was promised until then, in that run and in those with which it began.
        head: The last entry of the ledger.
        key: The ledger's public key in hex, which shows whether a site has another ledger; None:
            not known.
        alone: The same ε against all other sites together; None: the promise holds against them
            too, or, where noise was shared, it is not known, as in a file of an earlier version.
    """

    promise: Stated
    head: Head
    key: str | None = None
    alone: Stated | None = None

    @property
    def against_all(self) -> Stated:
        """Returns the promise against all other sites together; ε = ∞ where it is not known."""
        if self.alone is not None:
            return self.alone
        if adversaries.most_colluding(self.promise.adversaries) is None:
            return self.promise
        return replace(self.promise, epsilon=math.inf, adversaries=adversaries.ALL_OTHERS)

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values; ∞ is null."""
        key = {} if self.key is None else {"key": self.key}
        alone = {} if self.alone is None else {"alone": self.alone.to_json()}
        return {"promise": self.promise.to_json(), "head": asdict(self.head), **key, **alone}


@dataclass(frozen=True, kw_only=True)
class Began:
    """The finished run with whose adapter a study began.

    Attributes:
        run: The name of its folder.
        study: The digest of its recipe.
        adapter: SHA-256 of its released adapter in wire format.
        rounds: Its closed rounds.
        sites: The ledgers by site; None: the run has neither ledger nor certificate of the site,
            so its promise is not known.
    """

    run: str
    study: str
    adapter: str
    rounds: int
    sites: Mapping[str, FormerSite | None] = field(default_factory=dict)

    @property
    def promised(self) -> list[float]:
        """Returns the ε promised to each of its sites; ∞ for a site whose promise is not known."""
        return [math.inf if one is None else one.promise.epsilon for one in self.sites.values()]

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values; ∞ is null."""
        return {
            "run": self.run,
            "study": self.study,
            "adapter": self.adapter,
            "rounds": self.rounds,
            "sites": {
                site: None if one is None else one.to_json() for site, one in self.sites.items()
            },
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Began:
        """Reads the values of `to_json`.

        Raises:
            KeyError: A field is missing.
            TypeError: A field is of another type.
            ValueError: A value is invalid.
        """
        return cls(
            run=str(document["run"]),
            study=str(document["study"]),
            adapter=str(document["adapter"]),
            rounds=int(document["rounds"]),
            sites={
                str(site): None
                if one is None
                else FormerSite(
                    promise=Stated.from_json(one["promise"]),
                    head=Head(seq=int(one["head"]["seq"]), hash=str(one["head"]["hash"])),
                    key=None if one.get("key") is None else str(one["key"]),
                    alone=None if one.get("alone") is None else Stated.from_json(one["alone"]),
                )
                for site, one in dict(document["sites"]).items()
            },
        )


def in_one_ledger(former: FormerSite, promise: Stated, key: str | None) -> bool:
    """Returns whether a later promise to a site covers the earlier one.

    Args:
        former: The site's earlier ledger and promise.
        promise: The later promise.
        key: The public key of the ledger that makes the later promise; None: not known.
    """
    same = None in (former.key, key) or former.key == key
    return same and promise.basis is Basis.LIFETIME_BUDGET


def added(former: Stated, promise: Stated) -> Stated:
    """Returns the promise of two ledgers together (Dwork & Roth 2014, theorem 3.16).

    It holds against those against whom both hold.
    """
    return replace(
        promise,
        epsilon=former.epsilon + promise.epsilon,
        delta=former.delta + promise.delta,
        adversaries=adversaries.weaker(former.adversaries, promise.adversaries),
    )


def with_earlier(
    earlier: FormerSite | None, site: FormerSite | None, *, took_part: bool
) -> FormerSite | None:
    """Returns a run's statement about a site that was also in the run with which it began.

    Args:
        earlier: The site's ledger in the earlier run; None: not known.
        site: The site's ledger in this run; None: not known.
        took_part: Whether the site was in this run.
    """
    if not took_part:
        return earlier
    if site is None or (earlier is None and site.promise.basis is not Basis.LIFETIME_BUDGET):
        return None  # one of both is not known, and no ledger covers both
    if earlier is None or earlier.head == site.head:
        return site
    if in_one_ledger(earlier, site.promise, site.key):
        return site
    promise = added(earlier.promise, site.promise)
    alone = replace(
        added(earlier.against_all, site.against_all), adversaries=adversaries.ALL_OTHERS
    )
    is_shared = adversaries.most_colluding(promise.adversaries) is not None
    return replace(site, promise=promise, alone=alone if is_shared else None)


def read_began(folder: Path) -> Began | None:
    """Reads with which finished run a run began; None: it began with a fresh adapter.

    Args:
        folder: The run's folder.

    Raises:
        BadFileError: The file is damaged.
    """
    place = folder / BEGAN
    if not place.exists():
        return None
    try:
        with open_file(place) as file:
            return Began.from_json(read_json(file.read(MOST_BYTES + 1), most_bytes=MOST_BYTES))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadFileError(f"{place}: damaged ({error}); restore it from a backup") from error
