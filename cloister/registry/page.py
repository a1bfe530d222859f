"""Writes a version of a registry as one page that opens without a network: what it is, who agreed.

An approver signs for a version, and somebody who is asked what is served shows this page: its
facts come from the lineage that the registry stored with the version.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cloister.errors import UsageError
from cloister.files import bad_file, write_whole
from cloister.registry.log import LoggedPromotion, StageState
from cloister.report_page import heading, page, paragraph, table

# As the terminal names them, for people.
FACTS = {
    "sha256": "Version (SHA-256 of its files)",
    "task": "Task",
    "base": "Base",
    "base_sha256": "SHA-256 of the base",
    "recipe_sha256": "SHA-256 of the study's recipe",
}


def version_page(
    name: str,
    lineage: Mapping[str, Any],
    log: Sequence[LoggedPromotion],
    stages: Mapping[str, StageState],
) -> str:
    """Returns a version's page in HTML.

    Args:
        name: The model's name.
        lineage: Where the version comes from, as `Registry.lineage` reads it.
        log: The model's log, oldest entry first.
        stages: Which versions are served, by stage.
    """
    version = str(lineage["sha256"])
    served = [stage for stage, state in stages.items() if state.current == version]
    waits = [stage for stage, state in stages.items() if state.pending == version]
    parts = [paragraph(_served(served, waits))]
    parts.append(table(("", ""), [(words, _text(lineage[key])) for key, words in FACTS.items()]))
    parts.append(heading("What was promised"))
    promises = lineage["promises"]
    if promises:
        parts.append(
            table(
                ("Site", "ε", "δ", "For one", "Against", "Accountant"),
                [
                    (
                        site,
                        "∞" if one["epsilon"] is None else f"{one['epsilon']:g}",
                        _text(one["delta"]),
                        str(one["unit"]),
                        ", ".join(one["adversaries"]),
                        str(one["accountant"]),
                    )
                    for site, one in promises.items()
                ],
            )
        )
    else:
        parts.append(
            paragraph("No promise is known: the version was promoted without its run.", "loud")
        )
    parts.append(heading("Scores on public records"))
    scores = [(metric, _text(value)) for metric, value in lineage["metrics"].items()]
    parts.append(table(("Score", "Value"), scores, 1) if scores else paragraph("None is known."))
    parts.append(heading("Evidence"))
    evidence = [
        *((f"{site}: ledger", f"entry {h['seq']}, {h['hash']}") for site, h in _pairs(lineage)),
        *((f"{file}: certificate", str(hash_)) for file, hash_ in lineage["certificates"].items()),
    ]
    parts.append(table(("", ""), evidence) if evidence else paragraph("None is known."))
    parts.append(heading("Who promoted what"))
    parts.append(
        table(
            ("Entry", "Time (UTC)", "What", "Version", "Stage", "Who", "Signed"),
            [
                (
                    str(one.entry.number),
                    one.entry.at,
                    one.entry.kind,
                    one.entry.version[:12] + (" (this)" if one.entry.version == version else ""),
                    one.entry.stage,
                    one.entry.by,
                    "yes" if one.signature else "no",
                )
                for one in log
            ],
        )
    )
    return page(f"{name}, version {version[:12]}", parts)


def write_version_page(file: Path, text: str) -> None:
    """Writes a page to a new file.

    Raises:
        UsageError: Something has this name already.
        BadFileError: It cannot be written.
    """
    if os.path.lexists(file):
        raise UsageError(f"--html: {file} exists already and is not overwritten; give a new file")
    try:
        write_whole(file, text.encode())
    except OSError as error:
        raise bad_file(error, "written") from error


def _pairs(lineage: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return list(lineage["ledgers"].items())


def _served(served: Sequence[str], waits: Sequence[str]) -> str:
    parts = [f"Served at {', '.join(served)}."] if served else ["Not served at any stage."]
    if waits:
        parts.append(f"Promoted for {', '.join(waits)}, where more people must agree.")
    return " ".join(parts)


def _text(value: object) -> str:
    if value is None:
        return "unknown"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
