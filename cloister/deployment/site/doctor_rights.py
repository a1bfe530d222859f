"""Checks that other users have no access rights to a site's files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cloister.client.personal import PersonalAdapter
from cloister.client.site_file import SiteFile
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.checks import CheckLevel, Outcome
from cloister.deployment.site.joining import SiteMembership
from cloister.owner_only import exposed

NAME = "rights"


def rights(file: SiteFile) -> Outcome:
    """Checks that other users have no rights; the agent's user may pass through its folder.

    Cloister closes its own files when it opens them. Records, `site.toml` and the ledger's folder
    are the operator's responsibility, and so are files of other users.
    """
    writable = [*_with(file, "write")]
    readable = [*_with(file, "read")]
    if not writable and not readable:
        return Outcome(NAME, CheckLevel.PASS, "nobody else may read records, ledger, keys or notes")
    found = dict.fromkeys([*writable, *readable])
    detail = "; ".join(f"others may {exposed(path)} {path}" for path in found)
    places = " ".join(f"'{path}'" for path in found)
    return Outcome(
        NAME,
        CheckLevel.FAIL if writable else CheckLevel.WARN,
        detail,
        f"chmod go= {places}; others may have read them: check who has an account here",
    )


def _with(file: SiteFile, right: str) -> Iterator[Path]:
    """Files that others may wrongly read or write."""
    for path in _private(file):
        if right in exposed(path):
            yield path
    folder = file.ledger.parent
    if right in exposed(folder) and not (right == "write" and _is_sticky(folder)):
        yield folder  # with write access this ledger could be replaced by another
    if right == "write" and right in exposed(file.path):
        yield file.path


def _private(file: SiteFile) -> Iterator[Path]:
    yield file.data
    ledger = file.ledger
    for ending in ("", ".head", ".key", ".lock"):
        yield ledger.with_name(ledger.name + ending)
    personal = PersonalAdapter.beside(ledger, "").folder
    agent = AgentFolder.of(file)
    membership = SiteMembership.of(file)
    yield membership.path
    yield membership.node_key  # the other files are public
    for folder in (personal, agent.path, agent.own, agent.logs):
        yield folder
        if folder.is_dir() and folder != agent.path and "enter" in exposed(folder):
            yield from sorted(path for path in folder.iterdir() if path.is_file())


def _is_sticky(path: Path) -> bool:
    """Whether users may remove only their own files, as in /tmp."""
    return bool(path.stat().st_mode & 0o1000)
