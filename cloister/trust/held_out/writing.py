"""Scores an adapter on a site's held-out records, and writes JSON and a page for its operator."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.client.held_out_terms import HeldOutTerms, fixed_terms, held_out_of
from cloister.client.site_file import SiteFile, read_site
from cloister.deployment.site.records import read_records
from cloister.errors import RefusedError, UsageError
from cloister.export.adapter_folder import load_released, read_released
from cloister.names import counted
from cloister.tasks.plugins import check_trusted
from cloister.trust.held_out.adapter import find_adapter
from cloister.trust.held_out.measured import measure_records
from cloister.trust.held_out.page import held_out_page
from cloister.trust.held_out.scored import HeldOutScores
from cloister.trust.writing import PAGE, check_free, write_report

JSON = "scores.json"


@dataclass(frozen=True, kw_only=True)
class HeldOutReport:
    """A written report on held-out records.

    Attributes:
        folder: The folder with `index.html` and `scores.json`.
        document: The content of the JSON file.
        found: The scores.
        cautions: What a reader must know, one sentence each.
    """

    folder: Path
    document: Mapping[str, Any]
    found: HeldOutScores
    cautions: Sequence[str]


def evaluate_site(
    site: str | Path,
    adapter: str,
    out: str | Path,
    *,
    base: str | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> HeldOutReport:
    """Scores an adapter on the records that a site held out, at the site.

    Args:
        site: `site.toml`.
        adapter: A folder, or the name or first digits of the digest of a study whose adapter the
            site has.
        out: A new folder below that of `site.toml`.
        base: The base's folder or hub id on this machine; None: the one that the adapter names.
        on_stage: Is called with the name of each stage; None: it is not called.

    Raises:
        UsageError: The site declares no share; nothing was held out yet; `out` exists; there is no
            such adapter, or it is of another task.
        RefusedError: `out` is outside of the site's folder, or the study trained on records that
            were held out only afterwards.
        DataError: No held-out record can be used.
        BadFileError: A file cannot be read or written.
        ModelFileError: The base is missing, or is not the one that was trained.

    Guarantees:
        Nothing leaves the site, and nothing is charged: the figures are for its operator. Files are
        readable by their owner only.
    """
    file, target = read_site(Path(site)), Path(out)
    check_free(target)
    _check_inside(file, target)
    terms = _terms(file)
    chosen = find_adapter(file, adapter, terms)
    about = read_released(chosen.folder)
    if about.task.kind != file.declared.task:
        raise UsageError(
            f"{chosen.folder}: an adapter for {about.task.kind}, but {file.path.name} declares "
            f"records for {file.declared.task}; give another adapter"
        )
    named = file.declared.task if about.task.plugin is not None else None
    check_trusted(about.task, named, "records.task")
    say = on_stage or (lambda stage: None)
    say("reading the records")
    held_out = held_out_of(file)
    assert held_out is not None  # its terms are fixed
    records = read_records(file).kept_apart(held_out).records
    say(f"loading the base; {counted(len(records), 'record')} held out")
    _, workspace = load_released(chosen.folder, base)
    unit = file.policy.privacy.unit
    measured = measure_records(workspace, records, unit, file.machine.plain_tokens, say)
    found, cautions = measured.scores, [*chosen.cautions, *measured.cautions]
    document = {
        "version": 1,
        "site": file.site.name,
        "adapter": str(chosen.folder),
        "study": chosen.study,
        "name": chosen.name,
        "task": about.task.kind,
        "unit": unit.value,
        "held_out_share": terms.share,
        "records": len(records),
        "left_out": dict(measured.left_out),
        **found.to_json(),
        "cautions": cautions,
    }
    page = held_out_page(file.site.name, chosen, document, found, cautions)
    write_report(target, {JSON: document, PAGE: page})
    return HeldOutReport(folder=target, document=document, found=found, cautions=tuple(cautions))


def _check_inside(file: SiteFile, out: Path) -> None:
    """Refuses a folder outside of the site's; links are followed."""
    home = Path(os.path.realpath(file.path.parent))
    if not Path(os.path.realpath(out)).is_relative_to(home):
        raise RefusedError(
            f"--out {out}: the scores tell of private records, so they stay with the site; choose "
            f"a folder below {home}"
        )


def _terms(file: SiteFile) -> HeldOutTerms:
    terms = fixed_terms(file)
    if terms is not None:
        return terms
    if file.site.held_out_share is None:
        raise UsageError(
            f"{file.path}: site.held_out_share: none declared, so every record is trained on and "
            "none can score an adapter; declare a share, such as 0.1, before the next study"
        )
    raise UsageError(
        f"{file.path}: nothing was held out yet: the first study that this site joins with "
        "site.held_out_share fixes it; adapters that were trained before cannot be scored here"
    )
