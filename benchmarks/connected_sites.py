"""A coordinator with many connected sites: what each costs it, and what gives way first.

    python -m benchmarks.connected_sites [--sites 100] [--rounds 20] [--json FILE] [--whole]

The coordinator is the deployed one: service, gate, SuperLink and executor, as processes of their
own, with a tiny base. The sites are threads of further processes (`site_processes`): each connects
to the gate over TLS with a key of its own, polls and answers as a SuperNode does. Prints one JSON
object: CPU seconds of each process by site and round, memory, threads and open files at their most,
and bytes on disk, all of the coordinator alone; and the load, as the sites use the same cores.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.deployment import usage
from benchmarks.site_processes import SiteProcesses, serving
from benchmarks.threaded_site import ThreadedSite
from cloister.deployment.coordinator.folder import ServerFolder
from cloister.deployment.coordinator.journal import ENDED, RunStatus, read_run
from cloister.deployment.coordinator.members import approved, changing, invited, read_members
from cloister.deployment.coordinator.open_files import raise_open_files
from cloister.deployment.flower.control import Control
from cloister.errors import NetworkError
from cloister.recipe.schema import FederationConfig
from cloister.server.run_directory import RunDirectory
from tests.support.federation import Federation, federation, wait_for

# Records that each site declares; the small study's batches have 10 of them.
RECORDS = 40
# Norm of a site's update; the study's bound is 1.
NORM = 0.5
# Open files of a site: its SuperNode has up to four connections.
FILES = 4
# Seconds until the first polls of connected sites are over, for which they are then watched before
# the study, and between two samples.
SETTLED, IDLE, SAMPLE = 20.0, 20.0, 1.0
# A round of many sites takes minutes where the sites use the coordinator's cores. A site whose
# question or reply was lost is asked again after a recipe's default time, as the small study's is
# too short for that.
SLOWLY = (
    "federation.round_timeout=7200",
    f"federation.absent_timeout={FederationConfig().absent_timeout}",
)
PROCESSES = ("superlink", "gate", "executor")
# Clock ticks of /proc/PID/stat in a second.
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """CPU seconds that a process has used, in user and system mode."""
    # After the command's name, which may have blanks, field 14 and 15 are utime and stime.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@dataclass
class Watch:
    """What the coordinator's processes use.

    Attributes:
        pids: Their numbers by name.
        most: Megabytes, threads and open files of each, each at its most.
    """

    pids: Mapping[str, int]
    most: dict[str, tuple[float, int, int]] = field(default_factory=dict)

    def cpu(self) -> dict[str, float]:
        """CPU seconds of each until now."""
        return {name: cpu_seconds(pid) for name, pid in self.pids.items()}

    def look(self) -> None:
        """Takes one sample of memory, threads and files."""
        for name, pid in self.pids.items():
            before, now = self.most.get(name, (0.0, 0, 0)), usage(pid)
            self.most[name] = tuple(map(max, before, now))  # type: ignore[assignment]


def spent(
    before: Mapping[str, float], after: Mapping[str, float], units: float
) -> dict[str, float]:
    """Milliseconds of CPU time of each process by unit, between two samples."""
    return {name: round(1e3 * (after[name] - before[name]) / units, 3) for name in after}


def approve(folder: ServerFolder, sites: Sequence[ThreadedSite]) -> None:
    """Makes the sites members, by the requests that they would send."""
    now = datetime.now(UTC)
    with changing(folder.members) as write:
        members = read_members(folder.members)
        for site in sites:
            members = invited(members, site.name, now)
            request = site.join_request(members[site.name].token, RECORDS)
            members = approved(members, request, now)
        write(members)


def online(folder: ServerFolder) -> int:
    """Number of sites whose nodes the SuperLink sees; 0 while it does not answer."""
    control = Control(folder.superlink)
    try:
        return sum(node.online for node in control.nodes())
    except NetworkError:
        return 0
    finally:
        control.close()


def registered(folder: ServerFolder) -> int:
    """Number of nodes that may connect."""
    control = Control(folder.superlink)
    try:
        return len(control.nodes())
    except NetworkError:
        return 0
    finally:
        control.close()


def measured(count: int, rounds: int, patience: float) -> dict[str, object]:
    """Runs a study with so many connected sites.

    Args:
        count: Number of sites.
        rounds: Rounds of the study.
        patience: Seconds after which a step is given up; of the study, what closed by then counts.

    Returns:
        The figures, ready for JSON.
    """
    load = os.getloadavg()
    raise_open_files(FILES * count + 256)
    sites = [ThreadedSite(f"site-{index:04d}", NORM) for index in range(count)]
    with federation(Path(tempfile.mkdtemp()), (), epsilon="200.0", noise=0.8) as made:
        approve(made.server, sites)
        began = time.monotonic()
        made.start("server")
        wait_for("the registration", lambda: registered(made.server) == count, patience)
        ready = time.monotonic()
        place = made.server.config.address, made.server.authority.pem
        with serving(sites, *place, patience) as served:
            wait_for("all sites online", lambda: online(made.server) == count, patience)
            found = _study(made, served, count, rounds, patience)
    return {
        "sites": count,
        "rounds": rounds,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_before": [round(value, 1) for value in load],
        "load_after": [round(value, 1) for value in os.getloadavg()],
        "registration_seconds": round(ready - began, 1),
        **found,
        "answers_of_sites": served.answered,
    }


def _study(
    made: Federation, served: SiteProcesses, count: int, rounds: int, patience: float
) -> dict[str, object]:
    """Watches an idle coordinator, then a study."""
    time.sleep(SETTLED)
    connected = time.monotonic()
    pids = {name: made.child("server", name) for name in PROCESSES}
    watch = Watch({name: pid for name, pid in pids.items() if pid is not None})
    before, own = watch.cpu(), _sites_cpu(served)
    time.sleep(IDLE)
    watch.look()
    waited = time.monotonic() - connected
    idle = spent(before, watch.cpu(), waited * count)
    submitted = time.monotonic()
    place = made.submit("wide", rounds, *SLOWLY)
    run = RunDirectory(place)
    marks: list[tuple[float, dict[str, float]]] = []
    deadline = time.monotonic() + patience
    while (
        len(run.metrics()) < rounds
        and made.standing("wide") not in ENDED
        and time.monotonic() < deadline
    ):
        time.sleep(SAMPLE)
        assert served.pids
        watch.look()
        marks += [(time.monotonic(), watch.cpu())] * (len(run.metrics()) - len(marks))
    marks += [(time.monotonic(), watch.cpu())] * (len(run.metrics()) - len(marks))
    rows = run.metrics()
    assert rows, f"no round closed in {patience:.0f} s: {read_run(place).error or 'it still runs'}"
    if len(rows) == rounds:
        closed = made.wait_ended("wide", patience)
        assert closed is RunStatus.FINISHED, read_run(place).error
    # From the end of the first round to the end of the last: a study opens once.
    steady = len(marks) > 1
    each = spent(marks[0][1], marks[-1][1], count * (len(marks) - 1)) if steady else {}
    return {
        "rounds_closed": len(rows),
        "idle_cpu_ms_per_site_and_second": idle,
        "seconds_to_first_round_closed": round(marks[0][0] - submitted, 1),
        "round_seconds": [row["seconds"] for row in rows],
        "round_seconds_median": statistics.median(row["seconds"] for row in rows[1:] or rows),
        "counted_sites": [len(row["received"]) for row in rows],
        "cpu_ms_per_site_and_round": each,
        "bytes_up_per_site_and_round": rows[-1]["bytes_up"] // count,
        "most": {
            name: {"MB": round(megabytes, 1), "threads": threads, "files": files}
            for name, (megabytes, threads, files) in watch.most.items()
        },
        "sites_cpu_seconds": round(_sites_cpu(served) - own, 1),
        "disk_bytes": {
            "database": _bytes(made.server.state / "superlink.db"),
            "journal": _bytes(place / "events.jsonl"),
            "heads": _bytes(made.server.heads),
            "members": _bytes(made.server.members),
        },
    }


def _sites_cpu(served: SiteProcesses) -> float:
    return sum(map(cpu_seconds, served.pids))


def _bytes(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 if there is none."""
    if path.is_dir():
        return sum(one.stat().st_size for one in path.iterdir())
    return path.stat().st_size if path.exists() else 0


def main() -> None:
    """Measures, prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--patience", type=float, default=900.0, help="seconds for each step")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--whole", action="store_true", help="fail unless all answers counted")
    asked = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    found = measured(asked.sites, asked.rounds, asked.patience)
    text = json.dumps(found, indent=2)
    print(text)
    if asked.json is not None:
        asked.json.write_text(text + "\n", encoding="utf-8")
    if asked.whole and not is_whole(found):
        parser.exit(1, f"not every round counted all {asked.sites} sites: see counted_sites\n")


def is_whole(found: Mapping[str, object]) -> bool:
    """Whether every round closed, and every site's answer counted in each."""
    sites, rounds = int(str(found["sites"])), int(str(found["rounds"]))
    return found["counted_sites"] == [sites] * rounds


if __name__ == "__main__":
    main()
