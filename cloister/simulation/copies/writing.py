"""Copies what changed in a run's folder to its URL: after each closed round, and at the end.

A copy that fails does not touch the run. It is said once, and the next round tries again with all
that is missing. The state at the URL stays whole meanwhile (`copies.manifest`).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cloister import __version__
from cloister.errors import BadFileError, NetworkError, UsageError
from cloister.files import stamp_of
from cloister.ledger.chain import Head
from cloister.ledger.entries_copy import EntriesCopy
from cloister.server.run_directory import RunDirectory
from cloister.simulation.copies.files import LEDGER, copied_files
from cloister.simulation.copies.manifest import CLAIM, MANIFEST, CopiedFile, Manifest
from cloister.simulation.copies.remote import PATIENCE, SLOWEST, RunUrl, within

_HEAD = ".head"


@dataclass(frozen=True)
class _Local:
    """A file as it is in the folder now."""

    size: int
    sha256: str
    content: Path | bytes


class RunCopy:
    """Copies one run's folder to its URL.

    Args:
        url: The URL, which belongs to this folder.
        run: The folder.
        writer: The folder's random number.
        last: The manifest at the URL; None: there is none.

    Attributes:
        url: The URL.
        run: The folder.
        note: Shows a line to the user.
        warn: Shows a warning.
    """

    def __init__(
        self,
        url: RunUrl,
        run: RunDirectory,
        writer: str,
        last: Manifest | None,
    ) -> None:
        self.url, self.run = url, run
        self._writer, self._last = writer, last
        self.note: Callable[[str], None] = lambda text: None
        self.warn: Callable[[str], None] = lambda text: None
        self._ledgers: dict[str, EntriesCopy] = {}
        self._unremoved: set[str] = set()
        self._busy: threading.Event | None = None
        self._is_behind = False
        self._folders: set[str] = set()

    def after_round(self, number: int) -> None:
        """Copies what changed; a failure is a warning, once until a copy succeeds again."""
        problem = self._try()
        if problem is None and self._is_behind:
            self.note(f"{self.url.shown}: complete again, with round {number}")
        elif problem is not None and not self._is_behind:
            self.warn(
                f"{self.url.shown}: round {number} could not be copied ({problem}); the run goes "
                f"on in {self.run.path}, and each round tries again"
            )
        self._is_behind = problem is not None

    def at_end(self) -> None:
        """Copies all that is missing, and gives every file its own place.

        Raises:
            NetworkError: The copy is not complete.
        """
        problem = self._try()
        if problem is not None:
            there = "nothing of it is there" if self._last is None else f"there: {self._last}"
            raise NetworkError(
                f"{self.url.shown}: the copy is not complete ({problem}); {there}. Nothing is "
                f"lost: the run is in {self.run.path}. To copy the rest: cloister simulate "
                f"--resume --out {self.url.shown} --work {self.run.path}"
            )

    def _try(self) -> str | None:
        """Copies what changed; returns why not, None: the copy is complete."""
        if self._busy is not None and not self._busy.is_set():
            return "the copy before is still waiting for an answer"
        try:
            while self._copy():
                pass
        except Exception as error:  # each file system of fsspec raises errors of its own
            return self.url.reason(error)
        return None

    def _copy(self) -> bool:
        """Copies what changed; returns whether files are to be moved to their own place."""
        last = self._last
        known = {} if last is None else dict(last.files)
        local, heads = self._local()
        files: dict[str, CopiedFile] = {}
        changed: dict[str, _Local] = {}
        is_finished = self.run.result_file.is_file()
        for path, file in local.items():
            before = known.get(path)
            is_same = before is not None and (before.size, before.sha256) == (
                file.size,
                file.sha256,
            )
            settles = is_finished and last is not None and last.is_finished
            if before is not None and is_same and not (settles and before.is_other):
                files[path] = before
                continue
            is_other = before is not None and not before.is_other
            files[path] = CopiedFile(file.size, file.sha256, is_other)
            changed[files[path].place(path)] = file
        rows = self.run.metrics()
        made = Manifest(
            writer=self._writer,
            round=int(rows[-1]["round"]) if rows else 0,
            is_finished=is_finished,
            written=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            version=__version__,
            heads=heads,
            files=files,
        )
        if last is not None and files == known and is_finished == last.is_finished:
            return False
        self._check_claim()
        self._send(changed, made)
        return is_finished and any(file.is_other for file in files.values())

    def _local(self) -> tuple[dict[str, _Local], dict[str, Head]]:
        """Returns the files as they are now, and the heads of the ledgers."""
        found: dict[str, _Local] = {}
        heads = {}
        for path in copied_files(self.run.path):
            if path.endswith(LEDGER + _HEAD):
                continue  # beside its ledger, below
            if not path.endswith(LEDGER):
                stamp = stamp_of(self.run.path / path)
                found[path] = _Local(stamp.size, stamp.sha256, self.run.path / path)
                continue
            ledger = self._ledgers.setdefault(path, EntriesCopy(self.run.path / path))
            heads[Path(path).stem] = ledger.follow()
            for name, content in ((path, ledger.content()), (path + _HEAD, ledger.head_content())):
                found[name] = _Local(len(content), hashlib.sha256(content).hexdigest(), content)
        return found, heads

    def _send(self, changed: dict[str, _Local], made: Manifest) -> None:
        """Writes files, then the manifest; then removes what only the one before names.

        A call that does not come back in time is left behind. It writes no manifest when it does
        come back, because files of the folder may have changed since.
        """
        left, done = threading.Event(), threading.Event()
        former = {} if self._last is None else self._last.files
        current = {file.place(path) for path, file in made.files.items()}
        self._unremoved |= {file.place(path) for path, file in former.items()} - current
        self._unremoved -= current

        def send() -> None:
            try:
                for place, file in changed.items():
                    if left.is_set():
                        return
                    self._put(place, file.content)
                if not left.is_set():
                    self.url.write_whole(MANIFEST, made.to_bytes())
                    self._last = made
                    self._remove()
            finally:
                done.set()

        self._busy = done
        size = sum(file.size for file in changed.values())
        try:
            within(PATIENCE + size / SLOWEST, send)
        finally:
            left.set()

    def _check_claim(self) -> None:
        """Refuses to copy to a URL that is no longer this folder's.

        Not every kind of URL can let one of two writers alone make a file: after both began at
        once, the one that wrote last goes on.
        """
        if self.url.writer() != self._writer:
            raise UsageError(f"{CLAIM} there names another folder, or is gone: choose another URL")

    def _own_path(self, place: str) -> str:
        """Returns a file's path at the URL; in a folder of this machine no link leads out of it."""
        folder = self.url.local_folder()
        if folder is not None and (folder / place).resolve() != folder / place:
            raise BadFileError(f"{place} is a link there, which is not followed; remove it")
        return self.url.path(place)

    def _put(self, place: str, content: Path | bytes) -> None:
        path = self._own_path(place)
        folder = path.rpartition("/")[0]
        if folder not in self._folders:
            self.url.files.makedirs(folder, exist_ok=True)
            self._folders.add(folder)
        if isinstance(content, bytes):
            self.url.files.pipe_file(path, content)
        else:
            self.url.files.put_file(str(content), path)

    def _remove(self) -> None:
        """Removes files that no manifest names; what cannot be removed is tried again."""
        for place in sorted(self._unremoved):
            with suppress(Exception):
                self.url.files.rm_file(self._own_path(place))
                self._unremoved.discard(place)
