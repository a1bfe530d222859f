"""`cloister audit certificate|bundle|verify`: signs a study's cost, so that others can check it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloister.cli.keys import read_keys
from cloister.errors import BadFileError, UsageError

if TYPE_CHECKING:
    from cloister.evidence.verification import Findings, SiteClaim

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def certificate(
    source: Annotated[
        Path,
        typer.Argument(metavar="RUN|LEDGER", help="A finished simulation, or a site's ledger."),
    ],
    adapter: Annotated[
        Path | None, typer.Option(help="LEDGER: the folder of the study's adapter.")
    ] = None,
    site: Annotated[str | None, typer.Option(help="LEDGER: the site's name in the study.")] = None,
    study: Annotated[
        str | None,
        typer.Option(help="LEDGER: the study's digest, if the ledger has several studies."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="LEDGER: the site's key; absent: beside the ledger.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="LEDGER: where to write; absent: SITE.json.")] = (
        None
    ),
    as_json: AsJson = False,
) -> None:
    """Sign what a finished study cost: at a site from its ledger, for a simulation at all sites.

    Example: cloister audit certificate site.ledger --adapter adapter/ --site st-marys
    """
    if not source.exists():
        raise BadFileError(f"{source}: not found; give a run's folder or a ledger's file")
    if source.is_dir():
        written = _of_run(source)
    else:
        if adapter is None or site is None:
            raise UsageError(
                "--adapter and --site are needed with a ledger: a certificate names the study's "
                "adapter and the site's name in the study"
            )
        written = {site: _of_ledger(source, adapter, site, study, key, out or Path(f"{site}.json"))}
    if as_json:
        typer.echo(json.dumps({name: str(path) for name, path in written.items()}))
        return
    for name, path in written.items():
        typer.echo(f"{name}: {path}")


def bundle(
    certificates: Annotated[
        list[Path], typer.Argument(metavar="CERTIFICATE…", help="The certificate of every site.")
    ],
    adapter: Annotated[Path, typer.Option(help="The adapter's folder.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("bundle.zip"),
    run: Annotated[
        Path | None,
        typer.Option(help="The coordinator's run, for the list of updates that it received."),
    ] = None,
) -> None:
    """Put an adapter and its sites' certificates into one file for others to verify.

    Example: cloister audit bundle site-1.json site-2.json --adapter run/adapter --run run
    """
    from cloister.evidence.bundle import Bundle, write_bundle
    from cloister.evidence.fingerprint import adapter_files
    from cloister.ledger.certificate import read_evidence
    from cloister.server.run_directory import RunDirectory
    from cloister.simulation.certificates import received_in

    read = [read_evidence(_content(path), str(path)) for path in certificates]
    sites = {str(evidence.fields["site"]): evidence for evidence in read}
    if len(sites) != len(read):
        raise UsageError("two certificates of one site given; give one per site")
    received = received_in(RunDirectory.reopen(run)) if run else []
    write_bundle(out, Bundle(sites, adapter_files(adapter), received))
    typer.echo(f"{out}: {len(sites)} certificates; cloister audit verify checks it")


def verify(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's file.")],
    keys: Annotated[
        Path | None, typer.Option(help='The sites\' public keys: JSON, {"site": "hex", …}.')
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="SITE=HEX", help="One site's public key; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every claim of a bundle that can be checked, and name those that cannot.

    Example: cloister audit verify bundle.zip --keys keys.json
    """
    from cloister.evidence.bundle import read_bundle
    from cloister.evidence.verification import examine

    findings = examine(read_bundle(path), read_keys(keys, key or []))
    if as_json:
        document = {
            "bundle": str(path),
            "refuted": False,
            "sites": [_site_json(claim) for claim in findings.sites],
            "checked": list(findings.checked),
            "unchecked": list(findings.unchecked),
        }
        typer.echo(json.dumps(document))
    else:
        _tell(path, findings)


def _of_run(folder: Path) -> dict[str, Path]:
    from cloister.server.run_directory import RunDirectory
    from cloister.simulation.certificates import certify_run

    certified = certify_run(RunDirectory.reopen(folder))
    return {**certified.sites, "bundle": certified.bundle, "keys": certified.keys}


