"""`cloister audit report`: writes one page about what was promised, spent and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloister.cli.keys import read_keys
from cloister.errors import BadFileError, UsageError

if TYPE_CHECKING:
    from cloister.evidence.audit_report import AuditedLedger
    from cloister.evidence.reported_study import ReportedStudy


def report(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|LEDGER|BUNDLE", help="A run, a ledger, or a bundle.")
    ],
    html: Annotated[bool, typer.Option("--html", help="Write a web page (the default).")] = False,
    pdf: Annotated[bool, typer.Option("--pdf", help="Write a PDF.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="File name without suffix. Absent: report, in RUN's folder or here."),
    ] = None,
    audit: Annotated[
        list[Path] | None,
        typer.Option(help="File with the output of `cloister audit run --json`; may be repeated."),
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help='The sites\' public keys: JSON, {"site": "hex", …}.')
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="SITE=HEX", help="One site's public key; may be repeated."),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="The study's recipe.toml, for a bundle or ledger; its digest is checked."
        ),
    ] = None,
    coordinator: Annotated[
        str | None, typer.Option(help="Who ran the study, in your words, for the first page.")
    ] = None,
    purpose: Annotated[
        str | None, typer.Option(help="What the study is for, in your words, for the first page.")
    ] = None,
) -> None:
    """Write what was promised, spent and checked as one self-contained page.

    Example: cloister audit report runs/bank --html --pdf --audit audit.json
    """
    from cloister.evidence.audit_report import audit_report
    from cloister.evidence.html import to_html
    from cloister.evidence.pdf import to_pdf

    known = read_keys(keys, key or [])
    study, ledgers, checked = _gather(source, known)
    if recipe is not None:
        study = _of_recipe(recipe, ledgers)
    study = replace(
        study, coordinator=coordinator or study.coordinator, purpose=purpose or study.purpose
    )
    document = audit_report(
        study,
        ledgers,
        [_audit(path) for path in audit or []],
        checked=checked,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    place = out or (source / "report" if source.is_dir() else Path("report"))
    try:
        if html or not pdf:
            page = place.with_name(place.name + ".html")
            page.write_text(to_html(document), encoding="utf-8")
            typer.echo(str(page))
        if pdf:
            pages = place.with_name(place.name + ".pdf")
            to_pdf(document, pages)
            typer.echo(str(pages))
    except OSError as error:
        raise BadFileError(f"{place}: cannot be written ({error}); name another place") from error


def _gather(
    source: Path, keys: Mapping[str, str]
) -> tuple[ReportedStudy, list[AuditedLedger], Sequence[str]]:
    """Reads the study, its checked ledgers, and the claims that a bundle is verified to hold."""
    import zipfile

    from cloister.evidence.reported_study import SIMULATED, ReportedStudy, of_recipe
    from cloister.ledger.storage import LedgerFile
    from cloister.server.run_directory import RunDirectory

    if not source.exists():
        raise BadFileError(f"{source}: not found; give a run, a ledger or a bundle")
    if source.is_dir():
        run = RunDirectory.reopen(source)
        files = run.ledgers()
        if not files:
            raise BadFileError(f"{source}: this run has no ledgers, so there is nothing to report")
        study = replace(of_recipe(run.recipe()), coordinator=SIMULATED)
        ledgers = [
            _checked(name, LedgerFile(path).entries(), keys, run.heads().get(name))
            for name, path in files.items()
        ]
        return study, ledgers, ()
    if zipfile.is_zipfile(source):
        return _of_bundle(source, keys)
    entries = LedgerFile(source).entries()
    return ReportedStudy(), [_checked(source.stem, entries, keys)], ()


def _of_recipe(path: Path, ledgers: Sequence[AuditedLedger]) -> ReportedStudy:
    """Reads a recipe's facts, if its digest is that of a study in the ledgers."""
    from cloister.evidence.reported_study import of_recipe
    from cloister.recipe import read_run_recipe

    recipe = read_run_recipe(path)
    charged = {study for one in ledgers for study in one.verdict.history.studies}
    if recipe.digest() not in charged:
        raise UsageError(
            f"{path}: the recipe of study {recipe.digest()[:12]}, which these ledgers lack; "
            "give the recipe.toml of the run's folder"
        )
    return of_recipe(recipe)


def _of_bundle(
    source: Path, keys: Mapping[str, str]
) -> tuple[ReportedStudy, list[AuditedLedger], Sequence[str]]:
    from cloister.evidence.audit_report import AuditedLedger
    from cloister.evidence.bundle import read_bundle
    from cloister.evidence.reported_study import of_adapter
    from cloister.evidence.verification import examine

    bundle = read_bundle(source)
    findings = examine(bundle, keys)
    ledgers = [
        AuditedLedger(claim.name, bundle.sites[claim.name].ledger, claim.verdict, True)
        for claim in findings.sites
    ]
    study = of_adapter(bundle.adapter.get("cloister.json"))
    return study, ledgers, findings.checked


def _checked(
    name: str, entries: Sequence[Any], keys: Mapping[str, str], anchor: Any = None
) -> AuditedLedger:
    from cloister.evidence.audit_report import AuditedLedger
    from cloister.ledger.verify import verify

    anchors = [] if anchor is None else [anchor]
    verdict = verify(entries, name, public_key=keys.get(name), anchors=anchors)
    return AuditedLedger(name, entries, verdict, name in keys)


def _audit(path: Path) -> dict[str, Any]:
    """Reads the JSON that an audit of the mechanism printed."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        needed = {"level", "refuted", "noise_multiplier", "sample_rate"}
        sound = isinstance(document, dict) and needed <= document.keys()
    except (OSError, ValueError, RecursionError) as error:
        raise BadFileError(f"{path}: cannot be read as an audit ({error})") from error
    if not sound or not document.keys() & {"checks", "attacks"}:
        raise UsageError(f"{path}: not an audit: give the output of `cloister audit run --json`")
    found: dict[str, Any] = document
    return found
