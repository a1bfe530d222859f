"""The local engine in one process: memory with many sites, and time outside training and scores."""

import json
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.figure import Figure

PROGRAM = """
import json, resource, sys, tempfile, time
from pathlib import Path
import cloister.client.round as site, cloister.server.public_scores as scores
import cloister.simulation.run as run
from cloister.recipe import parse_recipe
from cloister.server.run_directory import RunDirectory

spent = 0.0
def timed(work):
    def call(*args, **kwargs):
        global spent
        started = time.perf_counter()
        try:
            return work(*args, **kwargs)
        finally:
            spent += time.perf_counter() - started
    return call
site.local_update = timed(site.local_update)
scores.evaluate = timed(scores.evaluate)
recipe = parse_recipe("", json.loads(sys.argv[1]))
started = time.perf_counter()
with tempfile.TemporaryDirectory() as folder:
    run.simulate(recipe, RunDirectory.create(Path(folder) / "run", recipe), workers=1)
total = time.perf_counter() - started
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"memory": memory, "total": total, "spent": spent}))
"""


def figures() -> Iterator[Figure]:
    memory = {
        sites: measured(
            f"data.sites={sites}",
            "data.partition=iid",
            "data.public_records=200",
            "training.expected_batch_size=20",
            "federation.num_rounds=2",
        )["memory"]
        for sites in (2, 20)
    }
    yield Figure("peak memory of 20 sites over 2", memory[20] / memory[2], 1.2, "at most")
    quickstart = measured()
    outside = 1 - quickstart["spent"] / quickstart["total"]
    yield Figure("quickstart's time outside training and evaluation", outside, 0.1, "at most")


def measured(*assignments: str) -> dict[str, float]:
    """Runs a study in a process of its own."""
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(assignments)],
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, float] = json.loads(finished.stdout)
    return result
