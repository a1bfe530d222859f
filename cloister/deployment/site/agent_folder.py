"""The files of a running service for its operator, in `NAME.agent/` beside `site.toml`.

executor.secret   the secret that the agent shows to the site's SuperNode
service.json      the service: its pid, its children
connection.json   the last reason why the SuperNode could not connect
logs/             logs of agent and SuperNode
runtime/          the socket at which the SuperNode serves the agent
own/              files of the agent, which may run as another user; the rest is the service's
  agent.json      the agent's present activity
  refusals.jsonl  why rounds failed; for the operator only (`deployment.site.refusals`)
  proofs.json     proofs and times of studies, on synthetic records
  records.json    which records it serves: a stamp of their file
  study.json      the last admitted study, with the policy's changes
  adapters/       the final adapters of finished studies, each in a folder named by its digest
  reload          written by `cloister site reload`: read the records again, between two rounds
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloister.client.site_file import SiteFile
from cloister.deployment.processes import is_cloister
from cloister.deployment.site.refusals import Dropped, Refusals, cut
from cloister.files import write_whole
from cloister.protocol.delivery import NOTE

# Most characters of a note's field, since another party may choose its text.
MOST_NOTED = 2_000


@dataclass(frozen=True)
class AgentFolder:
    """The folder of a site's running service.

    Attributes:
        path: Absolute.
    """

    path: Path

    @classmethod
    def of(cls, file: SiteFile) -> AgentFolder:
        """Returns the folder that belongs to a `site.toml`."""
        return cls(file.path.parent / f"{file.site.name}.agent")

    @property
    def secret(self) -> Path:
        """Returns the file of the secret that SuperNode and agent share."""
        return self.path / "executor.secret"

    @property
    def service(self) -> Path:
        """Returns the file that names the running service."""
        return self.path / "service.json"

    @property
    def logs(self) -> Path:
        """Returns the folder of both processes' logs."""
        return self.path / "logs"

    @property
    def socket(self) -> Path:
        """Returns the SuperNode's Runtime API socket, in a folder that only the agent reaches."""
        return self.path / "runtime" / "supernode.sock"

    @property
    def own(self) -> Path:
        """Returns the folder of the files that the agent writes."""
        return self.path / "own"

    @property
    def proofs(self) -> Path:
        """Returns the file of stored proofs (`client.proving`)."""
        return self.own / "proofs.json"

    @property
    def adapters(self) -> Path:
        """Returns the folder of delivered adapters, one for each study (`client.delivered`)."""
        return self.own / "adapters"

    def delivered(self) -> list[dict[str, Any]]:
        """The delivered adapters, oldest first, with their folders and the coordinator's
        statements."""
        try:
            found = sorted(path for path in self.adapters.iterdir() if path.name[0] != ".")
        except OSError:
            return []
        rows = [{**_document(path / NOTE), "folder": str(path)} for path in found]
        return sorted(rows, key=lambda row: str(row.get("received", "")))

    def note_activity(self, activity: Mapping[str, Any]) -> None:
        """Notes what the agent does now."""
        said = {
            key: cut(value, MOST_NOTED) if isinstance(value, str) else value
            for key, value in activity.items()
        }
        stamped = {**said, "time": datetime.now(UTC).isoformat(timespec="seconds")}
        write_whole(self.own / "agent.json", json.dumps(stamped).encode(), mode=0o600)

    def activity(self) -> dict[str, Any]:
        """Returns what the agent did last; empty before it did anything."""
        try:
            found: dict[str, Any] = json.loads((self.own / "agent.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found

    def note_connection(self, trouble: str) -> None:
        """Writes what keeps the site from its coordinator."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        document = {"time": now, "trouble": cut(trouble, MOST_NOTED)}
        write_whole(self.path / "connection.json", json.dumps(document).encode(), mode=0o600)

    def forget_connection(self) -> None:
        """Removes what a service that has ended wrote about its connection."""
        (self.path / "connection.json").unlink(missing_ok=True)

    def connection(self) -> dict[str, Any]:
        """Returns what last kept the site from its coordinator; empty if nothing did."""
        try:
            found: dict[str, Any] = json.loads((self.path / "connection.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found

    def note_refusal(self, error: Exception, study: str, number: int) -> None:
        """Writes why a round failed."""
        self._refusals.note(error, study, number)

    def refusals(self) -> list[dict[str, Any]]:
        """Returns why rounds failed, oldest first."""
        return self._refusals.rows()

    def refusals_dropped(self) -> Dropped | None:
        """Returns how many refusals were not kept; None: all were kept."""
        return self._refusals.dropped()

    @property
    def _refusals(self) -> Refusals:
        return Refusals(self.own / "refusals.jsonl")

    def note_records(self, document: Mapping[str, Any]) -> None:
        """Notes which records the agent serves."""
        write_whole(self.own / "records.json", json.dumps(document).encode(), mode=0o600)

    def records(self) -> dict[str, Any]:
        """Which records the agent serves; empty before it served any."""
        return _document(self.own / "records.json")

    def note_study(self, document: Mapping[str, Any]) -> None:
        """Notes the study that the agent admitted."""
        write_whole(self.own / "study.json", json.dumps(document).encode(), mode=0o600)

    def study(self) -> dict[str, Any]:
        """The study that the agent admitted last; empty before it admitted any."""
        return _document(self.own / "study.json")

    def ask_reload(self) -> None:
        """Asks the agent to read the records again.

        Raises:
            OSError: The folder cannot be written.
        """
        (self.own / "reload").touch(mode=0o600)

    def take_reload(self) -> bool:
        """Returns whether the agent was asked to read the records again, and clears the request."""
        try:
            (self.own / "reload").unlink()
        except OSError:
            return False
        return True

    def running(self) -> dict[str, Any] | None:
        """Returns the running service; None if none runs."""
        try:
            document: dict[str, Any] = json.loads(self.service.read_text("utf-8"))
            pid = int(document["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return document if is_cloister(pid) else None


def _document(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found
