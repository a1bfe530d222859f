"""Backs up a coordinator's folder into one file and restores it: authority, members and runs."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from cloister.deployment.coordinator.folder import ServerFolder
from cloister.deployment.enrolment.authority import load_certificate
from cloister.deployment.enrolment.authority_key import KeyState, key_state
from cloister.errors import BadFileError, UsageError
from cloister.files import sync_folder, whole_file
from cloister.owner_only import FILE, private_folder
from cloister.staging import staging

# Not in a backup: the service creates these again, and registers the members at a new SuperLink.
LEFT_OUT = ("state", "logs", "service.json", "members.lock")
# Most bytes of a header's content, such as a long file name (Linux: 4,096 bytes).
MOST_HEADER = 2**16
# Most bytes after an archive's end: `tar` pads it to a multiple of 10,240.
MOST_REST = 2**20


class _Member(tarfile.TarInfo):
    """A header of the archive; a header of too many bytes is refused."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> _Member:
        found = super().frombuf(buf, encoding or "utf-8", errors)
        if not found.isreg() and found.size > MOST_HEADER:
            raise ValueError(f"a header of {found.size} bytes")
        return found


def back_up(folder: ServerFolder, out: Path) -> int:
    """Writes a coordinator's backup, whole or not at all; returns the number of files.

    It is readable by its owner alone.

    Raises:
        UsageError: The file exists already.
        BadFileError: It cannot be written.
    """
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out}: exists already and is not overwritten; name another file")
    count = 0
    try:
        # With its name, so that the archive leaves itself out if it is in the folder.
        with (
            whole_file(out, FILE) as file,
            tarfile.open(file.name, "w:gz", fileobj=file) as archive,
        ):
            for path in sorted(folder.path.rglob("*")):
                inner = path.relative_to(folder.path)
                # A key that is a link is stored elsewhere, for example on a stick, and backed up
                # there.
                if inner.parts[0] not in LEFT_OUT and path.is_file() and not path.is_symlink():
                    archive.add(path, str(inner))
                    count += 1
    except OSError as error:
        raise BadFileError(f"{out}: the backup cannot be written ({error})") from error
    return count


def restore(backup: Path, path: Path) -> ServerFolder:
    """Makes a coordinator's folder from its backup, completely or not at all.

    Raises:
        UsageError: The folder is not empty.
        BadFileError: The file is damaged or not a backup, or there is not enough disk space.
    """
    path = path.absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path}: not empty; restore into an empty folder")
    path = path.resolve()
    with staging(path) as stage:
        place = stage / "made"
        private_folder(place)
        _unpack(backup, place)
        made = ServerFolder.open(place)
        for part in (made.state, made.logs, made.runs):
            private_folder(part)
        if key_state(place) is KeyState.PLAIN:
            assert made.authority
        else:
            assert load_certificate(place)
        place.replace(path)  # over an empty folder too
        sync_folder(path.parent)
    return ServerFolder.open(path)


def _unpack(backup: Path, place: Path) -> None:
    """Writes regular files with plain relative names, each once, up to the free disk space.

    Raises:
        BadFileError: It has something else, or is damaged.
    """
    room = shutil.disk_usage(place).free
    try:
        with gzip.open(backup) as stream:
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as archive:
                for member in archive:
                    room -= member.size
                    source = archive.extractfile(member) if _is_plain(member) else None
                    if source is None or room < 0:
                        why = "no room for its files" if room < 0 else repr(member.name[:80])
                        raise ValueError(why)
                    target = place / member.name
                    private_folder(target.parent)
                    with target.open("xb") as file:
                        shutil.copyfileobj(source, file)
                    target.chmod(0o600 if target.suffix == ".key" else member.mode & 0o644)
            if (
                len(stream.read(MOST_REST)) == MOST_REST
            ):  # reads on, so that gzip checks its checksum
                raise ValueError("more after its end")
    except (OSError, tarfile.TarError, EOFError, ValueError, zlib.error) as error:
        raise BadFileError(
            f"{backup}: not a valid backup of a coordinator ({error}); give another"
        ) from error


def _is_plain(member: tarfile.TarInfo) -> bool:
    name = PurePosixPath(member.name)
    inside = not name.is_absolute() and ".." not in name.parts and name.parts != ()
    return member.isreg() and inside and "\0" not in member.name
