"""A disk that loses power, fills up or fails, as an SQLite file system in memory.

Where POSIX allows several outcomes, one is drawn: a write, truncation, creation or removal that was
not synced survives or is lost, sector by sector and name by name. Syncing a file keeps its content.
Syncing the folder keeps names, which SQLite does for a new journal and for a journal's removal.
"""

import errno
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

SECTOR = 512


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder in memory where there is one: its syncs take no time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


class File:
    """A file's content, and what became of it since its last sync.

    Args:
        content: What is on the platter.
    """

    def __init__(self, content: bytes = b"") -> None:
        self.synced, self.content = content, bytearray(content)
        self.pending: list[tuple[int, bytes | None]] = []  # offset and data; a size and None
        self.named = False  # whether a sync has kept its name

    def apply(self, place: int, data: bytes | None) -> None:
        if data is None:
            del self.content[place:]
        else:
            self.content.extend(bytes(max(0, place - len(self.content))))
            self.content[place : place + len(data)] = data

    def sync(self) -> None:
        self.synced = bytes(self.content)
        self.pending.clear()

    def survivor(self, draw: random.Random) -> "File":
        """The file as a power cut may leave it."""
        chance = draw.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        left = File(self.synced)
        for place, data in self.pending:
            if data is None:
                if draw.random() < chance:
                    left.apply(place, None)
                continue
            end = place + len(data)
            while place < end:
                stop = min(end, (place // SECTOR + 1) * SECTOR)
                if draw.random() < chance:
                    left.apply(place, data[place - end :][: stop - place])
                place = stop
        return File(bytes(left.content))


class Disk(apsw.VFS):
    """One folder on a disk with a volatile cache.

    The ledger's head file stays a real file, written by rename; its syncs are this disk's too.

    Args:
        folder: A real folder, for the head file and to say whether the ledger's file is there.
        seed: Of all that is drawn.

    Attributes:
        name: For SQLite.
        operations: Writes, truncations, syncs, creations and removals so far, by kind.
        cut_at: The operation before which the power goes; None: never.
        fault: Asked before each operation, with its kind; may raise.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.name = f"disk-{id(self)}-{os.getpid()}"
        super().__init__(self.name, base="")
        self.folder = folder
        self.draw = random.Random(seed)
        self.files: dict[str, File] = {}
        self.kept: dict[str, File] = {}  # the folder as last synced
        self.heads: dict[str, bytes] = {}
        self.synced_heads: set[bytes] = set()
        self.operations: list[str] = []
        self.cut_at: int | None = None
        self.fault: Callable[[str], None] = lambda kind: None
        self.dead = False

    # --- what happens to the disk

    def step(self, kind: str) -> None:
        """Counts an operation; raises where there is no power or a fault."""
        self.fault(kind)
        if kind == "read":
            if self.dead:
                raise apsw.IOError("no power")
            return
        self.operations.append(kind)
        if self.cut_at is not None and len(self.operations) >= self.cut_at:
            self.dead = True
        if self.dead:
            raise apsw.IOError("no power")

    def restore_power(self, cut_at: int | None = None) -> None:
        """Goes on with what survives; the next cut is before operation `cut_at`."""
        heads = self._heads()
        survivors = {}
        for name in sorted({*self.files, *self.kept}):
            found = self.draw.choice([self.files.get(name), self.kept.get(name)])
            if found is not None:
                survivors[name] = found.survivor(self.draw)
        for name in sorted({*heads, *self.heads}):
            content = self.draw.choice([heads.get(name), self.heads.get(name)])
            if content is None:
                (self.folder / name).unlink(missing_ok=True)
            else:
                lost = content not in self.synced_heads
                (self.folder / name).write_bytes(b"" if lost else content)
        for name in {*self.files, *self.kept} - set(survivors):
            Path(name).unlink(missing_ok=True)
        for name in survivors:
            Path(name).touch()
        self.files, self.kept, self.heads = survivors, dict(survivors), self._heads()
        self.operations, self.cut_at, self.dead = [], cut_at, False

    def sync_folder(self) -> None:
        """Keeps all names as they are."""
        self.step("sync folder")
        self.kept, self.heads = dict(self.files), self._heads()

    def fsync(self, descriptor: int) -> None:
        """In the place of `os.fsync`, which the head file is synced with."""
        try:
            self.step("sync head")
        except apsw.Error as error:
            raise OSError(errno.EIO, str(error)) from error
        self.synced_heads.add(Path(f"/proc/self/fd/{descriptor}").read_bytes())

    def _heads(self) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in self.folder.glob("*.head")}

    # --- what SQLite calls

    def xOpen(self, name: Any, flags: list[int]) -> "OpenFile":
        if name is None:
            return OpenFile(self, File(), None)
        path = str(name.filename() if isinstance(name, apsw.URIFilename) else name)
        if path not in self.files:
            if not flags[0] & apsw.SQLITE_OPEN_CREATE:
                raise apsw.CantOpenError(path)
            self.step("create")
            self.files[path] = File()
            if flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
                Path(path).touch()
        flags[1] = flags[0]
        is_journal = flags[0] & (apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL)
        return OpenFile(self, self.files[path], path if is_journal else None)

    def xDelete(self, name: str, syncdir: bool) -> None:
        self.step("remove")
        if self.files.pop(name, None) is None:
            raise apsw.IOError(name)
        if syncdir:
            self.sync_folder()

    def xAccess(self, name: str, flags: int) -> bool:
        self.step("read")
        return name in self.files

    def excepthook(self, *error: Any) -> bool:
        return True  # SQLite was told already


class OpenFile:
    """One open file; `journal` names it where its first sync keeps its name, as on Unix."""

    def __init__(self, disk: Disk, file: File, journal: str | None) -> None:
        self.disk, self.file, self.journal = disk, file, journal

    def excepthook(self, *error: Any) -> bool:
        return True

    def xRead(self, amount: int, offset: int) -> bytes:
        self.disk.step("read")
        return bytes(self.file.content[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        self.disk.step("write")
        self.file.pending.append((offset, bytes(data)))
        self.file.apply(offset, bytes(data))

    def xTruncate(self, size: int) -> None:
        self.disk.step("truncate")
        self.file.pending.append((size, None))
        self.file.apply(size, None)

    def xSync(self, flags: int) -> None:
        self.disk.step("sync")
        self.file.sync()
        if self.journal and not self.file.named:
            self.disk.sync_folder()
            self.file.named = True

    def xFileSize(self) -> int:
        self.disk.step("read")
        return len(self.file.content)

    def xClose(self) -> None: ...

    def xLock(self, level: int) -> None: ...

    def xUnlock(self, level: int) -> None: ...

    def xCheckReservedLock(self) -> bool:
        return False

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return 4096  # as on Unix

    def xDeviceCharacteristics(self) -> int:
        return int(apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE)  # as on Unix


@contextmanager
def simulated_disk(seed: int = 0) -> Iterator[Disk]:
    """A disk under a folder in memory."""
    with memory_folder() as folder, pytest.MonkeyPatch.context() as patch:
        disk = Disk(folder, seed)
        patch.setattr(os, "fsync", disk.fsync)
        try:
            yield disk
        finally:
            disk.unregister()
