"""Writes files completely or not at all, and makes stamps to detect whether a file changed."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from cloister.bounds import shortened
from cloister.errors import BadFileError

# Age in seconds from which a file's times are reliable: a younger file may change again without a
# change of its times, whose resolution is between a tick of the kernel (4 ms) and 2 s (FAT).
SETTLED = 2.0
# Kinds of paths that are not files, by the type bits of their mode.
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def why_no_file(path: Path) -> str | None:
    """Returns why a path cannot be read as a file, following links; None: it is a regular file.

    Nothing is opened: opening a pipe would wait for its writer, and a device may never end.
    """
    try:
        return _other_kind(path.stat().st_mode)
    except ValueError:  # a name that no file system allows
        return "no such file"
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "is a link to itself"
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return "is a link to a file that does not exist" if _is_link(path) else "no such file"
        return f"cannot be accessed ({error.strerror})"


def open_file(path: Path) -> BufferedReader:
    """Opens a regular file to read its bytes; refuses everything else.

    Raises:
        OSError: It is not a regular file (a pipe, a device, a folder), or cannot be read.

    Guarantees:
        It does not wait: the path is checked before it is opened and, since it may have been
        replaced, again once it is open.
    """
    if (why := why_no_file(path)) is not None and not why.startswith("cannot"):
        missing = why == "no such file"
        raise OSError(errno.ENOENT if missing else errno.EINVAL, why, str(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if (other := _other_kind(os.fstat(descriptor).st_mode)) is not None:
            raise OSError(errno.EINVAL, other, str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except OSError:  # a name too long to be one
        return False


def _other_kind(mode: int) -> str | None:
    if stat.S_ISREG(mode):
        return None
    return f"is {_KINDS.get(stat.S_IFMT(mode), 'something else')}, not a file"


# Longest path that a message shows completely, in characters: the longest name of a file on Linux.
LONGEST_SHOWN = 255


@dataclass(frozen=True)
class Stamp:
    """Values by which one can tell whether a file is still the one that was read.

    Attributes:
        path: Its path.
        size: Its size in bytes.
        mtime_ns: Time of its last change, in ns.
        sha256: SHA-256 of its content.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str


def stamp_of(path: Path) -> Stamp:
    """Returns the stamp of a file as it is now.

    A file whose times were reliable when it was hashed is not hashed again while inode, size and
    times are the same.

    Raises:
        OSError: The file cannot be read.
    """
    status = path.stat()
    place = str(path.absolute())
    changed = max(status.st_mtime, status.st_ctime)
    if time.time() - changed < SETTLED:
        found = _sha256(place)
    else:
        found = _settled_sha256(
            place, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )
    return Stamp(place, status.st_size, status.st_mtime_ns, found)


@lru_cache(maxsize=1024)
def _settled_sha256(path: str, inode: int, size: int, mtime_ns: int, ctime_ns: int) -> str:
    """Returns the hash; the arguments other than the path are only for the cache's key."""
    return _sha256(path)


def _sha256(path: str) -> str:
    with open_file(Path(path)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity_of(path: Path) -> tuple[int, ...]:
    """Returns values that change when a file is replaced or written: device, inode, size, time.

    Raises:
        OSError: The file cannot be accessed.
    """
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def bad_file(error: OSError | ValueError, what: str = "read or written") -> BadFileError:
    """Returns an error of the operating system as ours, with the path and the reason.

    Args:
        error: OSError; or ValueError, which Python raises for a path with a NUL byte.
        what: What could not be done with the file.
    """
    if isinstance(error, ValueError):
        return BadFileError(f"a path with a NUL byte given ({error}); give another path")
    reason = (error.strerror or str(error) or type(error).__name__).splitlines()[0]
    names = [
        os.fsdecode(name)
        for name in (error.filename, error.filename2)
        if isinstance(name, str | bytes)
    ]
    places = " and ".join(name if len(name) <= LONGEST_SHOWN else shortened(name) for name in names)
    if not places:
        return BadFileError(f"a file cannot be {what} ({reason}); correct this and try again")
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = "make room there and try again" if is_full else "correct this one"
    return BadFileError(f"{places}: cannot be {what} ({reason}); give another path, or {advice}")


def write_whole(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Writes a file so that it is complete or does not exist, also after a power cut.

    Args:
        path: Its path.
        content: Its whole content.
        mode: Its access rights, from the first byte on.
    """
    with whole_file(path, mode) as file:
        file.write(content)


@contextmanager
def whole_file(path: Path, mode: int = 0o644, *, is_new: bool = False) -> Iterator[BinaryIO]:
    """Opens a file to write, which is complete or does not exist, also after a power cut.

    Args:
        path: Its path; an existing file is replaced at the end, and not before.
        mode: Its access rights, from the first byte on.
        is_new: Refuse a path that exists at the end, atomically; this needs hard links.

    Yields:
        The file under a temporary name beside `path` (its `name`, for hashing it after a flush).
        The block leaves it open.

    Raises:
        FileExistsError: With `is_new`: the path exists.
        OSError: The file cannot be written; it names a path.

    Guarantees:
        If the block or the writing fails, the temporary file is removed and `path` is as it was.
    """
    # The longest name of Linux has 255 bytes; this one is 10 longer than what is kept of `path`'s.
    kept = os.fsdecode(os.fsencode(path.name)[:200])
    temporary = path.with_name(f".{kept}.{secrets.token_hex(4)}")

    # O_EXCL ("x") with a random name: never follow a symlink that somebody planted in the folder to
    # choose which file is overwritten.
    with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        try:
            yield file
            sync(file)
            if is_new:
                os.link(temporary, path)
                temporary.unlink()
                sync_folder(path.parent)
            else:
                publish(temporary, path)
        except BaseException as error:
            with suppress(OSError):  # on a full disk closing fails again
                file.close()
            temporary.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.filename is None:  # e.g. of a full disk
                error.filename = str(path)
            raise


def sync(file: BinaryIO) -> None:
    """Syncs a file's content to disk, including what is still buffered."""
    file.flush()
    os.fsync(file.fileno())


def publish(temporary: Path, path: Path) -> None:
    """Gives a synced file its final name, durably; a file with that name is replaced."""
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Syncs a folder, so that a new name in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
