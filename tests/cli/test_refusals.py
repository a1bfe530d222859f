"""A mistake is reported before torch is loaded, and leaves nothing that blocks the next try."""

import json
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.ledger.ledger import Ledger
from tests.support.studies import small_assignments
from tests.test_import_order import loaded

# Python that runs commands, each with the exit code that it must end with.
PROGRAM = """
from cloister.cli.main import run
for code, arguments in {cases!r}:
    found = run(arguments)
    assert found == code, (arguments, found)
"""

# Found late: after the folder was made and the ledgers were begun.
LATE = ["--set", 'lora.target_modules=["word_embeddings"]']


def sets(assignments: list[str]) -> list[str]:
    return [word for assignment in assignments for word in ("--set", assignment)]


def test_refusals_load_nothing_heavy(tmp_path: Path) -> None:
    good = sets(small_assignments(tmp_path / "study"))
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "note.txt").write_text("mine")
    (tmp_path / "other.csv").write_text("words,class\nx,y\n")
    out = ["--out", str(tmp_path / "out")]
    wrong = {
        "data.train='none.jsonl'": 3,
        f"data.train='{tmp_path / 'other.csv'}'": 3,
        "data.text=words": 3,
        "model.base=./nowhere": 3,
        "privacy.epsilon=-1": 2,
        "lora.rank=3": 2,
    }
    cases: list[tuple[int, list[str]]] = [
        (code, ["simulate", *good, "--set", assignment, *out]) for assignment, code in wrong.items()
    ]
    cases += [
        (2, ["simulate", *good, "--out", str(taken)]),
        (2, ["simulate", "--resume"]),
        (2, ["simulate", "--resume", "--dry-run", *out]),
        (2, ["simulate", "--resume", *out]),
        (3, ["simulate", "none.toml"]),
        (2, ["plan", *good, "--set", "privacy.enabled=false"]),
        (2, ["plan", *good, "--set", "privacy.epsilon=-1"]),
        (0, ["--version"]),
    ]
    assert loaded(PROGRAM.format(cases=cases)) == set()
    assert not (tmp_path / "out").exists()


def test_a_failed_first_try_does_not_block_the_second(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = sets(small_assignments(tmp_path / "study"))
    out = tmp_path / "run"
    assert run(["simulate", *good, *LATE, "--out", str(out)]) == 4
    assert (out / "recipe.toml").is_file()
    capsys.readouterr()
    assert run(["simulate", "--resume", "--out", str(out)]) == 4
    told = capsys.readouterr().err
    assert "a resumed run keeps its own recipe" in told
    assert "without --resume" in told
    assert run(["simulate", *good, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rounds"] == 2
    assert "word_embeddings" not in (out / "recipe.toml").read_text(encoding="utf-8")
    # Now rounds are charged: the folder stays as it is.
    steps = [Ledger(path).steps for path in sorted(out.glob("ledgers/*.ledger"))]
    assert run(["simulate", *good, "--out", str(out)]) == 2
    assert [Ledger(path).steps for path in sorted(out.glob("ledgers/*.ledger"))] == steps


def test_a_dry_run_ends_before_the_first_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = sets(small_assignments(tmp_path / "study"))
    out = tmp_path / "run"
    assert run(["simulate", *good, "--dry-run", "-v", "--out", str(out), "--json"]) == 0
    captured = capsys.readouterr()
    checked = json.loads(captured.out)
    assert checked["promises"].keys() == {"east", "west"}
    assert checked["test_records"] == 30
    assert checked["parameters"] > 0
    assert "checking per-record gradients" in captured.err
    assert not out.exists()
    assert run(["simulate", *good, *LATE, "--dry-run"]) == 4
    assert run(["simulate", *good, "--dry-run"]) == 0
    assert "Nothing was trained" in capsys.readouterr().out
