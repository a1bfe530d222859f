"""A site's part of correlated noise: the groups of its units, and the noise of recent steps.

The noise is kept in one file for each study, which only its owner can read. Whoever has it, and the
releases, can compute the exact sums of the last b − 1 steps. So it is overwritten as soon as a step
no longer needs it, removed at the study's end, and is in no backup. If it is lost, or comes from
another time, the study ends at this site: later noise must continue the law of what was released.

    charge      the ledger counts the step
    save        the noise of this step and the last ones is on disk
    keep        the optimizer's memory and the site's own adapter, which follow from the step's sum
    release     the ledger has the bytes, and they may leave

A crash before `save` leaves a charged step without noise. It is never released, so its noise is
drawn when the next step runs, and nobody sees it. After `save` later steps go on from the noise of
this step, whether or not anybody ever sees its sum. So no noise is added to two sums, and no step
has two noises, whenever a process ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cloister.errors import RefusedError
from cloister.files import open_file, write_whole
from cloister.ledger.unit_key import UnitKey
from cloister.owner_only import private_folder, tighten_all
from cloister.privacy.correlated_noise import BandedStep, Marks, RecentNoise
from cloister.privacy.plan import Plan

# What marks of this kind decide (`training.unit_marks`).
PURPOSE = "group"
ENDING = "noise"
# Before the records of a site are looked at.
NO_MARKS: Marks = np.zeros(0, dtype=np.uint64)
# Most bytes of the first line, which holds four short values.
MOST_HEADER = 4096
_DIGEST = 32


def noise_folder(ledger: Path) -> Path:
    """The folder of the noise of recent steps: beside the data set's ledger."""
    return ledger.with_name(ledger.name + ".noise")


@dataclass(frozen=True)
class Banding:
    """What a site needs for a study with correlated noise.

    Attributes:
        folder: The folder of the noise; made at the first write.
        study: Digest of the recipe.
        marks: Each unit's keyed hash, in the order of the units; private.
        key: Fingerprint of the key by which units have their groups.
    """

    folder: Path
    study: str
    marks: Marks
    key: str

    @classmethod
    def beside(cls, ledger: Path, study: str, key: UnitKey, marks: Marks) -> Banding:
        """The site's banding in a study, with its noise beside the ledger."""
        return cls(noise_folder(ledger), study, marks, key.fingerprint)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other processes from a round of correlated noise while this one is in one.

        Otherwise two of them would draw different noise for one step. The lock ends with the
        process.

        Raises:
            RefusedError: Another process is in a round, or the folder cannot be made.
        """
        try:
            private_folder(self.folder)
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise RefusedError(f"{self.folder}: cannot be used ({error.strerror})") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RefusedError(
                    f"{self.folder}: another process of this site is in a round; ask again"
                ) from error
            yield
        finally:
            os.close(descriptor)

    def step(self, plan: Plan, released: Sequence[bool]) -> BandedStep:
        """Returns the step that was charged last, with the noise of the steps before it.

        Args:
            plan: The plan that runs.
            released: Whether each charged round of the plan was released; the last is this step.

        Raises:
            RefusedError: As for `recent`.
        """
        return BandedStep(len(released) - 1, self.marks, self.recent(plan, released))

    def recent(self, plan: Plan, released: Sequence[bool]) -> RecentNoise:
        """Reads the noise of the last steps.

        Args:
            plan: The plan that runs.
            released: Whether each charged round of the plan was released.

        Raises:
            RefusedError: It is lost, damaged, or from another time: the study ends at this site.
        """
        tighten_all(self.folder)
        path = self._file(plan)
        found = _read(path, plan) if path.exists() else RecentNoise()
        if found is None:
            raise RefusedError(_ended(path, "is damaged"))
        # A step that was released has noise in the file; one that was not may lack it.
        if found.step > len(released) or any(released[found.step :]):
            what = (
                "is from another time than the ledger"
                if path.exists()
                else "is missing (lost, or removed when the coordinator asked for the study's "
                "certificate, which ends a study)"
            )
            raise RefusedError(_ended(path, what))
        return found

    def save(self, plan: Plan, recent: RecentNoise) -> None:
        """Writes the noise of the last steps, and overwrites what was there before."""
        private_folder(self.folder)
        path = self._file(plan)
        before = _opened(path)
        write_whole(path, _bytes_of(recent, plan), mode=0o600)
        _overwrite(before)
        for other in self.folder.glob(f"{self.study[:16]}-*.{ENDING}"):
            if other != path:
                erase(other)

    def end(self) -> bool:
        """Removes the study's noise: no further step needs it.

        Returns:
            Whether there was any: then the study has rounds left, and ends before them here.
        """
        found = list(self.folder.glob(f"{self.study[:16]}-*.{ENDING}"))
        for path in found:
            erase(path)
        return bool(found)

    def _file(self, plan: Plan) -> Path:
        return self.folder / f"{self.study[:16]}-{plan.digest()[:16]}.{ENDING}"


def state_bytes(bands: int, values: int) -> int:
    """Returns the largest size of the noise that a site keeps, in bytes."""
    return (bands - 1) * values * np.dtype(np.int64).itemsize


def erase(path: Path) -> None:
    """Overwrites a file with zeros, and removes it; a copy that a disk made elsewhere may stay."""
    before = _opened(path)
    path.unlink(missing_ok=True)
    _overwrite(before)


def _opened(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None


def _overwrite(descriptor: int | None) -> None:
    if descriptor is None:
        return
    try:
        with suppress(OSError):  # the file has no name any more; overwriting is additional
            os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ended(path: Path, what: str) -> str:
    return (
        f"{path}: the noise of the study's last steps {what}. Later noise cannot continue it, so "
        "this study ends at this site; what was released stays protected, and other studies go on"
    )


def _bytes_of(recent: RecentNoise, plan: Plan) -> bytes:
    values = len(recent.vectors[0]) if recent.vectors else 0
    header = {
        "plan": plan.digest(),
        "step": recent.step,
        "values": values,
        "vectors": len(recent.vectors),
    }
    body = json.dumps(header).encode() + b"\n"
    body += b"".join(vector.astype("<i8").tobytes() for vector in recent.vectors)
    return body + hashlib.sha256(body).digest()


def _read(path: Path, plan: Plan) -> RecentNoise | None:
    """Parses a file; None if it is damaged or of another plan."""
    try:
        with open_file(path) as file:
            content = file.read()
        body, digest = content[:-_DIGEST], content[-_DIGEST:]
        if hashlib.sha256(body).digest() != digest:
            return None
        line = body[: body.index(b"\n", 0, MOST_HEADER) + 1]
        header = json.loads(line)
        step, values, count = (header[name] for name in ("step", "values", "vectors"))
        if type(step) is not int or step < 0:
            return None
        numbers = np.frombuffer(body[len(line) :], dtype="<i8").astype(np.int64)
        if header["plan"] != plan.digest() or count != min(step, plan.groups - 1):
            return None
        rows = numbers.reshape(count, values)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return RecentNoise(step, [row.copy() for row in rows])
