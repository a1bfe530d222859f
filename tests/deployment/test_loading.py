"""A process that loads torch turns the garbage collector off while loading, and on after it."""

import os
import subprocess
from pathlib import Path

from cloister.deployment.loading import command_of

PROBE = """
import gc

LOADED = gc.isenabled()


def main(path):
    path.write_text(f"{LOADED} {gc.isenabled()} {gc.get_freeze_count() > 1000}")
"""


def test_the_collector_is_off_while_loading_and_on_afterwards(tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    own = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])}
    command = command_of("probe", tmp_path / "found")
    subprocess.run(command, env={**os.environ, **own}, check=True)
    assert (tmp_path / "found").read_text() == "False True True"
