"""A site's certificate: what a study cost its records, signed, beside the ledger that shows it.

A certificate states nothing that the ledger does not give: `statement` makes it from the entries,
and `check` makes it again from them, in the form of its version (`certificate_forms`).
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

# Of a certificate alone. A message of 10,000 tensors, a hundred bytes each for name and shape, and
# as much again for the rest: more than any adapter that a site's policy takes has.
MOST_STATED = 2**21
# Of a certificate and its ledger: a round takes two entries of about a kilobyte each, and a study
# has at most 10,000 (`bounds.MOST_ROUNDS`); three such.
MOST_BYTES = 2**26
# An entry has two values in a table: a hundred thousand of them.
MOST_VALUES = 400_000


@dataclass(frozen=True)
class Evidence:
    """A certificate with the ledger that proves it, as a site hands them out.

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
        study: Digest of the study's recipe; None: the only one that the ledger has.
        site: The site's name in the study.
        base: SHA-256 of the base model's weights.
        adapter: SHA-256 of the study's adapter; empty where the site has not seen it.
        key: The site's, which signed the ledger.
        time: Informative.

    Raises:
        LedgerError: The ledger is not sound, or of another key.
        UsageError: The ledger has no such study, or several and none is named.
    """
    verdict = verify(entries, f"the ledger of {site}", public_key=public_hex(key))
    studies = list(dict.fromkeys(name for name, _ in verdict.history.rounds))
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
        evidence: Of one site.
        public_key: The site's, known from elsewhere, in hex.

    Returns:
        What the ledger says, all of it checked.

    Raises:
        LedgerError: A signature does not hold, the ledger is not sound, or the certificate states
            what the ledger does not give.
    """
    certificate = evidence.certificate
    if not is_signed(certificate.body, certificate.signature, public_key):
        raise LedgerError(
            f"the certificate is not signed by the key {public_key[:12]}… that was given for its "
            "site: it was changed, or is another's"
        )
    stated = certificate.fields
    verdict = verify(evidence.ledger, "its ledger", public_key=public_key)
    if verdict.history.couples_units and "couples_units" not in stated:
        raise LedgerError(
            "the certificate does not say that ε is about the units of the file as it was written, "
            "and its ledger does"
        )
    try:
        given = statement(verdict, str(stated["study"]), stated["version"])
    except UsageError as error:
        raise LedgerError(f"the certificate is of a study that its ledger has not: {error}") from (
            error
        )
    for name, value in given.items():
        if not same(stated[name], value, name in COMPUTED):
            raise LedgerError(f"the certificate states another {name} than its ledger gives")
    return verdict


def read_evidence(content: bytes, name: str) -> Evidence:
    """Parses a site's file; nothing in it is checked yet.

    Raises:
        BadFileError: It is not of the form of a certificate of this version.
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
            f"{name}: no certificate, or damaged (cloister audit certificate makes one)"
        ) from error
    if type(version) is not int or version not in FIELDS:
        raise BadFileError(
            f"{name}: a certificate of version {shortened(version)}; {VERSION} and earlier ones "
            "are understood; use the version of cloister that made it"
        )
    if not whole or set(fields) != NAMED | FIELDS[version]:
        raise BadFileError(f"{name}: not of the form of a certificate; it was changed or damaged")
    return evidence


def same(stated: Any, given: Any, computed: bool = False) -> bool:
    """Whether two values are equal; computed ones (ε) may differ by machines' rounding."""
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
        ValueError: It is none.
    """
    if not isinstance(row, dict) or set(row) != {"body", "signature"}:
        raise ValueError("no entry")
    return Entry(row["body"].encode(), bytes.fromhex(row["signature"]))
