"""The final adapters that a site was given, each in a folder of its own.

Of what the coordinator sends only numbers are used: tensors of the study's own names and shapes,
read by the wire format. Every file is written here, from the study that the site accepted and from
its own base; no name, path, configuration or program of another party is taken.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cloister.adapter.wire import decode, digest
from cloister.errors import RefusedError
from cloister.export.adapter_folder import ReleaseFacts, export
from cloister.files import sync_folder, write_whole
from cloister.owner_only import FILE, private_folder, private_umask
from cloister.protocol.delivery import NOTE, Claim
from cloister.staging import staging
from cloister.training.workspace import Workspace


@dataclass(frozen=True)
class Deliveries:
    """Where a site keeps the final adapter of one study.

    Attributes:
        folder: Of the study's adapter; made when it comes.
        study: The study's digest.
        name: What the study is called.
        about: What the adapter says of itself, for whoever loads it at this site.
    """

    folder: Path
    study: str
    name: str
    about: ReleaseFacts

    def keep(self, payload: bytes, claim: Claim, workspace: Workspace) -> None:
        """Stores an adapter, whole or not at all; the same one again changes nothing.

        Args:
            payload: In wire format.
            claim: What the coordinator says of it.
            workspace: The study's; its parameters are overwritten.

        Raises:
            AdapterFormatError: It is not an adapter of the study's names and shapes.
            RefusedError: Another adapter of the study is here already.
            BadFileError: It cannot be written.
        """
        found = digest(payload)
        if os.path.lexists(self.folder):
            if self._kept() == found:
                return
            raise RefusedError(
                f"{self.folder}: another adapter of this study is here already, and is not "
                "written over; move it away to take the new one"
            )
        adapter = decode(payload, workspace.whole.shapes)
        private_folder(self.folder.parent)
        with private_umask(), staging(self.folder, "kept") as stage:
            inside = stage / "adapter"
            export(inside, workspace, adapter, self.about)
            (inside / "README.md").unlink(missing_ok=True)  # peft's own, which says nothing
            note = {
                "study": self.study,
                "name": self.name,
                "sha256": found,
                "claim": asdict(claim),
                "received": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            write_whole(inside / NOTE, json.dumps(note, indent=2).encode(), FILE)
            _sync(inside)
            inside.rename(self.folder)
            sync_folder(self.folder.parent)

    def _kept(self) -> str | None:
        """The SHA-256 of the adapter that is here, as it came."""
        try:
            return str(json.loads((self.folder / NOTE).read_text("utf-8"))["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _sync(folder: Path) -> None:
    """Makes files durable before the folder's name appears."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)
