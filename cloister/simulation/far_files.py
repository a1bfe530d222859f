"""Ledgers and kept adapters of sites that train on another machine: they stay with the run.

A site whose worker is on another machine has no file there. What it would write goes to the run's
own process, which alone writes the ledger and answers when the entry is on its disk:

    worker  reserve ─────▶  run   the charge is written and synced
    worker  draws, trains ◀─ run  the right to release
    worker  release ─────▶  run   the bytes are written and synced, before they count as sent

So the order of charge, draw and release is that of one process. If the worker's machine fails after
the charge, the round stays spent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from cloister.client.personal import PersonalAdapter
from cloister.errors import CloisterError
from cloister.ledger.charge import Charge, Released
from cloister.ledger.ledger import Ledger
from cloister.ledger.reservation import Reservation
from cloister.simulation.open_ledgers import SiteFiles

Part = Literal["ledger", "public key", "personal", "optimizer"]

# What a site's code asks of its ledger and of what it keeps (`cloister.client`).
_VALUES = frozenset({"budget", "head", "person", "promise", "public_key", "unit"})
_METHODS: dict[Part, frozenset[str]] = {
    "ledger": frozenset(
        {
            "certificate",
            "check",
            "has_charged",
            "holds",
            "refresh",
            "release_of",
            "released_rounds",
            "reserve",
            "sign",
            "write_release",
        }
    ),
    "personal": frozenset({"before", "save"}),
    "optimizer": frozenset({"before", "save"}),
}


@dataclass(frozen=True)
class FarCall:
    """What a worker on another machine asks of a file of one of its sites.

    Attributes:
        site: The site's name.
        part: Which file.
        method: The method's or property's name.
        arguments: Its arguments.
        named: Its arguments by name.
    """

    site: str
    part: Part
    method: str
    arguments: tuple[Any, ...] = ()
    named: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class FarAnswer:
    """The answer to a `FarCall`.

    Attributes:
        value: What the method returned.
        error: What it raised instead; None: nothing.
    """

    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True)
class _Reserved:
    """A reservation on its way to the worker."""

    seq: int
    time: str | None


@dataclass(frozen=True)
class FarFiles:
    """A worker's side: `SiteFiles` of which every call goes to the run's own process.

    Attributes:
        ask: Sends a call and waits for the value; raises the error that the call raised there.
    """

    ask: Callable[[FarCall], Any]

    def __call__(self, path: Path) -> Ledger:
        """Returns a ledger with all entries that its file has now."""
        ledger = _FarLedger(_site(path), self.ask)
        ledger.refresh()
        return cast(Ledger, ledger)

    def public_key(self, path: Path) -> str:
        """Returns the public key of a ledger."""
        return str(self.ask(FarCall(_site(path), "public key", "")))

    def personal(self, path: Path, study: str) -> PersonalAdapter:
        """Returns what stores a site's own factors; the run's process knows its study."""
        return cast(PersonalAdapter, _Far(_site(path), "personal", self.ask))

    def optimizer(self, path: Path, study: str) -> PersonalAdapter:
        """Returns what stores a site's optimizer memory; the run's process knows its study."""
        return cast(PersonalAdapter, _Far(_site(path), "optimizer", self.ask))


class _Far:
    """An object of the run's process, by the methods that `_METHODS` names."""

    def __init__(self, site: str, part: Part, ask: Callable[[FarCall], Any]) -> None:
        self._site, self._part, self._ask = site, part, ask

    def __getattr__(self, name: str) -> Any:
        if name not in _METHODS[self._part]:
            raise AttributeError(f"a {self._part} on another machine has no {name!r}")

        def call(*arguments: Any, **named: Any) -> Any:
            given = tuple(sorted(named.items()))
            return self._ask(FarCall(self._site, self._part, name, arguments, given))

        return call


class _FarLedger(_Far):
    """A ledger in the run's process."""

    def __init__(self, site: str, ask: Callable[[FarCall], Any]) -> None:
        super().__init__(site, "ledger", ask)

    def __getattr__(self, name: str) -> Any:
        if name in _VALUES:
            return self._ask(FarCall(self._site, "ledger", name))
        return super().__getattr__(name)

    def reserve(self, charge: Charge) -> Reservation | Released:
        """Charges a round; see `Ledger.reserve`."""
        found = self._ask(FarCall(self._site, "ledger", "reserve", (charge,)))
        if isinstance(found, _Reserved):
            return Reservation(cast(Ledger, self), found.seq, found.time)
        return cast(Released, found)


class KeptHere:
    """The run's side: carries out what workers on other machines ask.

    Args:
        folder: The folder of the ledgers.
        study: Digest of the recipe.
        names: The study's sites.
        files: Opens the ledgers and what stands beside them.
    """

    def __init__(self, folder: Path, study: str, names: Collection[str], files: SiteFiles) -> None:
        self._folder, self._study, self._names = folder, study, frozenset(names)
        self._files = files

    def answer(self, call: FarCall) -> FarAnswer:
        """Carries out a call; what it raises is part of the answer.

        Guarantees:
            Only files of the study's sites are used, by the methods that a site needs. When the
            answer to `reserve` is returned, the charge is on this machine's disk.
        """
        try:
            return FarAnswer(self._value(call))
        except Exception as error:
            return FarAnswer(error=error)

    def _value(self, call: FarCall) -> Any:
        if call.site not in self._names:
            raise CloisterError(f"{call.site!r} is not a site of this study")
        path = self._folder / f"{call.site}.ledger"
        if call.part == "public key":
            return self._files.public_key(path)
        if call.part == "ledger" and call.method in _VALUES:
            return getattr(self._files(path), call.method)
        if call.method not in _METHODS[call.part]:
            raise CloisterError(f"a site asks nothing named {call.method!r} of its {call.part}")
        place: Any = (
            self._files(path)
            if call.part == "ledger"
            else self._files.personal(path, self._study)
            if call.part == "personal"
            else self._files.optimizer(path, self._study)
        )
        value = getattr(place, call.method)(*call.arguments, **dict(call.named))
        return _Reserved(*value.place) if isinstance(value, Reservation) else value


def _site(path: Path) -> str:
    return path.name.removesuffix(".ledger")
