"""The chain of a ledger's entries: canonical bytes, hashes and signatures. No disk access.

Each entry is one JSON object with sorted keys and no spaces; its hash is the SHA-256 of these
bytes, which include the previous entry's hash. So the last hash fixes every entry before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.canonical import canonical
from cloister.errors import LedgerError
from cloister.ledger.signing import is_signed

ORIGIN = "0" * 64  # the previous hash in the first entry


@dataclass(frozen=True)
class Head:
    """The end of a chain; a kept head shows later whether the chain was truncated or replaced.

    Attributes:
        seq: Number of the last entry, from 0.
        hash: Its SHA-256 in hex.
    """

    seq: int
    hash: str


@dataclass(frozen=True)
class Entry:
    """One entry as it is stored.

    Attributes:
        body: Canonical JSON.
        signature: Ed25519 by the site's key, of the body.
    """

    body: bytes
    signature: bytes

    @property
    def hash(self) -> str:
        """SHA-256 of the body, in hex."""
        return hashlib.sha256(self.body).hexdigest()

    @property
    def fields(self) -> dict[str, Any]:
        """The entry's statements, by name."""
        fields: dict[str, Any] = json.loads(self.body)
        return fields


def sign(fields: Mapping[str, Any], head: Head | None, key: Ed25519PrivateKey) -> Entry:
    """Signs the entry that follows `head`, or a chain's first entry."""
    place = {"seq": 0, "prev": ORIGIN} if head is None else {"seq": head.seq + 1, "prev": head.hash}
    body = canonical({**fields, **place})
    return Entry(body, key.sign(body))


def check_anchor(entries: Sequence[Entry], head: Head, name: str) -> None:
    """Checks that a chain still has an entry that was its head before.

    Args:
        entries: The whole chain.
        head: Its earlier head.
        name: The ledger's name, for the message.

    Raises:
        LedgerError: It was truncated, rolled back or replaced since.
    """
    check_entry(entries[head.seq] if 0 <= head.seq < len(entries) else None, head, name)


def check_entry(entry: Entry | None, head: Head, name: str) -> None:
    """Checks that the entry at an earlier head's place is that head; see `check_anchor`.

    Args:
        entry: The chain's entry of number `head.seq`; None: it has none.
        head: The earlier head.
        name: The ledger's name, for the message.

    Raises:
        LedgerError: It is another entry, or missing.
    """
    if entry is None or entry.hash != head.hash:
        raise LedgerError(
            f"{name}: entry {head.seq} was seen before and is missing or different now: the ledger "
            "was truncated, rolled back or replaced, and what was spent is unknown; restore the "
            "latest one"
        )


def follow(entries: Iterable[Entry], after: Head | None, public_key: str | None) -> Head | None:
    """Checks that entries continue a chain.

    Args:
        entries: In order.
        after: The head that they follow; None: they begin with a chain's first entry.
        public_key: The key that signed them, in hex; None: signatures are not checked.

    Returns:
        The last entry's head; `after` if there is none.

    Raises:
        LedgerError: An entry is damaged, out of order, or not signed by the key.
    """
    head = after
    for entry in entries:
        seq, previous = (0, ORIGIN) if head is None else (head.seq + 1, head.hash)
        try:
            fields = json.loads(entry.body)
            sound = canonical(fields) == entry.body
            sound = sound and fields["seq"] == seq and fields["prev"] == previous
        except (ValueError, KeyError, TypeError, RecursionError):
            sound = False
        if not sound:
            raise LedgerError(f"entry {seq}: damaged, or not the one that follows entry {seq - 1}")
        if public_key is not None and not is_signed(entry.body, entry.signature, public_key):
            raise LedgerError(f"entry {seq}: not signed by the key {public_key[:12]}…")
        head = Head(seq, entry.hash)
    return head
