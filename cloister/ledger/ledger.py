"""A site's ledger: charges rounds before anything is drawn, never refunds, records releases.

    reserve   written and synced before a round's first batch is drawn; then the round stays spent
    release   written and synced, with the bytes, before they are sent; if they are asked for
              again, the same bytes are sent and nothing more is charged

A data set has one ledger for its lifetime, over all studies and coordinators. Entries are chained
and signed (`chain`), and are stored in one SQLite file (`storage`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloister import __version__
from cloister.canonical import json_number
from cloister.errors import BudgetError, LedgerError
from cloister.ledger.budget import Budget, FirstCharge, fits, terms_for
from cloister.ledger.certificate import certify
from cloister.ledger.chain import Entry, Head, check_entry, follow, sign
from cloister.ledger.charge import Charge, Released
from cloister.ledger.charge_rules import check_again, check_kind, check_moment, check_terms
from cloister.ledger.history import History, ReleasedEntry, Reserved, first_fields, request_of
from cloister.ledger.planned_round import PlannedRound
from cloister.ledger.reservation import Reservation
from cloister.ledger.signing import create_key, load_key, public_hex
from cloister.ledger.stated import Stated, exhausted, promise, spent
from cloister.ledger.storage import LedgerFile, Transaction
from cloister.owner_only import private_folder
from cloister.privacy.accounting import COARSE, epsilon, rdp_epsilon
from cloister.privacy.events import GaussianEvent
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.units import Unit


def now() -> str:
    """The present time for an entry; informative only, no rule uses it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Ledger:
    """A site's ledger, opened for charging.

    Args:
        path: Its SQLite file.
        key: The key's file.
        clock: The time of an entry.
        vfs: SQLite's file layer, for tests; None: the operating system's.

    Raises:
        LedgerError: The ledger or its key is missing or damaged, or the key does not belong to it.
    """

    def __init__(
        self,
        path: Path,
        *,
        key: Path | None = None,
        clock: Callable[[], str] = now,
        vfs: str | None = None,
    ) -> None:
        self._file = LedgerFile(path, vfs)
        self._file.tighten()
        self._key = load_key(key or key_file(path))
        self._clock = clock
        self._history = History()
        self._places: dict[str, int] = {}  # number of each entry by its hash
        first, *later = self._file.entries()
        self._add(first)
        if self._history.public_key != public_hex(self._key):
            other = f"was made with another key than {key or key_file(path)}"
            raise LedgerError(f"{path}: {other}; restore the site's own key")
        follow([first], None, self._history.public_key)
        self._take(later)

    @classmethod
    def create(
        cls,
        path: Path,
        budget: Budget,
        unit: Unit,
        *,
        person: str | None = None,
        key: Path | None = None,
        clock: Callable[[], str] = now,
        vfs: str | None = None,
    ) -> Ledger:
        """Makes a data set's ledger, and its key if there is none yet.

        Args:
            path: Where to make it.
            budget: For the data set's lifetime.
            unit: The unit whose presence every release hides.
            person: The column that identifies persons, if they are the units; None: not recorded,
                as in older ledgers.
            key: The key's file; absent: beside the ledger.
            clock: The time of an entry.
            vfs: SQLite's file layer.

        Raises:
            LedgerError: A ledger exists already, or it cannot be written.
        """
        key = key or key_file(path)
        try:
            if not path.parent.is_dir():  # the rights of an existing folder are left alone
                private_folder(path.parent)
        except OSError as error:
            raise LedgerError(f"{path}: cannot be written ({error}); name another place") from error
        signer = load_key(key) if key.exists() else create_key(key)
        first = {**first_fields(budget, unit, person, public_hex(signer)), "time": clock()}
        LedgerFile(path, vfs).create(sign(first, None, signer))
        return cls(path, key=key, clock=clock, vfs=vfs)

    @property
    def head(self) -> Head:
        """The last entry that this object has seen."""
        return self._history.head

    @property
    def public_key(self) -> str:
        """The site's public key in hex, for checking its signatures."""
        return self._history.public_key

    def sign(self, statement: bytes) -> bytes:
        """Signs a statement; not one that begins with `{`, as entries of the ledger do."""
        if statement.startswith(b"{"):
            raise ValueError("a statement must not look like an entry")
        return self._key.sign(statement)

    def certificate(self, study: str, *, site: str, base: str, adapter: str = "") -> Entry:
        """Signs a study's cost; the bytes are the same as long as the ledger is.

        Args:
            study: Digest of the study's recipe.
            site: The site's name in the study.
            base: SHA-256 of the base model's weights.
            adapter: SHA-256 of the study's adapter; empty where the site has not seen it.

        Raises:
            UsageError: The ledger has no such study.
            LedgerError: The ledger is invalid.
        """
        entries = self._file.entries()
        names = {"site": site, "base": base, "adapter": adapter}
        time = str(entries[-1].fields["time"])
        return certify(entries, study, **names, key=self._key, time=time).certificate

    def check_anchor(self, head: Head) -> None:
        """Checks that this ledger still has an entry that was its head before.

        Raises:
            LedgerError: It was truncated, rolled back or replaced since.
        """
        with self._file.reading() as reader:
            check_entry(reader.find(head.seq), head, str(self._file.path))

    def refresh(self) -> None:
        """Reads the entries that other processes have written since this object read the file.

        Raises:
            LedgerError: The file is invalid, or the last entry that this object has seen is missing
                or different in it.
        """
        with self._file.reading() as reader:
            check_entry(reader.find(self.head.seq), self.head, str(self._file.path))
            self._catch_up(reader)

    def holds(self, digest: str) -> bool:
        """Whether the ledger's file has an entry with this SHA-256; reads the file again.

        Raises:
            LedgerError: The file is invalid.
        """
        with self._file.reading() as reader:
            place = self._places.get(digest)
            if place is not None:
                entry = reader.find(place)
                return entry is not None and entry.hash == digest
            return any(entry.hash == digest for entry in reader.entries(after=-1))

    @property
    def budget(self) -> Budget:
        """The data set's lifetime budget."""
        return self._history.budget

    @property
    def unit(self) -> Unit:
        """The unit whose presence every release hides."""
        return self._history.unit

    @property
    def person(self) -> str | None:
        """The column that identifies persons; None if the first entry does not state it."""
        return self._history.person

    @property
    def steps(self) -> int:
        """The number of noisy steps charged in all: of rounds, private evaluations and votes."""
        return self._history.spent.total_steps

    @property
    def training_steps(self) -> int:
        """The number of charged steps of trained rounds."""
        return self._history.training_steps

    @property
    def evaluations(self) -> int:
        """The number of charged private evaluations."""
        return len(self._history.evaluations)

    def has_charged(
        self, study: str, number: int, kind: ReleaseKind = ReleaseKind.TRAINING
    ) -> bool:
        """Whether a release of a round was charged, by the entries that this object has read."""
        return self._history.reserved(study, number, kind) is not None

    def release_of(
        self, study: str, number: int, kind: ReleaseKind = ReleaseKind.TRAINING
    ) -> ReleasedEntry | None:
        """A round's release, or that of the evaluation after it, by the entries that this object
        has read; None: there is none."""
        reserved = self._history.reserved(study, number, kind)
        return None if reserved is None else self._history.released.get(reserved.seq)

    def released_rounds(self, study: str, plan: Plan) -> tuple[bool, ...]:
        """Whether each charged round of a plan was released, in their order, by the entries that
        this object has read."""
        rows = self._history.rows(study, plan.digest())
        return tuple(seq in self._history.released for seq in rows)

    def check(self, charge: Charge) -> None:
        """Checks whether a study's first round could be charged; charges nothing.

        A study with a charged round passes, because its releases can be sent again without budget.

        Raises:
            RefusedError: The plan's unit differs from the ledger's, or its δ is above the budget's.
            BudgetError: The budget does not cover the round.
        """
        if charge.study not in self._history.studies:
            self._terms(
                charge,
                request_of(charge.plan, is_private=charge.is_private, kind=charge.kind),
            )

    @property
    def promise(self) -> Stated:
        """The promised ε: that of the whole plan if nothing else was ever charged, else the
        budget's; by the entries that this object has read."""
        return promise(self._history)

    @property
    def spent(self) -> Stated:
        """What was spent so far, at the δ that compares with `promise`: an indication."""
        return spent(self._history)

    def reserve(self, charge: Charge) -> Reservation | Released:
        """Charges one round in full, before anything is drawn.

        Returns:
            The right to release; or the same bytes again if this round was released before.

        Raises:
            RoundSpentError: The round was charged, and cut off before its release.
            RefusedError: The round was asked before with another plan or request, the plan's unit
                differs from the ledger's, or its δ is above the budget's.
            BudgetError: The budget does not cover the round; nothing is charged.
            LedgerError: The charge could not be written and synced; then nothing may be drawn.

        Guarantees:
            When a reservation is returned, its charge is on disk. Two processes never get one for
            the same round, nor together more than the budget.
        """
        check_kind(charge)
        with self._file.writing() as transaction:
            self._catch_up(transaction)
            done = len(self._history.rows(charge.study, charge.plan.digest()))
            request = request_of(
                charge.plan, is_private=charge.is_private, before=done, kind=charge.kind
            )
            asked = self._history.reserved(charge.study, charge.round, charge.kind)
            if asked is not None:
                return self._again(asked, charge, transaction)
            check_moment(charge, self._history)
            before = self._history.spent
            fixed = self._terms(charge, request)
            known = request.plan in self._history.plans
            terms: dict[str, Any] = {} if known else {"terms": charge.plan.terms()}
            if before.terms is None and fixed.most_steps is not None:
                terms["most_steps"] = fixed.most_steps
            terms |= {"couples_units": True} if charge.couples_units else {}
            terms |= {"step": done, "units": charge.units} if charge.plan.bands else {}
            if charge.kind is not ReleaseKind.TRAINING:
                terms["release_kind"] = charge.kind.value
            entry = self._append(
                transaction,
                kind="reserve",
                study=charge.study,
                round=charge.round,
                plan=request.plan,
                **terms,
                request=charge.request,
                event=asdict(request.event),
                planned_steps=request.planned_steps,
                order=fixed.order,
                epsilon=self._cumulative(request.event, charge.plan.delta),
                delta=charge.plan.delta,
            )
        self._add(entry)
        return Reservation(self, self.head.seq, str(entry.fields["time"]))

    def _terms(self, charge: Charge, request: PlannedRound) -> FirstCharge:
        """Refuses a charge that may not be made; returns the terms of the first charge."""
        check_terms(charge, self._history, str(self._file.path))
        before, budget = self._history.spent, self._history.budget
        fixed = terms_for(request, before, budget)
        if not fits(request, before, budget, fixed):
            raise BudgetError(exhausted(self._history, str(self._file.path), charge))
        return fixed

    def write_release(self, seq: int, payload: bytes, time: str | None) -> Released:
        """Writes a release; see `Reservation.release`."""
        digest = hashlib.sha256(payload).hexdigest()
        with self._file.writing() as transaction:
            self._catch_up(transaction)
            if not self._history.is_reserved(seq):
                raise LedgerError(f"no reservation {seq} is in this ledger; nothing is released")
            if seq in self._history.released:
                raise LedgerError(f"reservation {seq} was released; it is released once only")
            if not self._history.may_release(seq):
                raise LedgerError(
                    f"reservation {seq} has correlated noise, and a later round of its plan was "
                    "charged since, which counts it as never seen; it is not released"
                )
            entry = self._append(
                transaction,
                payload,
                time,
                kind="release",
                reservation=seq,
                sha256=digest,
                bytes=len(payload),
            )
        self._add(entry)
        return Released(payload, entry.hash)

    def _again(
        self, before: Reserved, charge: Charge, transaction: Transaction
    ) -> Reservation | Released:
        release = self._history.released.get(before.seq)
        check_again(before, charge, is_released=release is not None)
        if release is None:
            return Reservation(self, before.seq)  # ε is ∞ already; the same seed, the same bytes
        payload = transaction.payload(release.seq)
        if hashlib.sha256(payload).hexdigest() != release.sha256:
            raise LedgerError(f"{self._file.path}: the bytes of release {release.seq} changed")
        return Released(payload, release.hash)

    def _append(
        self,
        transaction: Transaction,
        payload: bytes | None = None,
        time: str | None = None,
        **fields: Any,
    ) -> Entry:
        stamped = {**fields, "code": __version__, "time": time or self._clock()}
        entry = sign(stamped, self._history.head, self._key)
        transaction.append(entry, payload)
        return entry

    def _catch_up(self, transaction: Transaction) -> None:
        self._take(list(transaction.entries(after=self._history.head.seq)))

    def _take(self, entries: Sequence[Entry]) -> None:
        """Adds the entries that other processes have written, under the same key."""
        follow(entries, self._history.head, self._history.public_key)
        for entry in entries:
            self._add(entry)

    def _add(self, entry: Entry) -> None:
        self._history.add(entry)
        self._places[self.head.hash] = self.head.seq

    def _cumulative(self, event: GaussianEvent, delta: float) -> dict[str, float | None]:
        events = (*self._history.spent.events, event)
        return {
            "pld": json_number(epsilon(events, delta, COARSE)),
            "rdp": json_number(rdp_epsilon(events, delta)),
        }


def key_file(path: Path) -> Path:
    """The default place of a ledger's key."""
    return path.with_name(path.name + ".key")
