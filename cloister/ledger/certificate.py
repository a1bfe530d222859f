"""A site's certificate: a signed statement of what a study cost, with the ledger that proves it.

Everything in a certificate follows from the ledger: `statement` computes it from the entries, and
`check` computes it again, in the form of its version (`certificate_forms`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister import __version__
from cloister.bounds import shortened
from cloister.canonical import canonical
from cloister.errors import BadFileError, LedgerError, UsageError
from cloister.json_text import read_json
from cloister.ledger.certificate_forms import (
    COMPUTED,
    FIELDS,
    NAMED,
    VERSION,
    statement,
    version_of,
)
from cloister.ledger.chain import Entry
from cloister.ledger.signing import is_signed, public_hex
from cloister.ledger.verify import TOLERANCE, Verdict, verify

# Most bytes of a certificate alone: a message of 10,000 tensors, a hundred bytes each for name and
# shape, and the same again for the rest; no adapter that a site's policy accepts has more.
MOST_STATED = 2**21
# Most bytes of a certificate and its ledger: a round takes two entries of about a kilobyte each,
# and a study has at most 10,000 rounds (`bounds.MOST_ROUNDS`); this is enough for three such.
MOST_BYTES = 2**26
# Most JSON values: an entry has about four, so a hundred thousand entries.
MOST_VALUES = 400_000


@dataclass(frozen=True)
class Evidence:
    """A certificate with the ledger that proves it, as a site gives them to others.

    Attributes:
        certificate: The signed statement.
        ledger: The site's whole ledger up to the head that the statement names.
    """

    certificate: Entry
    ledger: tuple[Entry, ...]

    @property
    def fields(self) -> dict[str, Any]:
        """The statements of the certificate, by name."""
        return self.certificate.fields

    def to_json(self) -> bytes:
        """Returns certificate and ledger as JSON values, for a file."""
        document = {
            "certificate": stored(self.certificate),
            "ledger": [stored(entry) for entry in self.ledger],
        }
        return canonical(document)


def certify(
    entries: Sequence[Entry],
    study: str | None,
    *,
    site: str,
    base: str,
    adapter: str,
    key: Ed25519PrivateKey,
    time: str,
) -> Evidence:
    """Signs what a study cost.

    Args:
        entries: The site's whole ledger.
        study: Digest of the study's recipe; None: the ledger's only study.
        site: The site's name in the study.
        base: SHA-256 of the base model's weights.
        adapter: SHA-256 of the study's adapter; empty where the site has not seen it.
        key: The site's private key, which signed the ledger.
        time: The time to state; informative only.

    Raises:
        LedgerError: The ledger is invalid, or belongs to another key.
        UsageError: The ledger lacks the study, or has several and `study` names none.
    """
    verdict = verify(entries, f"the ledger of {site}", public_key=public_hex(key))
    studies = verdict.history.studies
    if study is None and len(studies) != 1:
        raise UsageError(
            f"the ledger of {site} has {len(studies)} studies"
            + (f"; name one of {', '.join(studies)} (--study)" if studies else ": none to certify")
        )
    chosen = study or studies[0]
    fields = {
        "kind": "certificate",
        "version": version_of(verdict.history),
        "site": site,
        "key": public_hex(key),
        "study": chosen,
        "base": base,
        "adapter": adapter,
        "code": __version__,
        "time": time,
        **statement(verdict, chosen),
    }
    body = canonical(fields)
    return Evidence(Entry(body, key.sign(body)), tuple(entries))


def check(evidence: Evidence, public_key: str) -> Verdict:
    """Checks a certificate against its ledger.

    Args:
        evidence: One site's evidence.
        public_key: The site's public key in hex, from another source.

    Returns:
        The verdict on the checked ledger.

    Raises:
        LedgerError: A signature is invalid, the ledger is invalid, or the certificate states
            something that does not follow from the ledger.
    """
    certificate = evidence.certificate
    if not is_signed(certificate.body, certificate.signature, public_key):
        raise LedgerError(
            f"the certificate is not signed by the key {public_key[:12]}… that was given for its "
            "site: it was changed, or belongs to another site"
        )
    stated = certificate.fields
    verdict = verify(evidence.ledger, "its ledger", public_key=public_key)
    if verdict.history.couples_units and "couples_units" not in stated:
        raise LedgerError(
            "the certificate does not say that ε is about the units of the file as it was written, "
            "and its ledger does"
        )
    if verdict.history.evaluations and "evaluations" not in stated:
        raise LedgerError(
            "the certificate does not state the private evaluations that its ledger charged"
        )
    if verdict.history.votes and "votes" not in stated:
        raise LedgerError("the certificate does not state the votes that its ledger charged")
    try:
        given = statement(verdict, str(stated["study"]), stated["version"])
    except UsageError as error:
        raise LedgerError(f"the certificate is of a study that its ledger lacks: {error}") from (
            error
        )
    for name, value in given.items():
        if not same(stated[name], value, name in COMPUTED):
            raise LedgerError(f"the certificate's {name} differs from its ledger's")
    return verdict


def read_evidence(content: bytes, name: str) -> Evidence:
    """Parses a site's file, without checking signatures or figures.

    Raises:
        BadFileError: It does not have the form of a certificate of a known version.
    """
    try:
        document = read_json(content, most_bytes=MOST_BYTES, most_values=MOST_VALUES)
        evidence = Evidence(
            entry_of(document["certificate"]), tuple(entry_of(row) for row in document["ledger"])
        )
        fields = read_json(evidence.certificate.body, most_bytes=MOST_STATED)
        whole = set(document) == {"certificate", "ledger"}
        whole = whole and canonical(fields) == evidence.certificate.body
        version = fields["version"]
        whole = whole and fields["kind"] == "certificate"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadFileError(
            f"{name}: not a certificate, or damaged; cloister audit certificate makes one"
        ) from error
    if type(version) is not int or version not in FIELDS:
        raise BadFileError(
            f"{name}: a certificate of version {shortened(version)}; versions up to {VERSION} "
            "can be read: use the version of cloister that made it"
        )
    if not whole or set(fields) != NAMED | FIELDS[version]:
        raise BadFileError(
            f"{name}: does not have the form of a certificate; it was changed or damaged"
        )
    return evidence


def same(stated: Any, given: Any, computed: bool = False) -> bool:
    """Whether two values are equal; computed values (ε) may differ by rounding."""
    if isinstance(given, dict):
        return (
            isinstance(stated, dict)
            and stated.keys() == given.keys()
            and all(same(stated[n], given[n], computed or n in COMPUTED) for n in given)
        )
    if computed and isinstance(given, float):
        return type(stated) is float and abs(stated - given) <= TOLERANCE
    return canonical([stated]) == canonical([given])


def stored(entry: Entry) -> dict[str, str]:
    """Returns a signed entry as a JSON row."""
    return {"body": entry.body.decode(), "signature": entry.signature.hex()}


def entry_of(row: Mapping[str, str]) -> Entry:
    """Builds a signed entry from its JSON row.

    Raises:
        ValueError: The row is not an entry.
    """
    if not isinstance(row, dict) or set(row) != {"body", "signature"}:
        raise ValueError("not an entry")
    return Entry(row["body"].encode(), bytes.fromhex(row["signature"]))
