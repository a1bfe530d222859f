"""What a machine without internet gets: hashes of everything, and an installer that checks them."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.errors import BadFileError, UsageError
from cloister.provisioning.offline import collect, seal

ROOT = Path(__file__).parents[2]


@pytest.fixture
def collected(tmp_path: Path) -> Path:
    out = tmp_path / "offline"
    (out / "wheels").mkdir(parents=True)
    for name in ("some_thing-1.2.3-py3-none-any.whl", "other-4.5+cpu-cp311-cp311-linux_x86_64.whl"):
        (out / "wheels" / name).write_bytes(name.encode())
    (out / "model").mkdir()
    (out / "model" / "config.json").write_text("{}")
    return out


def test_everything_is_listed_with_its_hash(collected: Path) -> None:
    assert seal(collected) == 2
    wheel = collected / "wheels" / "some_thing-1.2.3-py3-none-any.whl"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    listed = (collected / "requirements.txt").read_text()
    assert f"some_thing==1.2.3 --hash=sha256:{digest}\n" in listed
    assert "other==4.5+cpu --hash=" in listed
    check = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=collected, check=False).returncode == 0
    (collected / "model" / "config.json").write_text("{ }")
    assert subprocess.run(check, cwd=collected, check=False, capture_output=True).returncode != 0


def test_the_installer_stops_at_what_was_changed(collected: Path) -> None:
    seal(collected)
    (collected / "wheels" / "other-4.5+cpu-cp311-cp311-linux_x86_64.whl").write_text("evil")
    done = subprocess.run([str(collected / "install.sh")], check=False, capture_output=True)
    assert done.returncode != 0
    assert not (collected / ".venv").exists()


def test_what_cannot_be_installed_offline_is_refused(collected: Path) -> None:
    (collected / "wheels" / "source-1.0.tar.gz").write_bytes(b"")
    with pytest.raises(BadFileError, match="no wheel"):
        seal(collected)


def test_bad_input_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="already"):
        collect(tmp_path, ROOT, None)
    with pytest.raises(UsageError, match="sources"):
        collect(tmp_path / "out", tmp_path, None)
    with pytest.raises(BadFileError, match="base model"):
        collect(tmp_path / "out", ROOT, tmp_path / "none")
    assert run(["bundle", str(tmp_path / "out"), "--source", str(tmp_path)]) == 2
