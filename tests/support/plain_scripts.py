"""Scripts that users run, in forks that have loaded torch and in which nothing of cloister is."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.examples import ALL
from tests.support.worker_forks import run

Run = Callable[[str, Path], str]


def plain_script(program: str, place: Path) -> str:
    """Runs a program in a folder, and gives what it prints; one that fails, fails.

    `make nightly` gives each an interpreter of its own, which nothing of cloister has touched.
    """
    command = [sys.executable, "-c", program]
    if ALL:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    else:
        done = run(command, cwd=place, is_plain=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
