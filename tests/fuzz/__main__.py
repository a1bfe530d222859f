"""Runs the fuzzers for a stated time: `python -m tests.fuzz --minutes 60`.

One file after another, round and round, each time with another seed and for a part of the time. It
ends with 1 at the first exception that no parser of ours may raise, and prints the example; put it
into the file as an `@example`, mend it, and begin again.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent


def run(file: Path, examples: int, seed: int, counter: Path) -> bool:
    """One file's fuzzers with so many examples each; whether nothing was found."""
    environment = {
        **os.environ,
        "HYPOTHESIS_PROFILE": "fuzz",
        "FUZZ_EXAMPLES": str(examples),
        "FUZZ_COUNTER": str(counter),
        "OMP_NUM_THREADS": "1",
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-o",
        "addopts=",
        "--import-mode=importlib",
        "-x",
        "-q",
        "--no-header",
        "--tb=short",
        f"--hypothesis-seed={seed}",
        str(file),
    ]
    return subprocess.run(command, env=environment, check=False).returncode == 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="In all.")
    parser.add_argument("--examples", type=int, default=300, help="Of each test, each time.")
    parser.add_argument("files", nargs="*", type=Path, help="Which; absent: all.")
    given = parser.parse_args(arguments)
    files = given.files or sorted(HERE.glob("test_*.py"))
    until, passes = time.monotonic() + 60 * given.minutes, 0
    with tempfile.TemporaryDirectory() as folder:
        counter = Path(folder) / "tried"
        while time.monotonic() < until:
            for file in files:
                seed = random.SystemRandom().randrange(2**32)
                if not run(file, given.examples, seed, counter):
                    sys.stdout.write(f"found by {file.name} with seed {seed}\n")
                    return 1
                if time.monotonic() >= until:
                    break
            passes += 1
        tried = sum(map(int, counter.read_text().split())) if counter.exists() else 0
    sys.stdout.write(
        f"{tried:,} inputs in {given.minutes:g} minutes, {passes} passes over {len(files)} files: "
        "nothing was raised but refusals\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
