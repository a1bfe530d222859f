"""`cloister site backup|restore`: writes everything that a site owns into one file, and restores
it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli.arguments import AsJson

if TYPE_CHECKING:
    from cloister.deployment.site.backup import Sound
    from cloister.deployment.site.restore import Restored


def backup(
    site: Annotated[
        Path, typer.Argument(metavar="SITE.TOML|FOLDER", help="The site's file, or its folder.")
    ] = Path("site.toml"),
    out: Annotated[
        Path | None, typer.Option(help="File to write. Absent: NAME.backup.tar here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write ledger, keys, membership and notes into one file; the site may keep running.

    The records are not in it.

    Example: cloister site backup site.toml --out st-marys.backup.tar
    """
    from cloister.deployment.site.backup import back_up
    from cloister.names import counted

    made = back_up(site, out)
    if as_json:
        facts = {
            "backup": str(made.path),
            "site": made.site,
            "files": list(made.names),
            "readable_by_others": made.exposed,
        }
        typer.echo(json.dumps(facts | _facts(made.ledger)))
        return
    typer.echo(
        f"{made.path}: {made.site} as it is now, {counted(len(made.names), 'file')}, keys among "
        f"them: keep it as you keep keys, on another disk.\n{_ledger(made.ledger)}\n"
        "The records are not in it, nor the base. It is out of date once the site releases again."
    )
    if made.exposed:
        typer.echo(
            f"{made.path}: others may read it, because its file system has no access rights: move "
            "it where they cannot",
            err=True,
        )


def restore(
    file: Annotated[Path, typer.Argument(metavar="BACKUP", help="The file that `backup` wrote.")],
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER", help="A new or empty folder. Absent: the site's name, here."
        ),
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(help="The ledger's path, if site.toml keeps it outside of the folder."),
    ] = None,
    head: Annotated[
        Path | None,
        typer.Option(help="The ledger's last head, kept by somebody else (ledger export --head)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Restore a site from its backup, completely or not at all; never over an existing site.

    Example: cloister site restore st-marys.backup.tar st-marys --head head.json
    """
    from cloister.deployment.site.restore import restore as restored
    from cloister.ledger.anchor import read_anchor

    made = restored(file, folder, ledger=ledger, seen=read_anchor(head) if head else None)
    if as_json:
        facts = {
            "site": made.file.site.name,
            "folder": str(made.file.path.parent),
            "made": made.made,
            "ledger_kept": made.kept,
            "records": str(made.file.data),
            "records_there": made.file.data.exists(),
            "approvals_of_others": {str(path): uid for path, uid in made.strangers.items()},
        }
        typer.echo(json.dumps(facts | _facts(made.ledger)))
        return
    typer.echo(_told(made))


def _told(made: Restored) -> str:
    file = made.file
    missing = "" if file.data.exists() else ": put them back there, they are in no backup"
    return (
        f"{file.path.parent}: {file.site.name} is restored, as of {made.made}.\n"
        + (f"{file.ledger}: existed already and continues the backup's; it was kept.\n" * made.kept)
        + f"{_ledger(made.ledger)}\n"
        f"Its records: {file.data}{missing}.\n"
        f"{OLDER}\n"
        + "".join(
            f"As root: chown {uid} '{path}' (its approvals are that account's; until then no study "
            "is approved)\n"
            for path, uid in made.strangers.items()
        )
        + "Never run this site beside the one that it replaces: both would spend one budget.\n"
        f"next: cloister site doctor {file.path}"
    )


# The warning that a backup may be older than the site's last release.
OLDER = (
    "Whatever was charged after that is not in this ledger. If the coordinator has received "
    "anything since, its next question names an entry that is not in this ledger, and the site "
    "refuses every question: answering would release a round a second time, with other bytes. Then "
    "move this folder away and restore the newest backup. If none is new enough, this ledger "
    "cannot continue: docs/deployment.md says what can be done."
)


def _ledger(ledger: Sound) -> str:

    verdict = ledger.verdict
    return (
        f"Its ledger is valid: {len(ledger.entries):,} entries, the last one (entry "
        f"{verdict.head.seq}) of {ledger.time}, head {verdict.head.hash};\n"
        f"{verdict.charged} charged, {verdict.releases} released, with their "
        f"bytes. {verdict.promise}.\n{verdict.of_budget}."
    )


def _facts(ledger: Sound) -> dict[str, object]:
    verdict = ledger.verdict
    return {
        "seq": verdict.head.seq,
        "hash": verdict.head.hash,
        "key": verdict.public_key,
        "entries": len(ledger.entries),
        "time": ledger.time,
        "charges": verdict.charges,
        "releases": verdict.releases,
        "promise": verdict.promise.to_json(),
        "used": verdict.used.to_json(),
    }
