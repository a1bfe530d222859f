"""The URL of a run: opened by fsspec, shown without passwords, read and written in bounded time."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from cloister.errors import NetworkError, UsageError
from cloister.registry.store import FolderStore, RemoteStore, open_url
from cloister.simulation.copies.manifest import (
    CLAIM,
    MANIFEST,
    MOST_MANIFEST,
    MOST_SMALL,
    Manifest,
    read_manifest,
    read_writer,
)

Found = TypeVar("Found")

# User and password before the host, up to the last `@` as a password may have one, and what follows
# the path: a signature, in some services. Azure has the container's name before an `@`.
_USER = r"(?:(?<!abfs://)(?<!abfss://)[^/?#]*|[^/?#:]*:[^/?#]*)@"
_SECRET = re.compile(rf"(?<=://){_USER}|[?#].*$", re.DOTALL)
# Seconds for a small file: as long as botocore waits for an answer, which s3fs uses.
PATIENCE = 60.0
# Most characters of a foreign error in a message: four lines of a terminal.
_LONGEST_REASON = 320
# Bytes a second below which a line counts as broken: 100 kB/s, a slow telephone line.
SLOWEST = 1e5


def shown_url(url: str) -> str:
    """Returns a URL without user, password, query and the last `/`."""
    return _SECRET.sub("", url).rstrip("/")


def reason_of(error: BaseException, url: str) -> str:
    """Returns the first line of an error, without user, password and query of a URL.

    Args:
        error: A foreign library's, which may repeat the whole URL or the password alone.
        url: The URL as it was given.
    """
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    for secret in _secrets(url):
        first = first.replace(secret, "…")
    return first if len(first) <= _LONGEST_REASON else f"{first[:_LONGEST_REASON]}…"


def _secrets(url: str) -> list[str]:
    """Returns what no message may repeat, longest first: a URL's secret parts, its passwords alone,
    and what they stand for without percent signs."""
    whole = _SECRET.findall(url)
    users = [part.removesuffix("@") for part in whole if part.endswith("@")]
    passwords = [user.partition(":")[2] for user in users]
    queries = [part.lstrip("?#") for part in whole if not part.endswith("@")]
    found = {*whole, *passwords, *queries}
    return sorted({*found, *map(unquote, found)} - {"", "@", "?", "#"}, key=len, reverse=True)


@dataclass(frozen=True)
class RunUrl:
    """The URL of a run.

    Attributes:
        shown: The URL as messages and files show it.
        store: Reads and writes its files.
        given: The URL as it was given; it may hold a password.
    """

    shown: str
    store: RemoteStore
    given: str

    @classmethod
    def open(cls, url: str) -> RunUrl:
        """Opens a URL; no file is read yet, but some kinds connect to their host.

        Raises:
            UsageError: fsspec does not know this kind of URL, or a package for it is missing.
            NetworkError: The host cannot be reached.
        """
        shown = shown_url(url)
        try:
            store = within(PATIENCE, lambda: open_url(url, shown))
        except UsageError as error:
            raise UsageError(reason_of(error, url)) from error
        except Exception as error:  # each implementation raises errors of its own
            raise _unusable(shown, url, error) from error
        if not store.root.strip("/"):
            raise UsageError(
                f"{shown}: names no folder; add one, for example {shown}/run, because a run's "
                "files lie directly in it"
            )
        return cls(shown, store, url)

    def path(self, name: str) -> str:
        """Returns a file's path for fsspec."""
        return f"{self.store.root}/{name}"

    @property
    def files(self) -> Any:
        """Returns the fsspec file system."""
        return self.store.files

    def reach(self, work: Callable[[], Found], seconds: float = PATIENCE) -> Found:
        """Does something at the URL, within a time.

        Raises:
            NetworkError: It failed or took longer; the message has no password.
        """
        try:
            return within(seconds, work)
        except Exception as error:  # each implementation raises errors of its own
            raise _unusable(self.shown, self.given, error) from error

    def reason(self, error: BaseException) -> str:
        """Returns the first line of an error, without what is secret in the URL."""
        return reason_of(error, self.given)

    def writer(self) -> str | None:
        """Returns the number of the folder that the URL belongs to; None: it belongs to none.

        Raises:
            NetworkError: The URL cannot be read.
            BadFileError: What it says is damaged.
        """
        content = self.reach(lambda: self.bytes_of(CLAIM, MOST_SMALL))
        return None if content is None else read_writer(content, f"{self.shown}/{CLAIM}")

    def manifest(self) -> Manifest | None:
        """Returns the manifest; None: there is none.

        Raises:
            NetworkError: The URL cannot be read.
            BadFileError: The manifest is damaged.
        """
        content = self.reach(lambda: self.bytes_of(MANIFEST, MOST_MANIFEST))
        return None if content is None else read_manifest(content, self.shown)

    def bytes_of(self, name: str, most: int) -> bytes | None:
        """Returns a file's bytes, one more than `most` of a longer one; None: there is none."""
        self.files.invalidate_cache()
        try:
            with self.files.open(self.path(name), "rb") as file:
                return bytes(file.read(most + 1))
        except FileNotFoundError:
            return None

    def sizes(self) -> dict[str, int]:
        """Returns the size in bytes of each file at the URL, by its path there."""
        self.files.invalidate_cache()
        found = self.files.find(self.store.root, detail=True)
        start = f"{self.store.root}/"
        return {path.removeprefix(start): int(one["size"]) for path, one in found.items()}

    def local_folder(self) -> Path | None:
        """Returns the folder of this machine that the URL names (`file://`); None: no such one."""
        from fsspec.implementations.local import LocalFileSystem

        is_local = isinstance(self.files, LocalFileSystem)
        return Path(self.store.root).resolve() if is_local else None

    def create(self, name: str, content: bytes) -> bool:
        """Writes a small file that nobody has; if it exists, leaves it unchanged and returns False.

        In a folder that fsspec opens (`file://`) we do so ourselves, since fsspec looks and then
        writes: of two writers one alone makes it, also on shares without hard links.
        """
        folder = self.local_folder()
        if folder is None:
            return self.store.create(name, content)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with (folder / name).open("xb") as file:
                file.write(content)
        except FileExistsError:
            return False
        return True

    def write_whole(self, name: str, content: bytes) -> None:
        """Writes a small file so that a reader finds the former one or this one.

        Object stores do so themselves; in a folder that fsspec opens (`file://`) we do. Over SFTP a
        reader may find a part, which it refuses.
        """
        folder = self.local_folder()
        (self.store if folder is None else FolderStore(folder)).write(name, content)


def _unusable(shown: str, url: str, error: BaseException) -> NetworkError:
    return NetworkError(
        f"{shown}: cannot be used ({reason_of(error, url)}); check the URL, the line and the "
        "credentials, and try again"
    )


def within(seconds: float, work: Callable[[], Found]) -> Found:
    """Returns the result of a call that may hang, such as one of a network's file system.

    Args:
        seconds: How long to wait; the thread of a call that takes longer is left behind.
        work: The call.

    Raises:
        TimeoutError: It took longer.
    """
    done: list[Found] = []
    failed: list[BaseException] = []

    def call() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=call, daemon=True, name="run at a URL")
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError(f"no answer in {seconds:.0f} s")
    return done[0]
