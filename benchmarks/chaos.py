"""Kills a federation's processes at random instants and checks what is left.

    python -m benchmarks.chaos --kills 200 --seed 1 [--folder DIR]

A coordinator and three sites run one long study after the other on loopback; a random process of
theirs is killed (SIGKILL) every few seconds: agents, SuperNodes, SuperLink, gate, executor, and the
services that watch over them, which are then started again as an init system would. At the end
every ledger is verified and held against what the coordinator counted
(`tests.support.federation.check_history`), and a table is printed.
"""

import argparse
import json
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from cloister.deployment.coordinator.journal import ENDED, RunStatus, read_run
from cloister.server.run_directory import RunDirectory
from tests.support.federation import Federation, check_history, federation

SITES = ("east", "north", "west")
# Rounds of one study; the next one begins when it ends.
ROUNDS = 40
# Seconds between kills are uniform up to this: long enough that rounds close in between.
LONGEST = 20.0
# Seconds that a round waits for its sites: one whose SuperNode was killed comes in again after
# about a minute, in which six more processes are killed, likely the coordinator's own.
PATIENCE = 30.0
# How often each kind is the victim, in 100. A SuperNode that was killed, or its service, comes in
# again after about a minute; without executor or SuperLink the run begins its preparation anew.
WEIGHTS = {
    "agent": 35,
    "supernode": 8,
    "superlink": 8,
    "gate": 13,
    "executor": 9,
    "server service": 8,
    "site service": 19,
}
OF_THE_COORDINATOR = ("superlink", "gate", "executor", "server service")


def kill_one(made: Federation, rng: random.Random) -> str | None:
    """Kills one process; what it was, or None where it did not run just then."""
    kind = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    who = "server" if kind in OF_THE_COORDINATOR else rng.choice(list(made.sites))
    if kind.endswith("service"):
        made.end(who, signal.SIGKILL)
        made.start(who)
        return kind
    return kind if made.kill(who, kind) else None


def main() -> None:
    """Kills, then checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    killed: Counter[str] = Counter()
    runs: list[str] = []
    with federation(folder, SITES, epsilon="50.0", noise=0.8) as made:
        for who in ("server", *made.sites):
            made.start(who)
        started = time.monotonic()
        while sum(killed.values()) < options.kills:
            if not runs or made.standing(runs[-1]) in ENDED:
                runs.append(f"study-{len(runs)}")
                made.submit(
                    runs[-1],
                    ROUNDS,
                    f"study.seed={len(runs)}",
                    "federation.min_sites=1",
                    "federation.absent_timeout=5.0",
                    f"federation.round_timeout={PATIENCE}",
                )
            time.sleep(rng.uniform(0.5, LONGEST))
            kind = kill_one(made, rng)
            if kind is not None:
                killed[kind] += 1
                count = sum(killed.values())
                if count % 10 == 0:
                    rounds = sum(len(RunDirectory(made.server.run(r)).metrics()) for r in runs)
                    say(
                        f"{count} kills, {rounds} rounds closed, {time.monotonic() - started:.0f} s"
                    )
        standing = made.wait_ended(runs[-1], 1800.0)
        counts = check_history(made, *[run for run in runs if closed(made, run)])
        ended = Counter(made.standing(run).value for run in runs)
        errors = [
            read_run(made.server.run(run)).error
            for run in runs
            if made.standing(run) is RunStatus.FAILED
        ]
    rounds = rounds_of(made, runs)
    say(
        json.dumps(
            {
                "seed": options.seed,
                "kills": dict(killed),
                "seconds": round(time.monotonic() - started),
                "runs": dict(ended),
                "last": standing.value,
                "rounds_closed": rounds,
                **counts,
                "errors": errors,
                "violations": 0,
            }
        )
    )


def rounds_of(made: Federation, runs: list[str]) -> int:
    """Rounds that the runs closed."""
    return sum(len(RunDirectory(made.server.run(run)).metrics()) for run in runs)


def closed(made: Federation, run: str) -> bool:
    """Whether a run closed any round."""
    return (made.server.run(run) / "checkpoint" / "latest.json").exists()


def say(text: str) -> None:
    """Prints at once."""
    print(text, flush=True)


if __name__ == "__main__":
    main()
