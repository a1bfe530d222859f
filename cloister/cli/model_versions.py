"""`cloister model list|show|promote|rollback|diff|rule|key`: versions of finished models."""

from __future__ import annotations

import getpass
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from cloister.registry.registry import Promoted

REGISTRY = typer.Option(
    "--registry", envvar="CLOISTER_REGISTRY", help="The registry: a folder, or an fsspec URL."
)
Place = Annotated[str, REGISTRY]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")]
StageName = Annotated[str, typer.Option("--stage", help="The stage where the version is served.")]
By = Annotated[
    str | None,
    typer.Option("--by", help="Name of the person who promotes. Absent: the user of this machine."),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key", metavar="FILE", help="Your private key; needed if the registry names approvers."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def list_models(registry: Place, as_json: AsJson = False) -> None:
    """List the models of a registry, with the version of each that is served.

    Example: cloister model list --registry models
    """
    from cloister.errors import UsageError
    from cloister.registry.registry import SHOWN, open_registry

    opened = open_registry(registry)
    found = {
        name: {stage: asdict(state) for stage, state in opened.stages(name).items()}
        for name in opened.models()
    }
    if as_json:
        typer.echo(json.dumps({"registry": registry, "models": found}))
        return
    if not found and not opened.exists():
        raise UsageError(
            f"--registry {registry}: nothing is there; look at the path, or make a registry by "
            f"cloister model promote RUN --as NAME --registry {registry}"
        )
    if not found:
        typer.echo(
            f"no model in {registry} yet: cloister model promote RUN --as NAME --registry "
            f"{registry} adds one"
        )
    for name, by_stage in found.items():
        for stage, state in by_stage.items():
            served = state["served"][-1][:SHOWN] if state["served"] else "nothing"
            waits = (
                f"; {state['pending'][:SHOWN]} waits, promoted by {', '.join(state['agreed'])}"
                if state["pending"]
                else ""
            )
            typer.echo(f"{name}  {stage}  {served}{waits}")


def show(
    name: Name,
    registry: Place,
    version: Annotated[
        str | None,
        typer.Option(help="First digits of a version. Absent: the one served in production."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page to show around: a new HTML file."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show where a version comes from, and who promoted what.

    Example: cloister model show triage --registry models
    """
    from cloister.registry.registry import SHOWN, open_registry

    opened = open_registry(registry)
    chosen = opened.version(name, version) if version else opened.current(name)
    lineage, log = opened.lineage(chosen), opened.log(name)
    if html is not None:
        from cloister.registry.page import version_page, write_version_page

        write_version_page(html, version_page(name, lineage, log, opened.stages(name)))
    if as_json:
        entries = [asdict(one) for one in log]
        typer.echo(json.dumps({"lineage": lineage, "log": entries}))
        return
    for field in ("sha256", "task", "base", "base_sha256", "recipe_sha256"):
        typer.echo(f"{field:14} {lineage[field]}")
    for site, promise in lineage["promises"].items():
        epsilon = promise["epsilon"] if promise["epsilon"] is not None else "∞"
        typer.echo(
            f"promised       {site}: ε = {epsilon}, δ = {promise['delta']}, for one "
            f"{promise['unit']}, against {', '.join(promise['adversaries'])}, by "
            f"{promise['accountant']}"
        )
    for site, head in lineage["ledgers"].items():
        typer.echo(f"ledger         {site}: entry {head['seq']}, {head['hash']}")
    for file, sha256 in lineage["certificates"].items():
        typer.echo(f"certificate    {file}: {sha256}")
    for metric, value in lineage["metrics"].items():
        typer.echo(f"score          {metric} {_shown(value)}")
    for one in log:
        entry = one.entry
        typer.echo(
            f"{entry.number:>4}  {entry.at}  {entry.kind}  {entry.version[:SHOWN]}  {entry.stage}  "
            f"{entry.by}{'' if one.signature else ' (unsigned)'}"
        )


def promote(
    run: Annotated[Path, typer.Argument(metavar="RUN_OR_ADAPTER", help="A run or its adapter.")],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="The model's name.")],
    registry: Place,
    stage: StageName = "production",
    by: By = None,
    key: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Promote a finished run: store it as a version, and serve it if enough people promote it.

    Example: cloister model promote runs/clinics --as triage --registry models
    """
    from cloister.registry.registry import open_registry

    said = open_registry(registry).promote(
        run, name, datetime.now(UTC), by=by or getpass.getuser(), stage=stage, key=_key(key)
    )
    _say(name, said, as_json)


def rollback(
    name: Name,
    registry: Place,
    stage: StageName = "production",
    by: By = None,
    key: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Promote the previous version again, the one served before the present one.

    Example: cloister model rollback triage --registry models
    """
    from cloister.registry.registry import open_registry

    said = open_registry(registry).rollback(
        name, datetime.now(UTC), by=by or getpass.getuser(), stage=stage, key=_key(key)
    )
    _say(name, said, as_json)


def diff(
    name: Name,
    registry: Place,
    first: Annotated[
        str | None, typer.Argument(metavar="VERSION", help="First digits of a version.")
    ] = None,
    second: Annotated[
        str | None, typer.Argument(metavar="VERSION", help="First digits of the other.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how two versions differ: recipe, promised ε, scores, norms of the weights.

    Without versions: the one served in production, and the one before.

    Example: cloister model diff triage --registry models
    """
    from cloister.errors import UsageError
    from cloister.registry.difference import difference
    from cloister.registry.registry import PRODUCTION, SHOWN, open_registry

    opened = open_registry(registry)
    if (first is None) != (second is None):
        raise UsageError("one version given; give two, or none for the last two in production")
    if first is not None and second is not None:
        pair = (opened.version(name, first), opened.version(name, second))
    else:
        opened.current(name)
        served = opened.stages(name)[PRODUCTION].served
        if len(served) < 2:
            raise UsageError(f"{name}: one version was served in production; give two versions")
        pair = (served[-2], served[-1])
    found = difference(*(opened.lineage(version) for version in pair))
    if as_json:
        typer.echo(json.dumps({"versions": pair, "differences": found}))
        return
    typer.echo(f"{pair[0][:SHOWN]} → {pair[1][:SHOWN]}")
    for part, fields in found.items():
        for field, (before, after) in fields.items():
            typer.echo(f"{part}  {field}: {_shown(before)} → {_shown(after)}")


def rule(
    registry: Place,
    needs: Annotated[
        int | None, typer.Option(min=1, help="How many different people must promote.")
    ] = None,
    approver: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=HEX", help="A person's public key; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print who must promote; with --needs or --approver, declare it.

    --approver replaces the whole list of people who may promote. Anyone who is not named again
    may no longer promote, and their earlier signatures no longer count.

    Example: cloister model rule --registry models --needs 2 --approver ann=HEX --approver bo=HEX
    """
    from cloister.errors import UsageError
    from cloister.registry.registry import open_registry
    from cloister.registry.rule import PromotionRule, write_rule

    opened = open_registry(registry)
    now = opened.rule()
    if needs is not None or approver:
        people = dict(now.approvers)
        if approver:
            odd = [one for one in approver if "=" not in one]
            if odd:
                raise UsageError(f"--approver {odd[0]}: NAME=HEX is needed")
            people = {one.partition("=")[0]: one.partition("=")[2] for one in approver}
            if len(people) < len(approver):
                raise UsageError("--approver: a name is given twice")
        now = PromotionRule(now.needs if needs is None else needs, people)
        write_rule(opened.store, now)
    if as_json:
        typer.echo(json.dumps({"needs": now.needs, "approvers": dict(now.approvers)}))
        return
    typer.echo(f"{now.needs} must promote")
    for person, public in now.approvers.items():
        typer.echo(f"{person}  {public}")
    if not now.approvers:
        typer.echo("anybody who can write the registry, unsigned")


def key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file for your private key.")],
) -> None:
    """Make a key with which you sign promotions; print its public half.

    Only you can read the file.

    Example: cloister model key ann.pem
    """
    from cloister.errors import UsageError
    from cloister.ledger.signing import create_key, public_hex

    if file.exists():
        raise UsageError(f"{file} exists already and is not overwritten; choose another file")
    typer.echo(public_hex(create_key(file)))


def _key(file: Path | None) -> Ed25519PrivateKey | None:
    from cloister.errors import BadFileError
    from cloister.files import bad_file
    from cloister.ledger.signing import read_pem

    if file is None:
        return None
    try:
        return read_pem(file)
    except OSError as error:
        raise bad_file(error, "read") from error
    except ValueError as error:  # cryptography's message says nothing useful
        raise BadFileError(
            f"{file}: not an Ed25519 private key without a passphrase; cloister model key makes one"
        ) from error


def _say(name: str, said: Promoted, as_json: bool) -> None:
    from cloister.registry.registry import SHOWN

    if as_json:
        typer.echo(json.dumps({"model": name, **asdict(said)}))
    elif said.is_served:
        typer.echo(f"{name}: version {said.version[:SHOWN]} is served at {said.stage} now")
    else:
        typer.echo(
            f"{name}: version {said.version[:SHOWN]} waits at {said.stage}: {len(said.agreed)} of "
            f"{said.needs} people promoted it ({', '.join(said.agreed)})"
        )


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "–" if value is None else json.dumps(value, ensure_ascii=False)
