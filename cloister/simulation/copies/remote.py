"""The URL of a run: opened by fsspec, shown without passwords, read and written in bounded time."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cloister.errors import NetworkError, UsageError
from cloister.registry.store import FolderStore, RemoteStore, open_url
from cloister.simulation.copies.manifest import MANIFEST, MOST_MANIFEST, Manifest, read_manifest

Found = TypeVar("Found")

# User and password before the host, and what follows the path: a signature, in some services.
_SECRET = re.compile(r"(?<=://)[^/@]*@|[?#].*$", re.DOTALL)
# Seconds for a small file: as long as botocore waits for an answer, which s3fs uses.
PATIENCE = 60.0
# Most characters of a foreign error in a message: four lines of a terminal.
_LONGEST_REASON = 320
# Bytes a second below which a line counts as broken: 100 kB/s, a slow telephone line.
SLOWEST = 1e5


def shown_url(url: str) -> str:
    """Returns a URL without user, password, query and the last `/`."""
    return _SECRET.sub("", url).rstrip("/")


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
        """Opens a URL; nothing is read yet.

        Raises:
            UsageError: fsspec does not know this kind of URL, or a package for it is missing.
        """
        shown = shown_url(url)
        store = open_url(url, shown)
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
            raise NetworkError(
                f"{self.shown}: cannot be used ({self.reason(error)}); check the URL, the line and "
                "the credentials, and try again"
            ) from error

    def reason(self, error: BaseException) -> str:
        """Returns the first line of an error, without user and password of the URL."""
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        for secret in _SECRET.findall(self.given):
            first = first.replace(secret, "…")
        return first if len(first) <= _LONGEST_REASON else f"{first[:_LONGEST_REASON]}…"

    def manifest(self) -> Manifest | None:
        """Returns the manifest; None: there is none.

        Raises:
            NetworkError: The URL cannot be read.
            BadFileError: The manifest is damaged.
        """
        content = self.reach(self._manifest_bytes)
        return None if content is None else read_manifest(content, self.shown)

    def _manifest_bytes(self) -> bytes | None:
        self.files.invalidate_cache()
        try:
            with self.files.open(self.path(MANIFEST), "rb") as file:
                return bytes(file.read(MOST_MANIFEST + 1))
        except FileNotFoundError:
            return None

    def local_folder(self) -> Path | None:
        """Returns the folder of this machine that the URL names (`file://`); None: no such one."""
        from fsspec.implementations.local import LocalFileSystem

        is_local = isinstance(self.files, LocalFileSystem)
        return Path(self.store.root).resolve() if is_local else None

    def write_whole(self, name: str, content: bytes) -> None:
        """Writes a small file so that a reader finds the former one or this one.

        Object stores do so themselves; in a folder that fsspec opens (`file://`) we do.
        """
        folder = self.local_folder()
        (self.store if folder is None else FolderStore(folder)).write(name, content)


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
