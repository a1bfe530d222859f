"""Runs a separate systemd in its own namespaces, with only the given units.

Without it, units could only be parsed on machines whose first process is not systemd. It needs root
on Linux with systemd installed.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SYSTEMD = Path("/lib/systemd/systemd")
# Nothing of the machine's own units is started: this systemd knows one folder of units.
START = """\
mount -t tmpfs tmpfs /run && mkdir /run/systemd && mount -t tmpfs tmpfs /etc/systemd/system &&
exec env -i container=other PATH="$PATH" SYSTEMD_UNIT_PATH="$1" {systemd} --system \\
    --unit=under-test.target --log-target=console --log-level=warning --default-standard-output=null
"""


def why_not() -> str | None:
    """Why this machine cannot run one; None where it can."""
    if sys.platform != "linux" or os.getuid() != 0:
        return "root on Linux is needed"
    if not SYSTEMD.exists() or shutil.which("unshare") is None:
        return "systemd or unshare is not installed"
    probe = ["unshare", "--pid", "--mount", "--cgroup", "--ipc", "--fork", "--mount-proc", "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        return "this machine lets nobody make namespaces"
    return None


@contextmanager
def systemd(units: Path, *names: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs units of a folder until the end of the block, then ends all of it at once.

    Args:
        units: The folder; a target is added to it.
        names: Units that are started.
    """
    wants = "".join(f"Wants={name}\n" for name in names)
    target = f"[Unit]\nDefaultDependencies=no\n{wants}"
    (units / "under-test.target").write_text(target)
    command = [
        "unshare",
        "--pid",
        "--mount",
        "--uts",
        "--ipc",
        "--cgroup",
        "--fork",
        "--kill-child=SIGKILL",
        "--mount-proc",
        "--propagation",
        "private",
        "bash",
        "-c",
        START.format(systemd=SYSTEMD),
        "bash",
        str(units),
    ]
    before = _groups()
    with (units / "systemd.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process
        finally:
            # The first process of a namespace takes all others with it, whatever they are at.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(600)
            _remove(before)


def why_it_does_not_start(folder: Path, patience: float = 300.0) -> str | None:
    """Why a systemd of its own runs nothing here, in its own words; None where it does."""
    units = folder / "probe"
    units.mkdir()
    mark = units / "ran"
    text = f"[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/touch {mark}\n"
    (units / "probe.service").write_text(text)
    with systemd(units, "probe.service") as process:
        deadline = time.monotonic() + patience
        while not mark.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                return (units / "systemd.log").read_text()[-500:] or "it says nothing"
            time.sleep(0.05)
    return None


def _remove(before: set[Path]) -> None:
    """Takes away the control groups that it made, once their last process has ended."""
    deadline = time.monotonic() + 600
    while groups := sorted(_groups() - before, reverse=True):
        for group in groups:
            with contextlib.suppress(OSError):
                group.rmdir()
        assert time.monotonic() < deadline, f"{groups[0]}: is not empty"
        time.sleep(0.1)


def _groups() -> set[Path]:
    """Control groups that a systemd makes."""
    found: set[Path] = set()
    for name in ("init.scope", "system.slice"):
        for top in (*Path("/sys/fs/cgroup").glob(name), *Path("/sys/fs/cgroup").glob(f"*/{name}")):
            found |= {top, *(path for path in top.rglob("*") if path.is_dir())}
    return found
