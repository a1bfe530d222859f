"""A coordinator's folder in one file, and back: authority, members, runs; not Flower's state."""

from __future__ import annotations

import tarfile
from pathlib import Path

from cloister.errors import BadFileError, UsageError
from cloister.provisioning.authority import load_certificate
from cloister.provisioning.authority_key import KeyState, key_state
from cloister.server.folder import ServerFolder

# Made anew by the service; a SuperLink that starts empty is told who may connect.
LEFT_OUT = ("state", "logs", "service.json", "members.lock")


def back_up(folder: ServerFolder, out: Path) -> int:
    """Writes a coordinator's backup, readable by its owner alone; returns the number of files.

    Raises:
        UsageError: The file is there already.
        BadFileError: It cannot be written.
    """
    if out.exists():
        raise UsageError(f"{out}: is there already and is not written over; name another file")
    count = 0
    try:
        out.touch(mode=0o600)
        with tarfile.open(out, "w:gz") as archive:
            for path in sorted(folder.path.rglob("*")):
                inner = path.relative_to(folder.path)
                # A key that is a link lies elsewhere, on a stick say, and is backed up there.
                if inner.parts[0] not in LEFT_OUT and path.is_file() and not path.is_symlink():
                    archive.add(path, str(inner))
                    count += 1
    except OSError as error:
        raise BadFileError(f"{out}: the backup cannot be written ({error})") from error
    return count


def restore(backup: Path, path: Path) -> ServerFolder:
    """Makes a coordinator's folder from its backup.

    Raises:
        UsageError: The folder holds something already.
        BadFileError: The backup is damaged, or none.
    """
    if path.exists() and any(path.iterdir()):
        raise UsageError(f"{path}: holds something already; restore into an empty folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
        with tarfile.open(backup, "r:gz") as archive:
            archive.extractall(path, filter="data")
    except (OSError, tarfile.TarError, EOFError) as error:
        raise BadFileError(f"{backup}: no sound backup of a coordinator ({error})") from error
    for key in path.glob("*.key"):
        key.chmod(0o600)
    folder = ServerFolder.open(path)
    for part in (folder.state, folder.logs, folder.runs):
        part.mkdir(exist_ok=True)
        part.chmod(0o700)
    if key_state(path) is KeyState.PLAIN:
        assert folder.authority
    else:
        assert load_certificate(path)
    return folder
