"""The authority's key at rest: no byte of it in the clear, and none of its passphrase in argv."""

import io
import os
import stat
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloister.cli.main import run
from cloister.deployment.coordinator.backup import back_up, restore
from cloister.deployment.coordinator.folder import ServerConfig, ServerFolder
from cloister.deployment.enrolment import passphrase as passphrases
from cloister.deployment.enrolment import sealed_key
from cloister.deployment.enrolment.authority import ENDPOINT_LIFE, create_authority, load_authority
from cloister.deployment.enrolment.authority_key import KeyState, key_state, rewrite_key
from cloister.deployment.enrolment.passphrase import new_passphrase, unlock
from cloister.deployment.processes import Supervisor
from cloister.errors import BadFileError, UsageError
from tests.deployment.coordinator.test_gate import free_port
from tests.support.papers import DAY, NOW

WORDS = b"correct horse battery"
CONFIG = ServerConfig(name="hub", address="fed.example.org:9443")


@pytest.fixture(autouse=True)
def _nobody_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (passphrases.VARIABLE, "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scrypt that costs nothing; one test holds the real cost."""
    monkeypatch.setattr(sealed_key, "COST", 2)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_bytes(WORDS + b"\n")
    path.chmod(0o600)
    return path


def test_a_key_is_encrypted_from_its_first_byte_on(tmp_path: Path) -> None:
    made = create_authority(tmp_path, "hub", NOW, WORDS)
    content = (tmp_path / "ca.key").read_bytes()
    plain = made.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    secret = made.key.private_numbers().private_value.to_bytes(32, "big")
    assert content.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert secret not in content
    assert plain not in content
    assert key_state(tmp_path) is KeyState.SEALED
    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600
    assert load_authority(tmp_path, lambda: WORDS).pem == made.pem
    assert sealed_key.COST * sealed_key.BLOCK * 128 == 128 * 2**20  # bytes for one guess


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("given", [WORDS + b"x", WORDS[:-1], WORDS.upper(), b"0" * 12])
def test_another_passphrase_opens_nothing(tmp_path: Path, given: bytes) -> None:
    create_authority(tmp_path, "hub", NOW, WORDS)
    with pytest.raises(BadFileError, match="the passphrase is wrong"):
        load_authority(tmp_path, lambda: given)


@pytest.mark.usefixtures("cheap")
def test_a_key_goes_with_its_own_authority(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        create_authority(tmp_path / name, name, NOW, WORDS)
    (tmp_path / "two" / "ca.key").replace(tmp_path / "one" / "ca.key")
    with pytest.raises(BadFileError):
        load_authority(tmp_path / "one", lambda: WORDS)


@pytest.mark.parametrize("given", [b"", b"short", b"eleven byte\n", b"x" * 1024])
def test_a_passphrase_has_its_bounds(tmp_path: Path, given: bytes) -> None:
    with pytest.raises(UsageError, match="12 to 1023 are needed"):
        create_authority(tmp_path, "hub", NOW, given)
    assert not list(tmp_path.iterdir())


def test_the_passphrase_comes_from_a_file_a_credential_or_the_terminal(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="--ca-passphrase-file"):
        unlock()
    assert unlock(file) == WORDS
    monkeypatch.setattr("getpass.getpass", lambda words: WORDS.decode())
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert unlock() == new_passphrase() == WORDS
    with pytest.raises(UsageError):
        unlock(ask=False)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "ca-passphrase").write_bytes(b"of the credential")
    (tmp_path / "ca-passphrase").chmod(0o400)
    assert unlock(ask=False) == b"of the credential"
    monkeypatch.setenv(passphrases.VARIABLE, str(file))
    assert unlock(ask=False) == WORDS


def test_a_passphrase_typed_twice_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["correct horse battery", "correct horse batterie"])
    monkeypatch.setattr("getpass.getpass", lambda words: next(typed))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    with pytest.raises(UsageError, match="the two passphrases differ"):
        new_passphrase()


def test_a_passphrase_that_everybody_reads_is_none(file: Path) -> None:
    file.chmod(0o644)
    with pytest.raises(BadFileError, match="chmod 600"):
        unlock(file)
    with pytest.raises(BadFileError, match="cannot be read"):
        unlock(file.parent)
    with pytest.raises(BadFileError, match="cannot be read"):
        unlock(file / "none")


@pytest.mark.usefixtures("cheap")
def test_the_key_is_opened_only_to_sign(tmp_path: Path) -> None:
    ServerFolder.create(tmp_path / "hub", CONFIG, NOW, WORDS)
    folder = ServerFolder.open(tmp_path / "hub")  # nothing tells the passphrase
    assert folder.renew(NOW + DAY) == ()
    due = NOW + ENDPOINT_LIFE / 2 + DAY
    with pytest.raises(UsageError, match="no passphrase was given"):
        folder.renew(due)
    assert folder.can_serve(due)
    assert not folder.can_serve(NOW + ENDPOINT_LIFE)
    opened = ServerFolder.open(tmp_path / "hub", lambda: WORDS)
    assert opened.renew(due) == ("endpoint",)
    assert opened == folder
    assert WORDS.decode() not in repr(opened)


