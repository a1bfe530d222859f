"""Reads the facts of an auditor's page from ledgers, which are verified again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cloister.dashboard.ledgers import LedgerFacts, facts_of, read_ledger
from cloister.errors import BadFileError
from cloister.evidence.bundle import read_bundle
from cloister.evidence.outcome import outcome_of, unchecked
from cloister.evidence.verification import certified_outcome, examine
from cloister.files import Stamp, stamp_of


@dataclass(frozen=True, kw_only=True)
class AuditFacts:
    """The facts that an auditor's page shows.

    Attributes:
        name: Name of the audited file or folder.
        ledgers: The ledgers, at least one.
        unchecked: Claims that could not be checked here, in words.
        checked: Claims of a bundle that hold, in words.
    """

    name: str
    ledgers: tuple[LedgerFacts, ...]
    unchecked: tuple[str, ...]
    checked: tuple[str, ...] = ()


def read_ledgers(name: str, files: Mapping[str, Path], keys: Mapping[str, str]) -> AuditFacts:
    """Reads and verifies ledger files for an auditor's page.

    Args:
        name: Name of the audited file or folder.
        files: The ledger files by site.
        keys: Public keys by site, from another source.

    Raises:
        LedgerError: A ledger is not valid.
    """
    read = tuple(read_ledger(path, site, keys.get(site)) for site, path in files.items())
    histories = [one.verdict.history for one in read]
    outcome = outcome_of((one.rounds, one.votes) for one in histories)
    return AuditFacts(name=name, ledgers=read, unchecked=unchecked(outcome))


def read_bundle_facts(path: Path, keys: Mapping[str, str]) -> AuditFacts:
    """Reads a bundle's ledgers; with the sites' keys, checks every claim of the bundle too.

    Raises:
        BadFileError: The file is not a bundle.
        LedgerError: A claim is false.
        UsageError: Keys are given, but not for every site.
    """
    try:
        stamp = stamp_of(path)
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read ({error})") from error
    return _bundle(path, tuple(sorted(keys.items())), stamp)


@lru_cache(maxsize=4)
def _bundle(path: Path, keys: tuple[tuple[str, str], ...], stamp: Stamp) -> AuditFacts:
    """Computes the facts; the stamp is only a part of the cache's key, for changed files."""
    bundle, known = read_bundle(path), dict(keys)
    findings = examine(bundle, known) if known else None
    return AuditFacts(
        name=path.name,
        ledgers=tuple(
            facts_of(site, evidence.ledger, known.get(site))
            for site, evidence in sorted(bundle.sites.items())
        ),
        checked=findings.checked if findings else (),
        unchecked=findings.unchecked if findings else unchecked(certified_outcome(bundle)),
    )
