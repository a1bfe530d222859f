"""A ledger's head in a separate file, signed by the site and by witnesses.

An old copy of a ledger comes with its old head. Only a head that is kept elsewhere, by the
coordinator or the privacy officer, shows that entries are missing. A countersignature shows who saw
the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.canonical import canonical
from cloister.errors import BadFileError, LedgerError
from cloister.files import open_file
from cloister.json_text import read_json
from cloister.ledger.chain import Entry, Head
from cloister.ledger.signing import is_signed, public_hex

# Most bytes of a head's file: an entry with a plan of 10,000 tensors, as JSON inside JSON.
MOST_BYTES = 2**22


@dataclass(frozen=True)
class Anchor:
    """A ledger's head, signed by its site and by witnesses.

    Attributes:
        head: The ledger's head.
        key: The site's public key, in hex.
        entry: The last entry's body as text; its hash is the head's.
        signature: The site's signature of that body, in hex.
        witnesses: Countersignatures of the head, by public key, both in hex.
    """

    head: Head
    key: str
    entry: str
    signature: str
    witnesses: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns the anchor as JSON values, for a file."""
        return {
            "seq": self.head.seq,
            "hash": self.head.hash,
            "key": self.key,
            "entry": self.entry,
            "signature": self.signature,
            "witnesses": [{"key": key, "signature": sign} for key, sign in self.witnesses],
        }


def anchor_of(entry: Entry, key: str) -> Anchor:
    """The anchor of a ledger that ends with `entry`."""
    head = Head(int(entry.fields["seq"]), entry.hash)
    return Anchor(head, key, entry.body.decode(), entry.signature.hex())


def countersign(anchor: Anchor, key: Ed25519PrivateKey) -> Anchor:
    """Adds a witness's signature."""
    signature = key.sign(_witnessed(anchor)).hex()
    return Anchor(
        anchor.head,
        anchor.key,
        anchor.entry,
        anchor.signature,
        (*anchor.witnesses, (public_hex(key), signature)),
    )


def read_anchor(path: Path) -> Anchor:
    """Reads an anchor and checks its signatures.

    Raises:
        BadFileError: The file is not an anchor.
        LedgerError: A signature on it is invalid.
    """
    try:
        with open_file(path) as file:
            stored = read_json(file.read(MOST_BYTES + 1), most_bytes=MOST_BYTES)
        if type(stored["seq"]) is not int:
            raise TypeError("seq")
        anchor = Anchor(
            Head(stored["seq"], str(stored["hash"])),
            str(stored["key"]),
            str(stored["entry"]),
            str(stored["signature"]),
            tuple((str(w["key"]), str(w["signature"])) for w in stored["witnesses"]),
        )
        entry = Entry(anchor.entry.encode(), bytes.fromhex(anchor.signature))
        witnessed = [(key, bytes.fromhex(signature)) for key, signature in anchor.witnesses]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFileError(
            f"{path}: not a ledger head; cloister ledger export --head makes one"
        ) from error
    sound = is_signed(entry.body, entry.signature, anchor.key) and entry.hash == anchor.head.hash
    sound = sound and all(
        is_signed(_witnessed(anchor), signature, key) for key, signature in witnessed
    )
    if not sound:
        raise LedgerError(
            f"{path}: a signature on this head is invalid: the file was changed; get it again"
        )
    return anchor


def _witnessed(anchor: Anchor) -> bytes:
    return canonical({"seq": anchor.head.seq, "hash": anchor.head.hash, "key": anchor.key})
