"""A site's certificate: what a study cost its records, signed, beside the ledger that shows it.

A certificate states nothing that the ledger does not give: `statement` makes it from the entries,
and `check` makes it again from them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister import __version__
from cloister.errors import BadFileError, LedgerError, UsageError
from cloister.privacy import adversaries
from cloister.privacy.accounting import epsilon, rdp_epsilon
from cloister.privacy.chain import Entry, canonical, json_epsilon
from cloister.privacy.events import GaussianEvent
from cloister.privacy.keys import is_signed, public_hex
from cloister.privacy.units import Neighbouring
from cloister.privacy.verify import TOLERANCE, Verdict, verify

# 2: what shared noise leaves against all other sites together is stated beside the ε it gives.
VERSION = 2

# What a certificate says beside its `statement`.
NAMED = frozenset({"kind", "version", "site", "key", "study", "base", "adapter", "code", "time"})
STATED = frozenset(
    {"plans", "events", "rounds", "released", "epsilon", "delta", "unit", "neighbouring",
     "adversaries", "epsilon_alone", "life", "ledger"}
)  # fmt: skip


# Fields that machines may round differently.
COMPUTED = frozenset({"epsilon", "epsilon_alone"})


@dataclass(frozen=True)
class Evidence:
    """What a site hands out for a finished study.

    Attributes:
        certificate: The signed statement.
        ledger: The site's whole ledger up to the head that the statement names.
    """

    certificate: Entry
    ledger: tuple[Entry, ...]

    @property
    def fields(self) -> dict[str, Any]:
        """What the certificate says."""
        return self.certificate.fields

    def to_json(self) -> bytes:
        """For a file."""
        document = {
            "certificate": _stored(self.certificate),
            "ledger": [_stored(entry) for entry in self.ledger],
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
        adapter: SHA-256 of the adapter that came of it.
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
        "version": VERSION,
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


def statement(verdict: Verdict, study: str) -> dict[str, Any]:
    """What a sound ledger gives on a study: its plans, events and ε, and the data set's whole life.

    Raises:
        UsageError: The ledger has no such study.
    """
    history = verdict.history
    rounds = [charged for (name, _), charged in history.rounds.items() if name == study]
    if not rounds:
        raise UsageError(f"study {study[:12]}…: no round of it was charged in this ledger")
    plans = [history.plans[digest] for digest in dict.fromkeys(c.plan for c in rounds)]
    events = _merged([charged.event for charged in rounds])
    delta = min(plan.delta for plan in plans)
    return {
        "plans": [{"sha256": plan.digest(), "terms": json.loads(canonical(plan.terms()))}
                  for plan in plans],
        "events": [asdict(event) for event in events],
        "rounds": len(rounds),
        "released": sum(charged.seq in history.released for charged in rounds),
        "epsilon": _both(events, delta),
        "delta": delta,
        "unit": verdict.unit,
        "neighbouring": Neighbouring.ADD_REMOVE.value,
        "adversaries": adversaries.names(plans),
        "epsilon_alone": _alone(history.charged(study), delta),
        "life": {
            "events": [asdict(event) for event in history.spent.events],
            "epsilon": {
                "pld": json_epsilon(verdict.epsilon_pld),
                "rdp": json_epsilon(verdict.epsilon_rdp),
            },
            "adversaries": adversaries.names(history.plans.values()),
            "epsilon_alone": _alone(history.charged(), verdict.delta),
            "delta": verdict.delta,
            "budget": {
                "epsilon": json_epsilon(verdict.budget_epsilon),
                "delta": verdict.budget_delta,
            },
        },
        "ledger": asdict(verdict.head),
    }  # fmt: skip


def check(evidence: Evidence, public_key: str) -> Verdict:
    """Puts a certificate to its ledger.

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
    try:
        given = statement(verdict, str(stated["study"]))
    except UsageError as error:
        raise LedgerError(f"the certificate is of a study that its ledger has not: {error}") from (
            error
        )
    for name, value in given.items():
        if not _same(stated[name], value, name in COMPUTED):
            raise LedgerError(f"the certificate states another {name} than its ledger gives")
    return verdict


def read_evidence(content: bytes, name: str) -> Evidence:
    """Reads a site's file, of which nothing is believed yet.

    Raises:
        BadFileError: It is not of the form of a certificate of this version.
    """
    try:
        document = json.loads(content)
        evidence = Evidence(
            _entry(document["certificate"]), tuple(_entry(row) for row in document["ledger"])
        )
        fields = evidence.fields
        whole = set(document) == {"certificate", "ledger"}
        whole = whole and canonical(fields) == evidence.certificate.body
        version = fields["version"]
        whole = whole and fields["kind"] == "certificate"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadFileError(
            f"{name}: no certificate, or damaged (cloister audit certificate makes one)"
        ) from error
    if version != VERSION:
        raise BadFileError(
            f"{name}: a certificate of version {version!r}, {VERSION} is understood; use the "
            "version of cloister that made it"
        )
    if not whole or set(fields) != NAMED | STATED:
        raise BadFileError(f"{name}: not of the form of a certificate; it was changed or damaged")
    return evidence


def _merged(events: Sequence[GaussianEvent]) -> list[GaussianEvent]:
    """Equal mechanisms together, in the order of their first release."""
    steps: dict[tuple[float, float, bool], int] = {}
    for event in events:
        key = (event.noise_multiplier, event.sample_rate, event.is_private)
        steps[key] = steps.get(key, 0) + event.steps
    return [
        GaussianEvent(noise_multiplier=s, sample_rate=q, steps=t, is_private=p)
        for (s, q, p), t in steps.items()
    ]


def _both(events: Sequence[GaussianEvent], delta: float) -> dict[str, float | None]:
    return {
        "pld": json_epsilon(epsilon(events, delta)),
        "rdp": json_epsilon(rdp_epsilon(events, delta)),
    }


def _alone(charged: adversaries.Charged, delta: float) -> dict[str, float | None] | None:
    """ε against the coordinator with all other sites, where it is another one."""
    events = adversaries.alone(charged)
    return None if events is None else _both(_merged(events), delta)


def _same(stated: Any, given: Any, computed: bool = False) -> bool:
    """Equal, but for rounding between machines where a number was computed: an ε."""
    if isinstance(given, dict):
        return (
            isinstance(stated, dict)
            and stated.keys() == given.keys()
            and all(_same(stated[n], given[n], computed or n in COMPUTED) for n in given)
        )
    if computed and isinstance(given, float):
        return type(stated) is float and abs(stated - given) <= TOLERANCE
    return canonical([stated]) == canonical([given])


def _stored(entry: Entry) -> dict[str, str]:
    return {"body": entry.body.decode(), "signature": entry.signature.hex()}


def _entry(row: Mapping[str, str]) -> Entry:
    if set(row) != {"body", "signature"}:
        raise ValueError("no entry")
    return Entry(row["body"].encode(), bytes.fromhex(row["signature"]))
