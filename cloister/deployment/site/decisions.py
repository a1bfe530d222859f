"""Approvals and rejections of studies: append-only files, one for each person.

`NAME.approvals/` beside `site.toml`:

    UID.jsonl   the decisions of the account with that number; others cannot write the file
    asked/      documents of studies that asked (`deployment.site.proposed`)

The owner of a file is the person who decided, which the kernel enforces: a file that another
account owns, or that others may write, is refused. Lines are numbered over all files, so their
order does not depend on a clock.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from cloister.bounds import LARGEST_INTEGER, MOST_NAME, Between, Text
from cloister.client.approvals_config import MOST_OPERATORS
from cloister.client.site_file import SiteFile
from cloister.errors import BadFileError, CloisterError, RefusedError, UsageError
from cloister.fields import check_bounds, read_section
from cloister.files import sync_folder

# Most bytes of one account's file: over 2,000 decisions.
MOST_BYTES = 2**20
# The largest user number of Linux.
MOST_UID = 2**32 - 2
_FILE = re.compile(r"(\d{1,10})\.jsonl")
_SHA256 = re.compile("[0-9a-f]{64}")


class Kind(StrEnum):
    """The kinds of a decision."""

    APPROVE = "approve"
    REJECT = "reject"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """An approval or rejection: one line of a person's file.

    Attributes:
        seq: Its number among all of the site's.
        kind: What the person decided.
        study: Digest of the study: of the sent document, exactly.
        terms: Digest of the study's terms at the site, as shown (`client.terms`).
        uid: Number of the account.
        login: Its name.
        name: The name that the person gives in addition; may be empty.
        time: ISO time with zone; used only for the end of an approval.
    """

    seq: Annotated[int, Between(1, LARGEST_INTEGER)]
    kind: Kind
    study: Annotated[str, Text(64)]
    terms: Annotated[str, Text(64)]
    uid: Annotated[int, Between(0, MOST_UID)]
    login: Annotated[str, Text(MOST_NAME)]
    name: Annotated[str, Text(MOST_NAME)]
    time: Annotated[str, Text(40)]

    def __post_init__(self) -> None:
        check_bounds(self)
        for key in ("study", "terms"):
            if not _SHA256.fullmatch(getattr(self, key)):
                raise UsageError(f"{key}: 64 lower-case hexadecimal digits are needed")
        try:
            zone = datetime.fromisoformat(self.time).utcoffset()
        except (ValueError, OverflowError) as error:
            raise UsageError(f"time: not an ISO time ({error})") from error
        if zone is None:
            raise UsageError("time: its zone is missing")

    @property
    def who(self) -> str:
        """Returns the person's name for display."""
        return f"{self.login} ({self.name})" if self.name else self.login


