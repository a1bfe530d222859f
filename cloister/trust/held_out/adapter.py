"""Finds the adapter that a site's operator names, and what is known of its training here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from cloister.client.held_out_terms import HeldOutTerms
from cloister.client.site_file import SiteFile
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.errors import RefusedError, UsageError
from cloister.export.adapter_folder import adapter_folder
from cloister.ledger.storage import LedgerFile
from cloister.protocol.delivery import NOTE


@dataclass(frozen=True)
class SiteAdapter:
    """An adapter at a site.

    Attributes:
        folder: Its folder.
        study: The digest of its study; empty if it is not known.
        name: The study's name, otherwise the folder's.
        cautions: What is not known of its training, one sentence each.
    """

    folder: Path
    study: str
    name: str
    cautions: tuple[str, ...]


def find_adapter(file: SiteFile, named: str, terms: HeldOutTerms) -> SiteAdapter:
    """Finds an adapter, and checks that held-out records were not among its training records.

    Args:
        file: The site's.
        named: A folder; or a study's name, or the first digits of its digest.
        terms: What the site holds out since when.

    Raises:
        UsageError: There is no such adapter, or there are several.
        RefusedError: Its study was charged here before records were held out.
        LedgerError: The ledger is damaged.
    """
    folder, study, name = _folder(file, named)
    rounds = [
        (int(fields["seq"]), str(fields["study"]))
        for fields in (entry.fields for entry in LedgerFile(file.ledger).entries())
        if fields.get("kind") == "reserve"
    ]
    early = [one for seq, one in rounds if seq <= terms.after]
    if study and study in early:
        raise RefusedError(
            f"{name}: the study was trained here before records were held out (up to entry "
            f"{terms.after} of the ledger), so its score would be on records that it may have "
            "learnt; evaluate a later study"
        )
    cautions = []
    if not study:
        cautions.append(
            "It is not known which study made this adapter, so it may have been trained on "
            "held-out records."
        )
    if early:
        cautions.append(
            f"{len(early)} rounds were charged here before records were held out: an adapter that "
            "continues one of those studies has learnt from held-out records."
        )
    return SiteAdapter(folder, study, name, tuple(cautions))


def _folder(file: SiteFile, named: str) -> tuple[Path, str, str]:
    """Returns the folder of an adapter, its study's digest, and its name."""
    place = Path(named)
    if place.is_dir():
        folder = adapter_folder(place)
        note = _note(folder)
        return folder, note.get("study", ""), note.get("name", "") or folder.resolve().name
    rows = AgentFolder.of(file).delivered()
    found = [
        row
        for row in rows
        if str(row.get("name")) == named or (named and str(row.get("study")).startswith(named))
    ]
    if len(found) == 1:
        row = found[0]
        return Path(row["folder"]), str(row.get("study", "")), str(row.get("name", ""))
    known = ", ".join(f"{row.get('name')} ({str(row.get('study'))[:8]})" for row in rows) or "none"
    what = "several adapters" if found else "no folder and no delivered adapter"
    raise UsageError(
        f"ADAPTER: {named}: {what} of this name; give a folder, or a study whose adapter is "
        f"here: {known}"
    )


def _note(folder: Path) -> dict[str, str]:
    try:
        document = json.loads((folder / NOTE).read_text("utf-8"))
        return {key: str(document[key]) for key in ("study", "name")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
