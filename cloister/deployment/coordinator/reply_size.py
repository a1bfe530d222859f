"""The size limit of a study's replies: the executor computes it, the gate enforces it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.files import write_whole

log = logging.getLogger(__name__)

# Bytes besides an update: a certificate, or shares and keys of secure aggregation, sealed for each
# site (a few hundred bytes each), and the reply's other fields.
BESIDE = 4_000_000
# The limit without a study: answers to PREPARE and CERTIFY are far smaller.
WITHOUT_STUDY = 16_000_000
# The largest limit: SQLite keeps no value above 10⁹ bytes, and the SuperLink holds a reply in
# memory several times.
LARGEST = 500_000_000
# Most runs that are remembered; the coordinator executes one at a time.
MOST_RUNS = 32


def largest_reply(adapter: Adapter) -> int:
    """Bytes of the largest reply in a study.

    Args:
        adapter: Names and shapes of all tensors that may train. An update takes at most 4 bytes per
            value, also masked.
    """
    return min(len(encode(adapter)) + BESIDE, LARGEST)


def note_largest(path: Path, run: int, size: int) -> None:
    """Writes the size limit of a run's replies; if that fails, `WITHOUT_STUDY` applies.

    Args:
        path: The file, which the gate reads.
        run: Flower's id.
        size: Bytes.
    """
    kept = _read(path)
    kept.pop(run, None)
    rows = [*kept.items(), (run, size)][-MOST_RUNS:]
    try:
        write_whole(path, json.dumps({str(one): most for one, most in rows}).encode(), mode=0o600)
    except OSError as error:
        log.error(
            "%s: cannot be written (%s); the gate refuses replies above %d bytes",
            path,
            error,
            WITHOUT_STUDY,
        )


class Largest:
    """Reads the size limit of a run's replies from the present file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._sizes: dict[int, int] = {}

    def __call__(self, run: int) -> int:
        """Returns the limit in bytes; `WITHOUT_STUDY` for a run without one."""
        try:
            state = self._path.stat()
            stamp = (state.st_mtime_ns, state.st_ino, state.st_size)
        except OSError:
            return WITHOUT_STUDY
        if stamp != self._stamp:
            self._sizes, self._stamp = _read(self._path), stamp
        return self._sizes.get(run, WITHOUT_STUDY)


def _read(path: Path) -> dict[int, int]:
    try:
        rows = json.loads(path.read_bytes()).items()
        return {int(run): min(int(size), LARGEST) for run, size in rows}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        log.error(
            "%s: cannot be read (%s); replies are bounded at %d bytes", path, error, WITHOUT_STUDY
        )
        return {}
