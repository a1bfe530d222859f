"""Verifies a bundle's claims without trust in the coordinator or the sites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloister.errors import LedgerError, UsageError
from cloister.evidence.bundle import Bundle
from cloister.evidence.fingerprint import adapter_sha256, base_sha256
from cloister.evidence.outcome import SENT, Made, outcome_of, sent_words, unchecked
from cloister.ledger.certificate import check
from cloister.ledger.verify import Verdict


@dataclass(frozen=True)
class SiteClaim:
    """One site's promise: stated by its certificate, recomputed from its ledger.

    Attributes:
        name: The site.
        fields: The certificate's fields.
        verdict: The verdict on its ledger.
        received: How many of its updates, evaluations and votes the coordinator says it received.
    """

    name: str
    fields: Mapping[str, Any]
    verdict: Verdict
    received: int


@dataclass(frozen=True)
class Findings:
    """The claims that were verified, and those that no bundle can show.

    Attributes:
        sites: In order of their names.
        checked: Claims that hold, in words.
        unchecked: Claims that were not and could not be checked, in words.
        outcome: What the sites certified.
    """

    sites: tuple[SiteClaim, ...]
    checked: tuple[str, ...]
    unchecked: tuple[str, ...]
    outcome: Made = Made.ADAPTER


def examine(bundle: Bundle, keys: Mapping[str, str]) -> Findings:
    """Checks every claim of a bundle that can be checked.

    Args:
        bundle: From `read_bundle`.
        keys: Each site's public key in hex, from the site itself.

    Raises:
        UsageError: A site's key is not given.
        LedgerError: A claim is false; the message names it.
    """
    missing = sorted(bundle.sites.keys() - keys.keys())
    if missing:
        raise UsageError(
            f"no public key was given for {', '.join(missing)}: without it nothing in its "
            "certificate can be trusted; ask the institution for it (--keys, --key)"
        )
    absent = sorted(keys.keys() - bundle.sites.keys())
    if absent:
        raise LedgerError(
            f"{', '.join(absent)}: a key was given, but the bundle has no certificate"
        )
    if len(set(keys.values())) != len(keys):
        raise LedgerError(
            "two sites have the same key, so one of them is not what it claims; ask both for "
            "their keys"
        )
    outcome = certified_outcome(bundle)
    verdicts = {name: _checked(bundle, name, keys[name], outcome) for name in sorted(bundle.sites)}
    _agree(bundle, outcome)
    _received(bundle, verdicts)
    received = Counter(update.site for update in bundle.received)
    sites = tuple(
        SiteClaim(
            name,
            bundle.sites[name].fields,
            verdict,
            received[name],
        )
        for name, verdict in verdicts.items()
    )
    held, not_held = _held(bundle, sites, outcome), unchecked(outcome)
    if bundle.received:
        held = (
            *held,
            "Each release that the coordinator says it received "
            f"({sent_words(one.kind for one in bundle.received)}) is in its site's ledger, byte "
            "for byte, and no ledger was rewritten since.",
        )
    else:
        not_held = (*not_held, "What the coordinator received: the bundle has no list of it.")
    return Findings(sites, held, not_held, outcome)


def certified_outcome(bundle: Bundle) -> Made:
    """Returns what the sites' certificates are about, as they state it."""
    stated = [evidence.fields for evidence in bundle.sites.values()]
    return outcome_of((one["rounds"], one.get("votes")) for one in stated)


def _checked(bundle: Bundle, name: str, key: str, outcome: Made) -> Verdict:
    evidence = bundle.sites[name]
    stated = evidence.fields
    try:
        if stated["site"] != name or stated["key"] != key:
            raise LedgerError("the certificate belongs to another site or another key")
        verdict = check(evidence, key)
    except LedgerError as error:
        raise LedgerError(f"{name}: {error}") from error
    if stated["adapter"] != adapter_sha256(bundle.adapter):
        raise LedgerError(f"{name}: its certificate is for another {outcome} than the bundle's")
    return verdict


def _agree(bundle: Bundle, outcome: Made) -> None:
    for claim in ("study", "base"):
        if len({str(evidence.fields[claim]) for evidence in bundle.sites.values()}) != 1:
            raise LedgerError(f"the sites' certificates name different values for {claim}")
    if next(iter(bundle.sites.values())).fields["base"] != base_sha256(bundle.adapter):
        raise LedgerError(f"the certificates name another base model than the {outcome}")


def _received(bundle: Bundle, verdicts: Mapping[str, Verdict]) -> None:
    """Checks that each release the coordinator received is in its site's ledger, in that round."""
    seen = set()
    for update in bundle.received:
        sent = SENT[update.kind]
        place = (update.site, update.round, update.kind)
        if update.site not in verdicts:
            raise LedgerError(
                f"of {update.site} the coordinator received the {sent} of round {update.round}, "
                "but there is no certificate of that site"
            )
        if place in seen:
            raise LedgerError(f"{update.site}: two {sent}s were received in round {update.round}")
        seen.add(place)
        history = verdicts[update.site].history
        study = str(bundle.sites[update.site].fields["study"])
        charged = history.reserved(study, update.round, update.kind)
        released = None if charged is None else history.released.get(charged.seq)
        if released is None or released.sha256 != update.sha256:
            raise LedgerError(
                f"{update.site}: the coordinator received another {sent} in round {update.round} "
                "than the ledger released: something left uncharged"
            )
        if released.hash != update.head:
            raise LedgerError(
                f"{update.site}: its ledger was rewritten since round {update.round}: the "
                "coordinator received another hash of it then"
            )


def _held(bundle: Bundle, sites: tuple[SiteClaim, ...], outcome: Made) -> tuple[str, ...]:
    entries = sum(len(evidence.ledger) for evidence in bundle.sites.values())
    return (
        "The one certificate is signed by the key that was given for its site."
        if len(sites) == 1
        else f"Each of {len(sites)} certificates is signed by the key that was given for its site.",
        f"All {entries} ledger entries are chained and signed, and each ledger ends where its "
        "certificate says.",
        "Every charge is the one that its plan states, and was within the data set's budget when "
        "it was made.",
        "Every stated ε follows from the charged events, recomputed by PLD and by RDP; PLD is the "
        "smaller.",
        f"The {outcome}'s files are those that every site certified, and name the base model that "
        "it certified.",
    )
