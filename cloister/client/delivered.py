"""Stores the final adapters that a site receives, each in a folder of its own.

Only numbers are taken from the coordinator: tensors with the study's names and shapes, in the wire
format. The site writes every file itself, from the study that it accepted and from its own base; it
takes no name, path, configuration or program of another party.
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
    """Stores the final adapter of one study at a site.

    Attributes:
        folder: Folder of the study's adapter; made when the adapter comes.
        study: The study's digest.
        name: The study's name.
        about: The facts that are stored with the adapter, for programs that load it at this site.
    """

    folder: Path
    study: str
    name: str
    about: ReleaseFacts

    def keep(self, payload: bytes, claim: Claim, workspace: Workspace) -> None:
        """Stores an adapter whole or not at all; storing the same adapter again changes nothing.

        Args:
            payload: The adapter in wire format.
            claim: The coordinator's statement about it.
            workspace: The study's; its parameters are overwritten.

        Raises:
            AdapterFormatError: The payload is not an adapter with the study's names and shapes.
            RefusedError: Another adapter of the study is stored already.
            BadFileError: It cannot be written.
        """
        found = digest(payload)
        if os.path.lexists(self.folder):
            if self._kept() == found:
                return
            raise RefusedError(
                f"{self.folder}: another adapter of this study is stored here and is not "
                "overwritten; move it away to take the new one"
            )
        adapter = decode(payload, workspace.whole.shapes)
        private_folder(self.folder.parent)
        with private_umask(), staging(self.folder, "kept") as stage:
            inside = stage / "adapter"
            export(inside, workspace, adapter, self.about)
            (inside / "README.md").unlink(missing_ok=True)  # peft's empty model card
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
        """The SHA-256 of the stored adapter as it was received; None if it cannot be read."""
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
