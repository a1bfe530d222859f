"""CPU time, wall time and peak memory of a command with every process that it starts."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

# Seconds between samples. A process that lives shorter is missed, and of each process the CPU time
# after its last sample.
SAMPLE = 0.25


@dataclass(frozen=True)
class Used:
    """What a command used.

    Attributes:
        cpu: CPU seconds of all its processes.
        wall: Seconds until it ended.
        peak: Most bytes of memory at one time; pages that several processes share count once.
    """

    cpu: float
    wall: float
    peak: int


def used_by(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Used:
    """Runs a command to its end and watches its processes.

    Raises:
        RuntimeError: It failed; the message has the end of its output.
    """
    began = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, text=True
    ) as process:
        seen: dict[tuple[int, float], float] = {}
        peak, looked = 0, 0.0
        errors = _Drained(process)
        while process.poll() is None:
            family = _family(process.pid)
            for one in family:
                try:
                    times = one.cpu_times()
                    seen[one.pid, one.create_time()] = times.user + times.system
                except psutil.Error:
                    continue
            # Shared pages are counted by reading every mapping, which takes long: less often.
            if time.monotonic() - looked > 4 * SAMPLE:
                looked = time.monotonic()
                peak = max(peak, sum(map(_bytes, family)))
            time.sleep(SAMPLE)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {errors.end()}")
    return Used(sum(seen.values()), time.monotonic() - began, peak)


class _Drained:
    """Reads a process's errors, so that it never waits for a reader.

    Args:
        process: With a pipe for its errors.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        import threading

        self._text = ""
        self._thread = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._thread.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self._text = (self._text + line)[-2000:]

    def end(self) -> str:
        """The last 2,000 characters."""
        self._thread.join(5)
        return self._text


def _family(pid: int) -> list[psutil.Process]:
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.Error:
        return []


def _bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.Error, AttributeError):  # it has ended; PSS exists on Linux alone
        return 0
