"""Where a run with a URL works: a folder of this machine, to which the URL belongs.

The first folder that is copied to a URL writes its random number there (`writer.json`), and keeps
it. No other folder is copied to that URL, and a run is continued in its own folder only: ledgers
have one writer.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cloister.errors import BadFileError, LedgerError, UsageError
from cloister.files import bad_file, open_file, write_whole
from cloister.json_text import read_json
from cloister.ledger.chain import Head, check_entry
from cloister.ledger.storage import LedgerFile
from cloister.names import counted, is_name
from cloister.owner_only import FILE, cache_folder, private_folder
from cloister.recipe import Recipe
from cloister.server.run_copy import URL_MARK, refuse_copy
from cloister.server.run_directory import RunDirectory
from cloister.simulation.copies.files import LEDGER
from cloister.simulation.copies.manifest import (
    CLAIM,
    MOST_SMALL,
    OTHER,
    Manifest,
    read_head,
    read_writer,
)
from cloister.simulation.copies.remote import RunUrl
from cloister.simulation.copies.writing import RunCopy

_LEDGERS, _HEAD = "ledgers", f"{LEDGER}.head"
# Bytes of a folder's random number: two never agree by chance.
_BYTES = 16


@dataclass(frozen=True)
class RunPlace:
    """A URL with its folder on this machine.

    Attributes:
        url: The URL.
        folder: The folder in which the run works.
    """

    url: RunUrl
    folder: Path

    @classmethod
    def of(cls, url: str, work: Path | None) -> RunPlace:
        """Returns the place of a URL; nothing is read or written.

        Args:
            url: An fsspec URL.
            work: The folder of this machine; None: one in the user's cache that belongs to the
                URL.

        Raises:
            UsageError: fsspec cannot open the URL, or it names the folder itself, whose ledgers
                the copy would overwrite.
        """
        opened = RunUrl.open(url)
        if work is None:
            last = opened.shown.rpartition("/")[2]
            name = hashlib.sha256(opened.shown.encode()).hexdigest()[:16]
            work = cache_folder("runs") / (f"{last[:60]}-{name}" if is_name(last) else name)
        there, here = opened.local_folder(), work.resolve()
        if there is not None and (there in (here, *here.parents) or here in there.parents):
            raise _same_folder(opened, here)
        return cls(opened, work.absolute())

    def create(self, recipe: Recipe) -> tuple[RunDirectory, RunCopy]:
        """Makes the folder of a new run, and claims the URL for it.

        Raises:
            UsageError: The URL holds something already, or the folder does.
            NetworkError: The URL cannot be reached.
        """
        writer, mine = self.url.writer(), self._own_writer()
        if writer is not None and writer != mine:
            raise self._of_another_folder()
        if writer is None:
            self._check_empty()
        elif self.url.manifest() is not None:
            raise UsageError(
                f"{self.url.shown}: holds this folder's run already; continue it (cloister "
                f"simulate --resume --out {self.url.shown}), or choose another URL"
            )
        _make_parent(self.folder)
        run = RunDirectory.create(self.folder, recipe)
        own = mine or secrets.token_hex(_BYTES)
        self._claim(own, is_new=writer is None)
        return run, RunCopy(self.url, run, own, None)

    def reopen(self, warn: Callable[[str], None]) -> tuple[RunDirectory, RunCopy]:
        """Opens the folder of an unfinished run, if the URL belongs to it.

        Args:
            warn: Shows a warning.

        Raises:
            UsageError: This machine has no such folder, or the URL belongs to another one.
            NetworkError: The URL cannot be reached.
            LedgerError: The copy at the URL has charges that the folder lacks.
        """
        writer = self.url.writer()
        if not (self.folder / "recipe.toml").is_file():
            if writer is not None:
                raise self._of_another_folder()
            raise UsageError(
                f"--resume: neither {self.url.shown} nor {self.folder} holds a run; begin one "
                f"without --resume, or name its folder: --work FOLDER"
            )
        refuse_copy(self.folder)
        mine = self._own_writer()
        if writer is not None and writer != mine:
            raise self._of_another_folder()
        if writer is None:
            self._check_empty()
        run = RunDirectory.reopen(self.folder)
        last = self._last(warn)
        for site, head in self._heads(last):
            _check_head(run, site, head)
        own = mine or secrets.token_hex(_BYTES)
        self._claim(own, is_new=writer is None)
        return run, RunCopy(self.url, run, own, last)

    def _last(self, warn: Callable[[str], None]) -> Manifest | None:
        """Returns the manifest at the URL, with the files that are there in the size that it names;
        the next copy brings the others, and replaces a manifest that was cut off."""
        try:
            last = self.url.manifest()
        except BadFileError as error:
            warn(f"{error}. It is written again, with every file")
            return None
        if last is None:
            return None
        sizes = self.url.reach(self.url.sizes)
        there = {
            path: file
            for path, file in last.files.items()
            if sizes.get(file.place(path)) == file.size
        }
        if lost := len(last.files) - len(there):
            warn(f"{self.url.shown}: {counted(lost, 'file')} changed or gone there; copied again")
        return replace(last, files=there)

    def _heads(self, last: Manifest | None) -> Iterator[tuple[str, Head]]:
        """Yields heads of ledgers at the URL, in any order: those of the manifest, and those that a
        copy brought there whose manifest was cut off or never written."""
        known: set[str] = set()
        if last is not None:
            yield from last.heads.items()
            known = {file.place(path) for path, file in last.files.items()}
        for folder in (_LEDGERS, f"{OTHER}/{_LEDGERS}"):
            for name in self.url.reach(partial(self.url.store.names, folder)):
                site, place = name.removesuffix(_HEAD), f"{folder}/{name}"
                if site == name or not is_name(site) or place in known:
                    continue
                content = self.url.reach(partial(self.url.bytes_of, place, MOST_SMALL))
                with suppress(ValueError):  # cut off: it names no entry
                    yield site, read_head(content or b"")

    def _own_writer(self) -> str | None:
        """Returns the folder's number; None: it is copied to no URL yet.

        Raises:
            UsageError: It is copied to another URL.
        """
        mark = self.folder / URL_MARK
        try:
            with open_file(mark) as file:
                content = file.read(MOST_SMALL + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise bad_file(error, "read") from error
        writer = read_writer(content, str(mark))
        url = read_json(content, most_bytes=MOST_SMALL).get("url")
        if url != self.url.shown:
            raise UsageError(
                f"{self.folder}: is copied to {url}, and not to {self.url.shown}; give that URL as "
                "--out, or choose another folder (--work)"
            )
        return writer

    def _claim(self, writer: str, *, is_new: bool) -> None:
        """Keeps the number in the folder, then writes it to the URL if nobody has."""
        content = {"url": self.url.shown, "writer": writer}
        try:
            write_whole(self.folder / URL_MARK, json.dumps(content).encode(), FILE)
        except OSError as error:
            raise bad_file(error, "written") from error
        claim = json.dumps({"writer": writer}).encode()
        if is_new and not self.url.reach(lambda: self.url.create(CLAIM, claim)):
            raise self._of_another_folder()
        if self.url.writer() != writer:  # both made it, where the store cannot refuse one
            raise self._of_another_folder()
        if (self.folder / CLAIM).exists():  # the URL leads back, for example by sftp://localhost
            (self.folder / CLAIM).unlink()
            raise _same_folder(self.url, self.folder)

    def _check_empty(self) -> None:
        """Refuses a URL with files that are not ours: they would be overwritten."""
        if names := self.url.reach(lambda: self.url.store.names("")):
            raise UsageError(
                f"{self.url.shown}: holds other files already ({names[0]!r}, for example), and no "
                "run; choose another URL"
            )

    def _of_another_folder(self) -> UsageError:
        try:
            found = self.url.manifest()
        except BadFileError:
            found = None
        state = "" if found is None else f" ({found})"
        return UsageError(
            f"{self.url.shown}: holds a run{state} of another folder or machine, and "
            f"{self.folder} is not that folder. A run is continued only where its ledgers are, so "
            "there: cloister simulate --resume --out URL (with --work FOLDER, if it was given). To "
            f"read it here: cloister fetch {self.url.shown} FOLDER. For a new run choose another "
            "URL. Nothing was written"
        )


def _same_folder(url: RunUrl, folder: Path) -> UsageError:
    return UsageError(
        f"{url.shown}: is the folder {folder} of this machine, or lies around or in it; a copy "
        "needs a place of its own: choose another URL, or give the folder as --out"
    )


def _check_head(run: RunDirectory, site: str, head: Head) -> None:
    """Checks that the folder's ledger has an entry that the copy at the URL has."""
    path = run.ledger(site)
    try:
        with LedgerFile(path).reading() as reader:
            check_entry(reader.find(head.seq), head, str(path))
    except LedgerError as error:
        error.add_note("the copy at the URL has this entry: the folder here is an older one")
        raise


def _make_parent(folder: Path) -> None:
    try:
        if not folder.parent.is_dir():
            private_folder(folder.parent)
    except OSError as error:
        raise bad_file(error, "written") from error