@dataclass(frozen=True)
class Decisions:
    """A site's folder of decisions.

    Attributes:
        path: Absolute path; the folder need not exist yet.
    """

    path: Path

    @classmethod
    def of(cls, file: SiteFile) -> Decisions:
        """The folder that belongs to a `site.toml`."""
        return cls(file.path.parent / f"{file.site.name}.approvals")

    def read(self) -> tuple[Decision, ...]:
        """Reads every decision, in the order in which they were made.

        Raises:
            RefusedError: Something in the folder differs from what this module writes. A rejection
                might be lost, so nothing counts as approved.
        """
        try:
            return self._read()
        except RefusedError:
            raise
        except (OSError, ValueError, RecursionError, CloisterError) as error:
            raise RefusedError(f"{self.path}: cannot be read ({error}); {_MEND}") from error

    def _read(self) -> tuple[Decision, ...]:
        try:
            names = [path.name for path in self.path.iterdir()]
        except FileNotFoundError:
            return ()
        self._check_folder()
        files = [(int(match[1]), name) for name in names if (match := _FILE.fullmatch(name))]
        if len(files) > MOST_OPERATORS:
            raise RefusedError(f"{self.path}: {len(files)} files; {MOST_OPERATORS} at most")
        found = [one for uid, name in sorted(files) for one in _decisions(self.path / name, uid)]
        # Of two lines with one number, which only an edited file has, the rejection counts last.
        return tuple(sorted(found, key=lambda one: (one.seq, one.kind is Kind.REJECT)))

    def _check_folder(self) -> None:
        mode = self.path.lstat().st_mode
        if not stat.S_ISDIR(mode):
            raise RefusedError(f"{self.path}: not a folder; {_MEND}")
        if mode & stat.S_IWOTH:
            raise RefusedError(
                f"{self.path}: everybody on this machine can write to it, and so approve; "
                f"chmod o-w {self.path}"
            )
        if mode & stat.S_IWGRP and not mode & stat.S_ISVTX:
            raise RefusedError(
                f"{self.path}: its group can delete others' rejections; chmod +t {self.path}"
            )

    def add(self, kind: Kind, study: str, terms: str, name: str = "") -> Decision:
        """Adds a decision in the name of the account that runs this.

        Args:
            kind: What is decided.
            study: Digest of the study.
            terms: Digest of the shown terms.
            name: What the person calls themselves.

        Returns:
            The written decision; it is on disk.

        Raises:
            RefusedError: The folder is damaged or has wrong rights.
            BadFileError: It cannot be written, or the account's file is full.
            UsageError: The name is invalid.
        """
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            with _holding(self.path):
                uid = os.geteuid()
                last = max((one.seq for one in self.read()), default=0)
                decision = Decision(
                    seq=last + 1,
                    kind=kind,
                    study=study,
                    terms=terms,
                    uid=uid,
                    login=login_of(uid),
                    name=name,
                    time=datetime.now(UTC).isoformat(timespec="seconds"),
                )
                self._append(decision)
        except OSError as error:
            raise BadFileError(
                f"{self.path}: cannot be written ({error.strerror}); run this as its owner, or "
                "have its group share it (docs/deployment.md)"
            ) from error
        return decision

    def _append(self, decision: Decision) -> None:
        """Writes one line and syncs it; removes the rest of an interrupted line first."""
        path, folder = self.path / f"{decision.uid}.jsonl", self.path.stat()
        # The agent reads it: by its group, where the folder is shared with one or another's.
        is_own = folder.st_uid == decision.uid and not folder.st_mode & stat.S_IRGRP
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            if decision.uid == 0:
                os.fchown(file.fileno(), -1, folder.st_gid)
            os.fchmod(file.fileno(), 0o600 if is_own else 0o640)
            file.seek(0)
            kept = file.read(MOST_BYTES)
            whole = kept.rfind(b"\n") + 1
            line = json.dumps(asdict(decision), ensure_ascii=False).encode() + b"\n"
            if whole + len(line) > MOST_BYTES:
                raise BadFileError(
                    f"{path}: has reached {MOST_BYTES} bytes, its limit; move it away, and repeat "
                    "its rejections of studies that a standing approval would accept"
                )
            if whole < len(kept):
                file.truncate(whole)
            file.write(line)
            os.fsync(file.fileno())
        sync_folder(self.path)


_MEND = "nothing is approved until this is corrected: restore it from a backup, or move it away"


def login_of(uid: int) -> str:
    """An account's name; its number if the machine knows no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


@contextmanager
def _holding(folder: Path) -> Iterator[None]:
    """Locks the folder, so that no other process appends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _decisions(path: Path, uid: int) -> Sequence[Decision]:
    """Reads one account's decisions.

    Raises:
        RefusedError: The file is not that account's own, or is damaged.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError(f"{path}: not a file; {_MEND}")
        if status.st_uid != uid:
            raise RefusedError(
                f"{path}: belongs to {login_of(status.st_uid)}, but is named for {login_of(uid)}; "
                f"{_MEND}"
            )
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise RefusedError(f"{path}: others can write to it; chmod go-w {path}")
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise RefusedError(f"{path}: over {MOST_BYTES} bytes; {_MEND}")
    # Text after the last line's end is an interrupted write, which was not reported as written.
    lines = content[: content.rfind(b"\n") + 1].decode("utf-8").split("\n")[:-1]
    return [_decision(path, number, line, uid) for number, line in enumerate(lines, 1)]


def _decision(path: Path, number: int, line: str, uid: int) -> Decision:
    fields = json.loads(line)
    problems: list[str] = []
    if not isinstance(fields, dict):
        raise RefusedError(f"{path}: line {number} is not a decision; {_MEND}")
    found = read_section(Decision, fields, f"line {number}", problems, is_whole=True)
    if found is None or found.uid != uid:
        said = problems[0] if problems else f"line {number} is another account's"
        raise RefusedError(f"{path}: {said}; {_MEND}")
    return replace(found, login=login_of(uid))  # as the machine knows the account, not the line
