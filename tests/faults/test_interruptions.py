"""Real processes that are interrupted lose nothing written and forget nothing spent."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cloister.ledger.ledger import Ledger
from tests.support.studies import small_assignments
from tests.support.worker_forks import Program, started

STEPS = 2  # a round


def simulating(*words: str) -> Program:
    command = [sys.executable, "-m", "cloister", "simulate", *words]
    return started(command, stderr=subprocess.PIPE, text=True)


def ended(command: Program) -> tuple[int, str]:
    """Waits for its end; its exit code, and what it printed that was not read yet."""
    assert command.stderr is not None
    with command.stderr as stderr:
        told = stderr.read()
    return command.wait(), told


def start(tmp_path: Path) -> tuple[Program, Path]:
    sets = [
        a
        for value in (*small_assignments(tmp_path / "study"), "federation.num_rounds=400")
        for a in ("--set", value)
    ]
    out = tmp_path / "run"
    return simulating(*sets, "--no-twin", "--out", str(out)), out


def wait_for_round(command: Program, number: int) -> None:
    """Reads stderr until a round's row is printed."""
    assert command.stderr is not None
    for line in command.stderr:
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
    command, out = start(tmp_path)
    closed = 2
    for number, how in enumerate(hows):
        wait_for_round(command, closed + 1)
        os.kill(command.pid, how)
        code, told = ended(command)
        latest = json.loads((out / "checkpoint" / "latest.json").read_text())
        assert latest["round"] >= closed + 1
        closed = latest["round"]
        for site in ("east", "west"):
            charged = Ledger(out / "ledgers" / f"{site}.ledger").steps // STEPS
            # Never fewer than what was closed, and at most the rounds that were under way more.
            assert closed <= charged <= closed + number + 1
        if how is signal.SIGINT:
            assert code == 1
            assert f"cloister simulate --resume --out {out}" in told
            assert "Traceback" not in told
        if number == 0:
            command = simulating("--resume", "--out", str(out))
