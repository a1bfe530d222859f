"""Real processes, really interrupted: nothing written is lost, nothing spent is forgotten."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cloister.ledger.ledger import Ledger
from tests.support.studies import small_assignments

ROOT = Path(__file__).parents[2]
STEPS = 2  # a round


def started(words: list[str]) -> subprocess.Popen[str]:
    """A command of ours, in a process of its own."""
    # A job that a shell started in the background inherits an ignored SIGINT; this one listens.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from cloister.cli.main import main; main()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def start(tmp_path: Path) -> tuple[subprocess.Popen[str], Path]:
    sets = [
        a
        for value in (*small_assignments(tmp_path / "study"), "federation.num_rounds=400")
        for a in ("--set", value)
    ]
    out = tmp_path / "run"
    return started(["simulate", *sets, "--no-twin", "--out", str(out)]), out


def wait_for_round(process: subprocess.Popen[str], number: int) -> None:
    """Reads stderr until a round's row is printed."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"{number}/400"):
            return
    pytest.fail("the run ended early")


BOTH = [signal.SIGINT, signal.SIGKILL]


@pytest.mark.parametrize(
    "hows", [BOTH, pytest.param(BOTH[::-1], marks=pytest.mark.nightly)], ids=["asked", "killed"]
)
def test_closed_rounds_and_charges_outlive_interruptions(
    tmp_path: Path, hows: list[signal.Signals]
) -> None:
    """A run is interrupted, resumed, and interrupted again in the other way."""
    process, out = start(tmp_path)
    closed = 2
    for number, how in enumerate(hows):
        wait_for_round(process, closed + 1)
        os.kill(process.pid, how)
        _, told = process.communicate()
        latest = json.loads((out / "checkpoint" / "latest.json").read_text())
        assert latest["round"] >= closed + 1
        closed = latest["round"]
        for site in ("east", "west"):
            charged = Ledger(out / "ledgers" / f"{site}.ledger").steps // STEPS
            # Never fewer than what was closed, and at most the rounds that were under way more.
            assert closed <= charged <= closed + number + 1
        if how is signal.SIGINT:
            assert process.returncode == 1
            assert f"cloister simulate --resume --out {out}" in told
            assert "Traceback" not in told
        if number == 0:
            process = started(["simulate", "--resume", "--out", str(out)])
