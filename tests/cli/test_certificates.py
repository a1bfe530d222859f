"""`cloister audit certificate|bundle|verify` on a finished run, as a privacy officer types them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cloister.cli.certificates import _rounds
from cloister.cli.main import run
from tests.support.studies import small_assignments
from tests.tools.test_independent_verifier import independent

TOOL = Path(__file__).parents[2] / "tools" / "verify_certificate.py"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    options = [a for value in small_assignments(folder) for a in ("--set", value)]
    assert run(["simulate", *options, "--out", str(folder / "run")]) == 0
    assert run(["audit", "certificate", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def verifying(study: Path, *options: str) -> list[str]:
    folder = study / "certificates"
    keys = [] if options else ["--keys", str(folder / "keys.json")]
    return ["audit", "verify", str(folder / "bundle.zip"), *keys, *options]


def test_a_finished_run_is_certified_and_verified(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(verifying(study)) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "nothing refuted" in told
    assert "Not checked" in told
    assert "That each site ran this code unchanged" in told
    assert "verified" not in told.lower()
    assert run([*verifying(study), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["refuted"] is False
    (first, second) = document["sites"]
    assert first["promise"]["unit"] == "record"
    assert first["received"] == first["released"] == first["rounds"] == 2
    assert 7.9 < first["promise"]["epsilon"] <= 8.0
    assert (first["promise"]["basis"], first["promise"]["is_promise"]) == ("whole-plan", True)
    assert first["spent"]["is_promise"] is False
    assert "What is spent so far is an indication, not a promise." in told
    assert first["adapter"] == second["adapter"]
    assert document["unchecked"]


def test_a_stranger_verifies_without_cloister(study: Path) -> None:
    folder = study / "certificates"
    command = [
        sys.executable,
        "-I",
        str(TOOL),
        str(folder / "bundle.zip"),
        str(folder / "keys.json"),
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert "for one record" in told.stdout


def test_keys_must_be_given_and_be_the_sites_own(
    study: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["audit", "verify", str(study / "certificates" / "bundle.zip")]) == 2
    assert "ask the institution" in capsys.readouterr().err
    keys = json.loads((study / "certificates" / "keys.json").read_text())
    given = [a for site, key in keys.items() for a in ("--key", f"{site}={key}")]
    assert run(verifying(study, *given)) == 0
    assert run(verifying(study, *given, "--key", f"another={'ab' * 32}")) == 6
    assert "no certificate" in capsys.readouterr().err
    site = next(iter(keys))
    assert run(verifying(study, *given, "--key", f"{site}={'ab' * 32}")) == 6
    assert f"{site}: the certificate belongs to another site" in capsys.readouterr().err
    assert run(verifying(study, "--key", "east")) == 2
    assert run(verifying(study, "--key", "east=short")) == 3
    (tmp_path / "keys.json").write_text("[]")
    assert run(verifying(study, "--keys", str(tmp_path / "keys.json"))) == 3
    assert run(verifying(study, "--keys", str(tmp_path / "none.json"))) == 3


def test_a_run_that_did_not_finish_is_not_certified(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(study / "adapter")
    assert run(["audit", "certificate", str(study)]) == 3
    assert "did not finish" in capsys.readouterr().err
    assert run(["audit", "certificate", str(study / "none")]) == 3
    ledger = str(study / "ledgers" / "east.ledger")
    for odd in ("a/b", "../a", ".a", "a\\b", ""):
        assert run(["audit", "certificate", ledger, "--adapter", str(study), "--site", odd]) == 2
    assert (
        run(
            [
                "audit",
                "certificate",
                str(study / "recipe.toml"),
                "--site",
                "x",
                "--adapter",
                str(study),
            ]
        )
        == 3
    )


def test_a_changed_adapter_is_refuted(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Certificates of one adapter, bundled with another."""
    weights = study / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"\0")
    certificates = [str(study / "certificates" / f"{site}.json") for site in ("east", "west")]
    adapter, out = str(study / "adapter"), str(study / "certificates" / "bundle.zip")
    bundling = ["audit", "bundle", *certificates, "--adapter", adapter, "--out", out]
    assert run([*bundling, "--run", str(study)]) == 0
    assert run(verifying(study)) == 6
    assert "another adapter" in capsys.readouterr().err


def test_sites_certify_and_the_coordinator_bundles(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = str(study / "adapter")
    files = []
    for site in ("east", "west"):
        files.append(str(tmp_path / f"{site}.json"))
        ledger = str(study / "ledgers" / f"{site}.ledger")
        command = ["audit", "certificate", ledger, "--adapter", adapter, "--site", site]
        assert run([*command, "--out", files[-1]]) == 0
    assert run(["audit", "certificate", str(study / "ledgers" / "east.ledger")]) == 2
    out = str(study / "certificates" / "bundle.zip")
    assert run(["audit", "bundle", *files, "--adapter", adapter, "--out", out]) == 0
    capsys.readouterr()
    assert run(verifying(study)) == 0
    assert "the bundle has no list of it" in " ".join(capsys.readouterr().out.split())
    assert run(["audit", "bundle", files[0], files[0], "--adapter", adapter, "--out", out]) == 2


@pytest.mark.parametrize("content", [b"", b"PK", b"garbage" * 100])
def test_what_is_no_bundle_is_said_to_be_none(
    study: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (study / "certificates" / "bundle.zip").write_bytes(content)
    assert run(verifying(study)) == 3
    assert "not a bundle" in capsys.readouterr().err


def test_a_ledger_that_lost_entries_is_not_certified(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latest = study / "checkpoint" / "latest.json"
    stored = json.loads(latest.read_text())
    stored["ledgers"]["east"]["hash"] = "0" * 64
    latest.write_text(json.dumps(stored))
    assert run(["audit", "certificate", str(study)]) == 6
    assert "rolled back" in capsys.readouterr().err


def test_the_coordinators_list_of_members_is_taken_as_keys(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `cloister member list --json` prints; one that has not joined yet has no key."""
    keys = json.loads((study / "certificates" / "keys.json").read_text())
    members = [{"site": site, "ledger_key": key} for site, key in keys.items()]
    listed = tmp_path / "members.json"
    listed.write_text(json.dumps({"members": [*members, {"site": "new", "ledger_key": ""}]}))
    assert run(verifying(study, "--keys", str(listed))) == 0
    assert "nothing refuted" in " ".join(capsys.readouterr().out.split())
    assert independent()([str(study / "certificates" / "bundle.zip"), str(listed)]) == 0
    listed.write_text(json.dumps({"members": [{"site": "east"}]}))
    assert run(verifying(study, "--keys", str(listed))) == 3


def test_what_was_received_besides_rounds_is_named() -> None:
    kept = [{"round": 2, "released": True}, {"round": 4, "released": False}]
    trained = {"released": 4, "rounds": 4}
    assert _rounds(trained) == "4 of 4"
    assert _rounds(trained | {"evaluations": kept}) == "4 of 4, 1 of 2 evaluations"
    voted = {"released": 0, "rounds": 0, "evaluations": [], "votes": kept}
    assert _rounds(voted) == "1 of 2 votes"
