"""`cloister ledger` on a finished run's ledgers."""

import json
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.ledger import stated
from cloister.ledger.signing import create_key
from tests.support.ledgers import new_ledger, reserved, run_round, small_plan


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "site.ledger"
    opened = new_ledger(path)
    run_round(opened, 1)
    reserved(opened, 2)
    return path


def test_show_lists_charges_and_releases(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ledger", "show", str(ledger)]) == 0
    shown = capsys.readouterr().out
    assert "ε = 50.0000 at δ = 2e-05, for one record added or removed" in shown
    assert "promised for everything that this data set ever releases" in shown
    assert "promised for the whole plan, however early it stops" in shown
    assert "an indication by PLD, not a promise" in shown
    assert stated.shown(small_plan().epsilon_after(2), 4) in shown
    assert "cut off" in shown
    assert run(["ledger", "show", str(ledger), "--json"]) == 0
    kinds = [entry["kind"] for entry in json.loads(capsys.readouterr().out)["entries"]]
    assert kinds == ["begin", "reserve", "release", "reserve"]


def test_a_promise_is_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new_ledger(tmp_path / "fresh.ledger")
    assert run(["ledger", "show", str(tmp_path / "fresh.ledger")]) == 0
    assert capsys.readouterr().out.count("promised for everything") == 1


def test_a_folder_is_read_as_no_ledger_and_gets_no_lock(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ledgers").mkdir()
    assert run(["ledger", "show", str(tmp_path / "ledgers")]) == 6
    told = capsys.readouterr().err
    assert "a folder, not a ledger; name the file in it" in told
    assert "free space" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["ledgers"]


def test_verify_says_what_it_found(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ledger", "verify", str(ledger)]) == 0
    told = capsys.readouterr().out
    assert "valid. 2 rounds charged (10 training steps), 1 released." in told
    assert f"ε = {stated.shown(small_plan().epsilon_after(4), 4)} at δ = 1e-05" in told
    assert "of the budget's 50, both at δ = 1e-05" in told
    assert "an indication, not a promise" in told
    assert "which only the ledger itself names" in told
    assert "missing last entries would not show" in told
    assert run(["ledger", "verify", str(ledger), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["sound"] is True
    assert document["promise"]["epsilon"] == small_plan().epsilon_after(4)
    assert document["promise"]["is_promise"]
    assert document["spent"]["epsilon"] == small_plan().epsilon_after(2)
    assert not document["spent"]["is_promise"]
    assert document["recomputed"]["pld"] == small_plan().epsilon_after(2)
    assert document["budget"] == {"epsilon": 50.0, "delta": 2e-05}
    assert run(["ledger", "verify", str(ledger), "--key", document["key"]]) == 0
    assert run(["ledger", "verify", str(ledger), "--key", "ab" * 32]) == 6


def test_a_head_is_exported_countersigned_and_checked(
    ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_key(tmp_path / "officer.key")
    assert run(["ledger", "export", str(ledger), "--head"]) == 0
    (tmp_path / "head.json").write_text(capsys.readouterr().out)
    countersign = ["--countersign", str(tmp_path / "officer.key")]
    assert run(["ledger", "export", str(tmp_path / "head.json"), *countersign]) == 0
    (tmp_path / "seen.json").write_text(capsys.readouterr().out)
    anchored = ["ledger", "verify", str(ledger), "--anchor", str(tmp_path / "seen.json")]
    assert run(anchored) == 0
    assert "continues 1 earlier head" in capsys.readouterr().out
    for end in ("", ".head", ".key"):
        ledger.with_name(ledger.name + end).unlink()
    new_ledger(ledger)
    assert run(anchored) == 6
    assert "truncated, rolled back or replaced" in capsys.readouterr().err


def test_export_prints_what_an_auditor_needs(
    ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ledger", "export", str(ledger)]) == 0
    rows = json.loads(capsys.readouterr().out)["entries"]
    assert [json.loads(row["body"])["seq"] for row in rows] == [0, 1, 2, 3]


@pytest.mark.parametrize("command", ["show", "verify", "export"])
def test_what_is_no_ledger_is_refused(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ledger", command, str(tmp_path / "none")]) == 6
    (tmp_path / "text").write_text("no ledger " * 100)
    assert run(["ledger", command, str(tmp_path / "text")]) == 6
    assert "Traceback" not in capsys.readouterr().err
