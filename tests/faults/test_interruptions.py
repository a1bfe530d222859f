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


def start(tmp_path: Path, *options: str) -> tuple[subprocess.Popen[str], Path]:
    sets = [
        a
        for value in (*small_assignments(tmp_path / "study"), "federation.num_rounds=400")
        for a in ("--set", value)
    ]
    out = tmp_path / "run"
    # A job that a shell started in the background inherits an ignored SIGINT; this one listens.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from cloister.cli.main import main; main()"
    )
    command = [sys.executable, "-c", program, "simulate", *sets, "--no-twin", "--out", str(out)]
    process = subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    return process, out


def wait_for_round(process: subprocess.Popen[str], number: int) -> None:
    """Reads stderr until a round's row is printed."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"{number}/400"):
            return
    pytest.fail("the run ended early")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_closed_rounds_and_charges_outlive_an_interruption(
    tmp_path: Path, how: signal.Signals
) -> None:
    process, out = start(tmp_path)
    wait_for_round(process, 3)
    os.kill(process.pid, how)
    _, told = process.communicate()
    latest = json.loads((out / "checkpoint" / "latest.json").read_text())
    assert latest["round"] >= 3
    for site in ("east", "west"):
        charged = Ledger(out / "ledgers" / f"{site}.ledger").steps // STEPS
        # Never fewer than what was closed, and at most the round that was under way more.
        assert latest["round"] <= charged <= latest["round"] + 1
    if how is signal.SIGINT:
        assert process.returncode == 1
        assert f"cloister simulate --resume --out {out}" in told
        assert "Traceback" not in told
    resumed = subprocess.Popen(
        [sys.executable, "-m", "cloister", "simulate", "--resume", "--out", str(out)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    wait_for_round(resumed, latest["round"] + 1)
    resumed.kill()
    resumed.communicate()
