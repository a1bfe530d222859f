"""The ledger outlives crashes, and stops everything when it cannot be read or written."""

import math
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cloister.errors import LedgerError
from cloister.privacy.ledger import Ledger
from cloister.privacy.plan import Plan


def plan(noise_multiplier: float = 1.0) -> Plan:
    return Plan(
        public_records=100,
        expected_batch_size=10,
        local_steps=5,
        num_rounds=4,
        noise_multiplier=noise_multiplier,
        max_grad_norm=1.0,
        max_update_norm=1.0,
        delta=1e-5,
    )


def test_what_is_charged_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.charge(plan(), 1, is_private=True)
    ledger.sent(1, "ab12", 100)
    ledger.charge(plan(), 2, is_private=True)
    again = Ledger(path)
    assert again.charges == ledger.charges
    assert [charge.round for charge in again.charges] == [1, 2]
    assert again.epsilon(1e-5) == plan().epsilon_after(2)


def test_a_new_ledger_has_spent_nothing(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "none.jsonl").epsilon(1e-5) == 0.0


def test_predictable_randomness_costs_everything(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.charge(plan(), 1, is_private=False)
    assert ledger.epsilon(1e-5) == math.inf


def test_a_repeated_round_is_paid_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.charge(plan(), 1, is_private=True)
    ledger.charge(plan(), 1, is_private=True)
    assert ledger.epsilon(1e-5) == plan().epsilon_after(2)


@pytest.mark.parametrize("damage", ["cut", "garbage", "reorder", "delete"])
def test_a_damaged_ledger_stops_everything(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    for number in (1, 2, 3):
        ledger.charge(plan(), number, is_private=True)
    lines = path.read_text().splitlines(keepends=True)
    changed = {
        "cut": [*lines[:2], lines[2][:-20]],
        "garbage": [lines[0], "garbage\n", lines[2]],
        "reorder": [lines[1], lines[0], lines[2]],
        "delete": lines[1:],
    }[damage]
    path.write_text("".join(changed))
    with pytest.raises(LedgerError, match=r"cannot be read.*restore"):
        Ledger(path)


def test_what_cannot_be_written_is_not_charged(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(LedgerError, match="cannot be written"):
        Ledger(blocked / "ledger.jsonl").charge(plan(), 1, is_private=True)


def test_a_charge_is_on_disk_before_the_process_can_be_killed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    program = textwrap.dedent(
        f"""
        import os, pathlib, signal
        from cloister.privacy.ledger import Ledger
        from tests.privacy.test_ledger import plan
        Ledger(pathlib.Path({str(path)!r})).charge(plan(), 1, is_private=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    root = Path(__file__).parents[2]
    finished = subprocess.run([sys.executable, "-c", program], cwd=root, check=False)
    assert finished.returncode == -9
    assert len(Ledger(path).charges) == 1