@pytest.mark.usefixtures("cheap")
def test_a_backup_has_the_key_as_it_lies_there(tmp_path: Path) -> None:
    folder = ServerFolder.create(tmp_path / "hub", CONFIG, NOW, WORDS)
    back_up(folder, tmp_path / "backup.tar.gz")
    back = restore(tmp_path / "backup.tar.gz", tmp_path / "back")
    assert key_state(back.path) is KeyState.SEALED
    assert load_authority(back.path, lambda: WORDS).pem == folder.authority.pem


@pytest.mark.usefixtures("cheap")
def test_a_key_on_a_stick_stays_there(tmp_path: Path) -> None:
    folder = ServerFolder.create(tmp_path / "hub", CONFIG, NOW)
    stick, place = tmp_path / "stick.key", folder.path / "ca.key"
    place.replace(stick)
    assert key_state(folder.path) is KeyState.AWAY
    assert folder.renew(NOW) == ()
    place.symlink_to(stick)
    rewrite_key(folder.path, folder.authority, WORDS)
    assert place.is_symlink()
    assert sealed_key.is_sealed(stick.read_bytes())
    back_up(folder, tmp_path / "backup.tar.gz")
    stick.unlink()
    assert key_state(folder.path) is KeyState.AWAY
    assert key_state(restore(tmp_path / "backup.tar.gz", tmp_path / "back").path) is KeyState.AWAY


@pytest.mark.usefixtures("cheap")
def test_the_documented_commands_lock_and_unlock(
    tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    init = ["server", "init", "coordinator", "--address", "fed.example.org:9443"]
    assert run(init) == 0
    assert "lock-ca coordinator encrypts it" in capsys.readouterr().out
    place = tmp_path / "coordinator"
    certificate = (place / "ca.crt").read_bytes()
    assert run(["server", "lock-ca", "coordinator"]) == 2  # nobody tells a passphrase
    assert key_state(place) is KeyState.PLAIN
    monkeypatch.setenv(passphrases.VARIABLE, str(file))
    assert run(["server", "lock-ca", "coordinator"]) == 0
    assert key_state(place) is KeyState.SEALED
    assert run(["server", "lock-ca", "coordinator"]) == 2
    assert run(["member", "invite", "ward"]) == 0
    assert run(["server", "renew", "coordinator"]) == 0
    capsys.readouterr()
    assert run(["server", "status", "coordinator"]) == 0
    assert "authority's key: encrypted" in capsys.readouterr().out
    monkeypatch.delenv(passphrases.VARIABLE)
    assert run(["member", "invite", "clinic"]) == 2
    assert "--ca-passphrase-file" in capsys.readouterr().err.replace("\n", " ")
    assert run(["member", "invite", "clinic", "--ca-passphrase-file", str(file)]) == 0
    assert run(["server", "unlock-ca", "coordinator", "--ca-passphrase-file", str(file)]) == 0
    assert key_state(place) is KeyState.PLAIN
    assert run(["server", "unlock-ca", "coordinator"]) == 2
    assert run([*init[:2], "locked", *init[3:], "--ca-passphrase-file", str(file)]) == 0
    assert key_state(tmp_path / "locked") is KeyState.SEALED
    assert run([*init[:2], "asked", *init[3:], "--encrypt-ca"]) == 2
    assert not (tmp_path / "asked").exists()
    assert (place / "ca.crt").read_bytes() == certificate


@pytest.mark.usefixtures("cheap")
def test_a_service_takes_the_passphrase_from_its_credential(
    tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unattended, with a certificate that is to be made: nothing asks, nothing waits."""
    config = ServerConfig(name="hub", address=f"localhost:{free_port()}")
    folder = ServerFolder.create(tmp_path / "hub", config, datetime.now(UTC), WORDS)
    (folder.path / "endpoint.crt").unlink()
    monkeypatch.setattr(Supervisor, "run", lambda self: None)  # starts nobody
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda words: pytest.fail("asks"))
    start = ["server", "start", str(folder.path)]
    assert run(start) == 2
    assert "no passphrase was given" in capsys.readouterr().err.replace("\n", " ")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    file.rename(tmp_path / "ca-passphrase")
    assert run(start) == 0
    assert folder.can_serve(datetime.now(UTC))


def test_openssl_takes_no_passphrase_but_the_stretched_one(tmp_path: Path) -> None:
    """The words alone do not open the file: its own derivation costs nothing to guess at."""
    create_authority(tmp_path, "hub", NOW, WORDS)
    done = subprocess.run(
        ["openssl", "pkey", "-in", str(tmp_path / "ca.key"), "-passin", "env:WORDS", "-noout"],
        env={**os.environ, "WORDS": WORDS.decode()},
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
