"""Writes a finished simulation's certificates: each site signs its own, in one bundle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from cloister.errors import BadFileError
from cloister.evidence.bundle import Bundle, Received, write_bundle
from cloister.evidence.fingerprint import adapter_files, adapter_sha256, base_sha256
from cloister.files import write_whole
from cloister.ledger.certificate import Evidence, certify
from cloister.ledger.chain import check_anchor
from cloister.ledger.ledger import key_file, now
from cloister.ledger.signing import load_key
from cloister.ledger.storage import LedgerFile
from cloister.privacy.release_kind import ReleaseKind
from cloister.server.run_copy import is_copy
from cloister.server.run_directory import RunDirectory


@dataclass(frozen=True)
class Certified:
    """The files that were written.

    Attributes:
        bundle: The adapter with all certificates.
        keys: The sites' public keys by name, as JSON.
        sites: Each site's certificate file.
    """

    bundle: Path
    keys: Path
    sites: dict[str, Path]


def certify_run(run: RunDirectory) -> Certified:
    """Writes a finished run's certificates, their keys and the bundle.

    In a copy that was fetched from a URL nothing is signed, since the sites' keys stay where the
    study ran; the certificates that came with it are returned.

    Raises:
        BadFileError: The run did not finish, or has no ledgers; or it is a copy without
            certificates.
        LedgerError: A ledger is not valid, or lost entries since its last closed round.
    """
    if not (run.adapter / "cloister.json").is_file():
        raise BadFileError(
            f"{run.path}: this run did not finish, so there is no adapter to certify; continue it "
            f"first (cloister simulate --resume --out {run.path})"
        )
    if is_copy(run.path):
        return _came_with(run)
    files = adapter_files(run.adapter)
    heads, evidence = run.heads(), {}
    for site, path in run.ledgers().items():
        entries = LedgerFile(path).entries()
        if site in heads:
            check_anchor(entries, heads[site], str(path))
        evidence[site] = certify(
            entries,
            None,
            site=site,
            base=base_sha256(files),
            adapter=adapter_sha256(files),
            key=load_key(key_file(path)),
            time=now(),
        )
    if not evidence:
        raise BadFileError(f"{run.path}: has no ledgers to certify; give another run")
    folder = run.path / "certificates"
    folder.mkdir(exist_ok=True)
    write_bundle(folder / "bundle.zip", Bundle(evidence, files, received_in(run)))
    keys = {site: one.fields["key"] for site, one in evidence.items()}
    write_whole(folder / "keys.json", json.dumps(keys, indent=2).encode())
    sites = {site: _write(folder / f"{site}.json", one) for site, one in evidence.items()}
    return Certified(folder / "bundle.zip", folder / "keys.json", sites)


def _came_with(run: RunDirectory) -> Certified:
    """Returns the certificates of a copy, as they were signed where the study ran."""
    folder = run.path / "certificates"
    sites = {site: folder / f"{site}.json" for site in run.ledgers()}
    missing = [path for path in (folder / "bundle.zip", *sites.values()) if not path.is_file()]
    if missing or not sites:
        raise BadFileError(
            f"{run.path}: a copy, without certificates; the sites' keys stay where the study ran. "
            "There: cloister simulate --resume --out URL signs and copies them; then fetch again"
        )
    return Certified(folder / "bundle.zip", folder / "keys.json", sites)


def received_in(run: RunDirectory) -> list[Received]:
    """Returns the updates, private evaluations and votes that a run's coordinator received, from
    its own record."""
    votes = run.recipe().votes is not None
    rows = [(ReleaseKind.VOTE if votes else ReleaseKind.TRAINING, row) for row in run.metrics()]
    rows += [(ReleaseKind.EVALUATION, row) for row in run.evaluations()]
    return [
        Received(int(row["round"]), site, sha256, head, kind)
        for kind, row in rows
        for site, (sha256, head) in sorted(row.get("received", {}).items())
    ]


def _write(path: Path, evidence: Evidence) -> Path:
    write_whole(path, evidence.to_json())
    return path
