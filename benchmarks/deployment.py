"""What a deployment costs beyond its sites' periods, and whether it grows.

    python -m benchmarks.deployment overhead [--sites 3] [--rounds 12]
    python -m benchmarks.deployment soak [--sites 30] [--rounds 20]

`overhead`: seconds of a round beyond the moment at which its slowest site lets its update go,
median over rounds, with an adapter of 1.2 MB. That moment is a multiple of the site's period, by
which it hides how long it trained.
`soak`: memory, threads and open files of every long-lived process after each round, and slopes.
"""

import argparse
import json
import statistics
import tempfile
from datetime import datetime
from pathlib import Path

import numpy as np

from cloister.deployment.coordinator.journal import RunStatus, events
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.status import releases_of
from cloister.models.base import find_base
from cloister.models.config import DEFAULT_BASE
from cloister.server.run_directory import RunDirectory
from tests.support.federation import Federation, federation, wait_for

# LoRA of this rank on queries and values of the quickstart's base: 1.2 MB (295,000 float32).
RANK = 32


def overhead(sites: int, rounds: int) -> dict[str, object]:
    """Measures rounds of a federation of real processes."""
    names = tuple(f"site-{index}" for index in range(sites))
    with federation(
        Path(tempfile.mkdtemp()), names, epsilon="200.0", noise=0.8, base=find_base(DEFAULT_BASE)
    ) as made:
        for who in ("server", *made.sites):
            made.start(who)
        place = made.submit("overhead", rounds, f"lora.r={RANK}", f"lora.alpha={RANK}")
        assert made.wait_ended("overhead", 1800.0) is RunStatus.FINISHED
        asked: dict[int, datetime] = {}
        answered: dict[int, datetime] = {}
        for _, event in events(place):
            time = datetime.fromisoformat(event["time"])
            if not event.get("round"):
                continue
            if event["what"] == "asked":
                asked.setdefault(event["round"], time)
            elif event["what"] == "answered":
                answered[event["round"]] = time
        period = max(
            float(AgentFolder.of(site).activity()["leaves_every"]) for site in made.sites.values()
        )
        beyond = [
            (answered[number] - asked[number]).total_seconds() % period
            for number in sorted(asked.keys() & answered.keys())
        ]
        sizes = {row["bytes"] for site in made.sites.values() for row in releases_of(site)}
        seconds = [row["seconds"] for row in RunDirectory(place).metrics()]
    return {
        "sites": sites,
        "rounds": rounds,
        "update_bytes": sorted(sizes),
        "period": period,
        "beyond_period_median": round(statistics.median(beyond), 2),
        "beyond_period_worst": round(max(beyond), 2),
        "round_median": round(statistics.median(seconds[1:]), 2),
    }


def soak(sites: int, rounds: int) -> dict[str, object]:
    """Watches every process of a federation over many rounds."""
    names = tuple(f"site-{index:02d}" for index in range(sites))
    seen: dict[str, list[tuple[float, int, int]]] = {}
    with federation(Path(tempfile.mkdtemp()), names, epsilon="200.0", noise=0.8) as made:
        made.start("server")
        for name in names:
            made.start(name)
        place = made.submit("soak", rounds, "federation.round_timeout=1800")
        run = RunDirectory(place)
        for number in range(1, rounds + 1):
            wait_for(f"round {number}", lambda: len(run.metrics()) >= number, 1800.0)  # noqa: B023
            for kind, found in processes(made).items():
                totals = [usage(pid) for pid in found]
                seen.setdefault(kind, []).append(
                    tuple(float(np.mean(column)) for column in zip(*totals, strict=True))  # type: ignore[arg-type]
                )
        made.wait_ended("soak", 600.0)
    slopes = {}
    for kind, rows in seen.items():
        tail = np.array(rows[len(rows) // 4 :])  # after the start
        at = np.arange(len(tail))
        megabytes, threads, files = (float(np.polyfit(at, column, 1)[0]) for column in tail.T)
        slopes[kind] = {
            "MB": round(rows[-1][0], 1),
            "MB_per_round": round(megabytes, 3),
            "threads_per_round": round(threads, 3),
            "files_per_round": round(files, 3),
        }
    return {"sites": sites, "rounds": rounds, "per_process": slopes}


def processes(made: Federation) -> dict[str, list[int]]:
    """Process numbers by kind."""
    found: dict[str, list[int]] = {}
    for name in ("superlink", "gate", "executor"):
        found[name] = [pid] if (pid := made.child("server", name)) else []
    for name in ("agent", "supernode"):
        found[name] = [pid for site in made.sites if (pid := made.child(site, name))]
    found["service"] = [process.pid for process in made.processes.values()]
    return {kind: pids for kind, pids in found.items() if pids}


def usage(pid: int) -> tuple[float, int, int]:
    """Resident megabytes, threads and open files."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    megabytes = int(status["VmRSS"].split()[0]) / 1000
    return megabytes, int(status["Threads"]), len(list(Path(f"/proc/{pid}/fd").iterdir()))


def main() -> None:
    """Measures, prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("overhead", "soak"))
    parser.add_argument("--sites", type=int)
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args()
    if options.what == "overhead":
        print(json.dumps(overhead(options.sites or 3, options.rounds or 12)))
    else:
        print(json.dumps(soak(options.sites or 30, options.rounds or 20)))


if __name__ == "__main__":
    main()
