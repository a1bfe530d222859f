"""Runs users' scripts in forks that have loaded torch but cannot import cloister."""

import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.worker_forks import run

Run = Callable[[str, Path], str]


def plain_script(program: str, place: Path) -> str:
    """Runs a program in a folder, and gives what it prints; one that fails, fails."""
    done = run([sys.executable, "-c", program], cwd=place, is_plain=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
