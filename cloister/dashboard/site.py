"""Reads the facts of a site's page: ε and its cap, releases, refusals, policy and health."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cloister.client.site_file import read_site
from cloister.dashboard.ledgers import LedgerFacts, read_ledger
from cloister.deployment.enrolment.documents import read_approval
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.joining import SiteMembership
from cloister.deployment.site.policy_text import approvals_in_words, in_words
from cloister.deployment.site.studies import waiting_of
from cloister.errors import CloisterError, LedgerError
from cloister.ledger.storage import LedgerFile


@dataclass(frozen=True, kw_only=True)
class SiteView:
    """The facts that a site's page shows.

    Attributes:
        name: The site's name.
        path: Its `site.toml`.
        ledger: The facts of its data set's ledger.
        processes: The processes of its service, with names; empty: it is not running.
        activity: Its agent's current or last activity.
        connection: The last problem of the connection to its coordinator.
        refusals: Why rounds were refused, oldest first.
        adapters: Final adapters that were delivered, oldest first, as `AgentFolder.delivered` has
            them.
        policy: A sentence for each limit.
        waiting: Studies that wait for approval, the newest first.
        coordinator: The coordinator's address; "": it has joined none.
        member_until: Until when it may connect, as its coordinator said; "": not known.
        member_note: What is wrong with its membership, or that it has none; "": nothing.
    """

    name: str
    path: Path
    ledger: LedgerFacts
    processes: tuple[Mapping[str, Any], ...]
    activity: Mapping[str, Any]
    connection: Mapping[str, Any]
    refusals: tuple[Mapping[str, Any], ...]
    adapters: tuple[Mapping[str, Any], ...]
    policy: tuple[str, ...]
    waiting: tuple[Mapping[str, Any], ...]
    coordinator: str
    member_until: str
    member_note: str

    @property
    def running(self) -> bool:
        """Whether the site's service is running now."""
        return bool(self.processes)


def read_site_facts(path: Path, now: datetime) -> SiteView:
    """Reads the facts from a site's folder; needs none of its keys.

    Raises:
        BadFileError: `site.toml` is missing or damaged.
        LedgerError: The ledger was not begun, or is not valid.
    """
    file = read_site(path)
    if not LedgerFile(file.ledger).is_begun:
        raise LedgerError(f"{file.ledger}: no ledger yet; cloister site init {path} begins it")
    folder = AgentFolder.of(file)
    children = (folder.running() or {}).get("children", {})
    address, until, trouble = _membership(SiteMembership.of(file), now)
    return SiteView(
        name=file.site.name,
        path=path,
        ledger=read_ledger(file.ledger, file.site.name),
        processes=tuple({"name": name, **child} for name, child in children.items()),
        activity=folder.activity(),
        connection=folder.connection(),
        refusals=tuple(folder.refusals()),
        adapters=tuple(folder.delivered()),
        policy=(*in_words(file.policy), *approvals_in_words(file.approvals)),
        waiting=tuple(waiting_of(file, now)),
        coordinator=address,
        member_until=until,
        member_note=trouble,
    )


def _membership(membership: SiteMembership, now: datetime) -> tuple[str, str, str]:
    """Returns the coordinator's address, when the site's access ends, and any problem."""
    if not (membership.path / "invite.json").exists():
        return "", "", "this site has not joined a federation yet (cloister site join)"
    try:
        address = membership.invite.address
        if not membership.is_welcome():
            return address, "", "the coordinator has not approved it yet"
        authority = membership.authority.read_bytes()
        welcome = read_approval(membership.path / "welcome.json", authority, now)
    except (OSError, CloisterError) as error:
        return "", "", str(error)
    return address, welcome.expires, ""
