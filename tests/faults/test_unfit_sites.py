"""A site with a full disk or a wrong clock does not stop the others."""

import errno
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloister.deployment.coordinator.journal import RunStatus, read_run
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.ledger.chain import Entry
from cloister.ledger.storage import LedgerFile
from cloister.server.run_directory import RunDirectory
from tests.support.federation import Federation, check_history, federation, wait_for

SOON = "federation.absent_timeout=3.0"


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A file system of its own, of a few megabytes."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(file: Path) -> None:
    """Writes until the disk is full."""
    with file.open("wb", buffering=0) as out:
        for size in (65536, 4096, 1):
            try:
                while True:
                    out.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


@pytest.mark.nightly
def test_a_full_disk_or_a_wrong_clock_stops_its_own_site_alone(tmp_path: Path) -> None:
    names = ("east", "full", "fast")
    with (
        small_disk(tmp_path / "full"),
        federation(tmp_path, names, epsilon="40.0", noise=0.8) as made,
    ):
        for who in ("server", "east", "full"):
            made.start(who)
        made.start("fast", fast_clock=True)
        both = made.submit("both", 1, "federation.min_sites=2", SOON, "study.name=both")
        assert made.wait_ended("both") is RunStatus.FINISHED, read_run(both).error
        fill(made.sites["full"].path.parent / "filling")
        wait_for("the wrong clock", lambda: "clock" in _trouble(made, "fast"))
        alone = made.submit("alone", 3, "federation.min_sites=1", SOON, "study.name=alone")
        assert made.wait_ended("alone") is RunStatus.FINISHED, read_run(alone).error
        assert _received(alone) == [{"east"}] * 3
        assert [entry.fields["kind"] for entry in _entries(made, "fast")] == ["begin"]
        released = len(_entries(made, "full"))

        (made.sites["full"].path.parent / "filling").unlink()
        made.end("fast")
        made.start("fast")
        wait_for("the clock set right", lambda: "clock" not in _trouble(made, "fast"))
        whole = made.submit("whole", 2, "study.name=whole")
        assert made.wait_ended("whole") is RunStatus.FINISHED, read_run(whole).error
        assert _received(whole) == [set(names)] * 2
        assert len(_entries(made, "full")) > released
        check_history(made, "both", "alone", "whole")


def _trouble(made: Federation, site: str) -> str:
    return str(AgentFolder.of(made.sites[site]).connection().get("trouble", ""))


def _received(place: Path) -> list[set[str]]:
    return [set(row["received"]) for row in RunDirectory(place).metrics()]


def _entries(made: Federation, site: str) -> list[Entry]:
    return list(LedgerFile(made.sites[site].ledger).entries())
