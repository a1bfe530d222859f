"""The documents of studies that asked at a site, for the people who approve them.

`NAME.approvals/asked/DIGEST.json`, is the text that the coordinator sent. The agent writes it when
the site's policy accepts the study; the file's time is that of the last question. A coordinator
with endless studies must not fill the disk, so the oldest documents are removed.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cloister.client.site_file import SiteFile
from cloister.deployment.site.decisions import Decisions
from cloister.errors import BadFileError, CloisterError, UsageError
from cloister.files import open_file, write_whole
from cloister.recipe import Recipe, parse_document
from cloister.toml_text import MOST_BYTES

# Most documents: more than the studies that a site considers at once. Each has at most 1 MiB.
KEPT = 32
# Seconds between two notes of the same study's questions.
NOTED = 60.0
# Fewest digits with which a command finds a study: for 32 studies a chance match has probability
# 10⁻⁷. An attacker can make two studies agree; then the command asks for more digits.
FEWEST_DIGITS = 8
_FILE = re.compile(r"([0-9a-f]{64})\.json")


@dataclass(frozen=True)
class AskedStudies:
    """The folder of studies that the coordinator proposed.

    Attributes:
        path: Absolute path; the folder need not exist yet.
    """

    path: Path

    @classmethod
    def of(cls, file: SiteFile) -> AskedStudies:
        """The folder that belongs to a `site.toml`."""
        return cls(Decisions.of(file).path / "asked")

    def note(self, study: str, document: str) -> None:
        """Stores a study's document and the time of its question.

        Args:
            study: Its digest.
            document: The text that was sent and that the policy accepts.

        Raises:
            OSError: It cannot be written.
        """
        path = self.path / f"{study}.json"
        try:
            if time.time() - path.lstat().st_mtime < NOTED:
                return
            os.utime(path, follow_symlinks=False)
        except FileNotFoundError:
            shared = self._make()
            self._make_room()
            write_whole(path, document.encode(), mode=0o600)
            if shared:
                path.chmod(0o640)

    def _make(self) -> int:
        """Makes the folders with the outer folder's group rights; returns the mode bits for the
        group."""
        self.path.parent.mkdir(mode=0o700, exist_ok=True)
        shared = stat.S_IMODE(self.path.parent.stat().st_mode) & stat.S_IRGRP
        if not self.path.exists():
            self.path.mkdir(mode=0o700)
            self.path.chmod(0o750 if shared else 0o700)
        return shared

    def _make_room(self) -> None:
        """Removes the oldest studies, and unfinished files of a crash."""
        kept = []
        for entry in os.scandir(self.path):
            if _FILE.fullmatch(entry.name):
                kept.append((entry.stat(follow_symlinks=False).st_mtime, entry.path))
            else:
                Path(entry.path).unlink()
        for _, place in sorted(kept)[: max(0, len(kept) - KEPT + 1)]:
            Path(place).unlink()

    def asked(self) -> Iterator[tuple[str, datetime]]:
        """Digests of the studies that asked, with the time of their last question, newest first.

        Raises:
            BadFileError: The folder cannot be read.
        """
        try:
            found = [path for path in self.path.iterdir() if _FILE.fullmatch(path.name)]
            times = [(path.lstat().st_mtime, path.stem) for path in found]
        except FileNotFoundError:
            return
        except OSError as error:
            raise BadFileError(
                f"{self.path}: cannot be read ({error.strerror}); run this as its owner, or have "
                "its group share it (docs/deployment.md)"
            ) from error
        for at, study in sorted(times, reverse=True):
            yield study, datetime.fromtimestamp(at, UTC)

    def recipe(self, study: str) -> Recipe:
        """Reads the recipe of a study that asked, as the agent reads it.

        Raises:
            BadFileError: Its document cannot be read, or is not of that digest.
        """
        path = self.path / f"{study}.json"
        try:
            with open_file(path) as file:
                content = file.read(MOST_BYTES + 1)
            recipe = parse_document(content.decode("utf-8"))
        except (OSError, ValueError, CloisterError) as error:
            raise BadFileError(
                f"{path}: cannot be read ({error}); it is written again when the study asks again"
            ) from error
        if recipe.digest() != study:
            raise BadFileError(f"{path}: is another study; remove the file")
        return recipe

    def find(self, digits: str) -> str:
        """Finds a study's digest from its first digits.

        Raises:
            UsageError: No study has these, or more than one.
        """
        if not re.fullmatch(r"[0-9a-f]{1,64}", digits) or len(digits) < FEWEST_DIGITS:
            raise UsageError(
                f"DIGEST: at least the first {FEWEST_DIGITS} hexadecimal digits of a study are "
                "needed; cloister site studies list shows them"
            )
        found = [study for study, _ in self.asked() if study.startswith(digits)]
        if len(found) > 1:
            raise UsageError(
                f"DIGEST: {len(found)} studies begin with {digits}; give more digits of the one "
                f"you mean: {', '.join(found)}"
            )
        if not found:
            raise UsageError(
                f"DIGEST: no study that begins with {digits[:12]} has asked here; cloister site "
                "studies list shows those that have"
            )
        return found[0]
