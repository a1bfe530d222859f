"""`cloister env` prints versions and hardware, and nothing that a bug report should not have."""

import getpass
import json
import os
import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from cloister import __version__
from cloister.cli import environment
from cloister.cli.main import run


def test_it_names_the_versions_that_a_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["env", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cloister"] == __version__
    assert platform.python_version() in found["python"]
    for name in ("torch", "flwr", "peft", "opacus", "transformers", "dp-accounting"):
        assert found["packages"][name] == metadata.version(name)
    assert found["hardware"]["cores"] == os.cpu_count()
    assert found["hardware"]["gpus"] is not None


def test_its_text_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["env"]) == 0
    text = capsys.readouterr().out
    for word in (__version__, f"torch                  {metadata.version('torch')}", "locks:"):
        assert word in text


def test_nothing_private_is_in_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(platform, "release", lambda: "6.1.0-secrethost-7")
    monkeypatch.setattr(platform, "node", lambda: "secrethost")
    monkeypatch.setattr(socket, "gethostname", lambda: "secrethost")
    monkeypatch.setattr(getpass, "getuser", lambda: "secretuser")
    monkeypatch.setenv("CLOISTER_SECRET", "secretvalue")
    monkeypatch.setenv("HOME", str(tmp_path / "secretuser"))
    monkeypatch.chdir(tmp_path)
    assert run(["env"]) == 0
    assert run(["env", "--json"]) == 0
    text = capsys.readouterr().out
    for private in (
        "secret",
        str(tmp_path),
        str(Path(environment.__file__).parents[2]),
        sys.prefix,
    ):
        assert private not in text
    assert "6.1.0" in text


def test_locks_are_compared_with_what_is_installed(tmp_path: Path) -> None:
    (tmp_path / "cpu.txt").write_text(
        f"# a comment\ntorch=={metadata.version('torch')} \\\n    --hash=sha256:{'0' * 64}\n"
        f"peft==0.0.1 \\\n    --hash=sha256:{'0' * 64}\n"
        "nowhere-at-all==1.0\nfor-others==1.0 ; sys_platform == 'win16'\n"
    )
    assert environment.describe(tmp_path)["locks"] == {
        "cpu": {
            "packages": 3,
            "as_locked": 1,
            "other_version": {"peft": metadata.version("peft")},
        }
    }
    assert environment.describe(tmp_path / "none")["locks"] is None


def test_a_broken_torch_is_reported_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    hardware = environment.describe()["hardware"]
    assert hardware["gpus"] is None
    assert hardware["torch"] == "cannot be imported (ModuleNotFoundError)"


def test_its_module_loads_no_torch() -> None:
    program = "import cloister.cli.environment, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