def _of_ledger(
    ledger: Path, adapter: Path, site: str, study: str | None, key: Path | None, out: Path
) -> Path:
    from cloister.evidence.fingerprint import adapter_files, adapter_sha256, base_sha256
    from cloister.files import write_whole
    from cloister.ledger.certificate import certify
    from cloister.ledger.ledger import key_file, now
    from cloister.ledger.signing import load_key
    from cloister.ledger.storage import LedgerFile
    from cloister.names import is_name

    if not is_name(site):
        raise UsageError(
            f"--site {site!r}: a name without / and \\ that does not begin with a dot is needed"
        )
    files = adapter_files(adapter)
    evidence = certify(
        LedgerFile(ledger).entries(),
        study,
        site=site,
        base=base_sha256(files),
        adapter=adapter_sha256(files),
        key=load_key(key or key_file(ledger)),
        time=now(),
    )
    try:
        write_whole(out, evidence.to_json())
    except OSError as error:
        raise BadFileError(f"{out}: cannot be written ({error}); name another place") from error
    return out


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read ({error.strerror})") from error


def _site_json(claim: SiteClaim) -> dict[str, Any]:
    from cloister.ledger.stated import spent

    alone = claim.verdict.promise_alone
    return {
        "site": claim.name,
        "promise": claim.verdict.promise.to_json(),
        "promise_alone": alone and alone.to_json(),
        "spent": spent(claim.verdict.history, str(claim.fields["study"])).to_json(),
        "used": claim.verdict.used.to_json(),
        **{
            name: claim.fields[name]
            for name in (
                "version",
                "study",
                "rounds",
                "released",
                "life",
                "ledger",
                "base",
                "adapter",
                "code",
            )
        },
        "received": claim.received,
    }


def _rounds(fields: Mapping[str, Any]) -> str:
    """Returns how many of the study's charged rounds were released; others are named."""
    others = {name: fields.get(name) or [] for name in ("evaluations", "votes")}
    is_trained = fields["rounds"] or not others["votes"]
    said = [f"{fields['released']} of {fields['rounds']}"] if is_trained else []
    for name, charged in others.items():
        if charged:
            said.append(f"{sum(one['released'] for one in charged)} of {len(charged)} {name}")
    return ", ".join(said)


def _tell(path: Path, findings: Findings) -> None:
    from rich.table import Table

    from cloister.cli.terminal import Terminal
    from cloister.ledger.stated import COUPLED, shown

    console = Terminal()
    first = findings.sites[0].fields
    console.print(
        f"{path}: nothing refuted. Study {first['study'][:12]}…, {findings.outcome} "
        f"{first['adapter'][:12]}…",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=None, header_style="bold")
    figures = ("ε promised", "δ", "rounds", "received", "spent so far: ε", "of budget", "both at δ")
    for column in ("site", "one", *figures):
        table.add_column(column, justify="right" if column in figures else "left")
    for claim in findings.sites:
        fields, verdict = claim.fields, claim.verdict
        table.add_row(
            claim.name,
            fields["unit"],
            shown(verdict.promise.epsilon),
            f"{verdict.promise.delta:g}",
            _rounds(fields),
            str(claim.received),
            shown(verdict.used.epsilon),
            shown(verdict.budget_epsilon),
            f"{verdict.used.delta:g}",
        )
    console.print(table)
    for claim in findings.sites:
        for figure in (claim.verdict.promise, claim.verdict.promise_alone):
            if figure is not None:
                console.print(f"{claim.name}: {figure}", highlight=False, soft_wrap=True)
        if claim.verdict.history.couples_units:
            console.print(f"{claim.name}: {COUPLED}", highlight=False, soft_wrap=True)
    console.print("What is spent so far is an indication, not a promise.", highlight=False)
    old = [claim.name for claim in findings.sites if claim.fields["version"] < 3]
    if old:
        console.print(
            f"{', '.join(old)}: the certificate has an older form, whose ε is that of the rounds "
            "that ran and not a promise; the promise was computed here from the ledger.",
            soft_wrap=True,
        )
    if any(math.isinf(claim.verdict.promise.epsilon) for claim in findings.sites):
        console.print(
            "[bold red]ε = ∞: nothing protects the records of such a site.[/]", markup=True
        )
    for title, claims in (("Checked", findings.checked), ("Not checked", findings.unchecked)):
        console.print(f"\n[bold]{title}[/]", markup=True)
        for claim_text in claims:
            console.print(f"- {claim_text}", highlight=False, soft_wrap=True)
