"""The coordinator's folder is made once, with certificates in pairs and a checked file."""

import ssl
import stat
from pathlib import Path

import pytest

from cloister.deployment.coordinator.folder import ServerConfig, ServerFolder
from cloister.deployment.enrolment.authority import ENDPOINT_LIFE, days_left
from cloister.deployment.enrolment.coordinator_key import load_coordinator_key, public_key_of
from cloister.errors import BadFileError, CloisterError, RecipeError, UsageError
from tests.support.papers import DAY, NOW

CONFIG = ServerConfig(name="hub", address="fed.example.org:9443", also=("10.0.0.7",))


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    return ServerFolder.create(tmp_path / "hub", CONFIG, NOW)


def modes(folder: ServerFolder) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.path.iterdir()}


def pair(folder: ServerFolder, name: str) -> tuple[bytes, bytes]:
    key, certificate = (folder.path / f"{name}.{end}" for end in ("key", "crt"))
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)  # they fit
    return key.read_bytes(), certificate.read_bytes()


def test_a_folder_is_opened_as_it_was_made(folder: ServerFolder) -> None:
    assert ServerFolder.open(folder.path) == folder
    assert folder.config.hosts == ("fed.example.org", "10.0.0.7")


def test_secrets_are_for_their_owner_alone(folder: ServerFolder) -> None:
    found = modes(folder)
    for name in ("ca.key", "coordinator.key", "endpoint.key", "executor.secret"):
        assert found[name] == 0o600, name
    for name in ("state", "logs", "runs"):
        assert found[name] == 0o700, name
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert not [name for name in found if name.startswith(".")]


def test_a_folder_from_before_there_was_a_key_gets_one_once(folder: ServerFolder) -> None:
    before = public_key_of(load_coordinator_key(folder.key))
    assert folder.complete() is None
    assert public_key_of(load_coordinator_key(folder.key)) == before
    folder.key.unlink()
    with pytest.raises(BadFileError, match="let cloister server start make one"):
        load_coordinator_key(folder.key)
    made = folder.complete()
    assert made == public_key_of(load_coordinator_key(folder.key)) != before
    assert modes(folder)["coordinator.key"] == 0o600
    assert folder.complete() is None


@pytest.mark.parametrize("name", ["ca.key", "server.toml"])
def test_another_key_than_the_coordinator_s_is_none(folder: ServerFolder, name: str) -> None:
    folder.key.write_bytes((folder.path / name).read_bytes())
    with pytest.raises(BadFileError, match="coordinator's backup"):
        load_coordinator_key(folder.key)


def test_a_coordinator_is_never_made_over_another(folder: ServerFolder) -> None:
    before = folder.certificate.read_bytes()
    with pytest.raises(UsageError, match="authority is kept"):
        ServerFolder.create(folder.path, CONFIG, NOW)
    (folder.path / "server.toml").unlink()  # an init that was cut off goes on
    again = ServerFolder.create(folder.path, CONFIG, NOW + DAY)
    assert again.certificate.read_bytes() == before


def test_an_authority_that_lost_its_key_is_not_replaced(folder: ServerFolder) -> None:
    (folder.path / "server.toml").unlink()
    (folder.path / "ca.key").unlink()
    with pytest.raises(BadFileError, match=r"restore ca\.key"):
        ServerFolder.create(folder.path, CONFIG, NOW)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadFileError, match="choose another"):
        ServerFolder.create(tmp_path / "file" / "hub", CONFIG, NOW)


def test_nothing_is_renewed_before_its_time(folder: ServerFolder) -> None:
    before = pair(folder, "endpoint")
    assert folder.renew(NOW + DAY) == ()
    assert pair(folder, "endpoint") == before


def test_the_endpoint_is_renewed_from_half_its_life_on(folder: ServerFolder) -> None:
    before, later = pair(folder, "endpoint"), NOW + ENDPOINT_LIFE / 2 + DAY
    assert folder.renew(later) == ("endpoint",)
    assert pair(folder, "endpoint") != before
    assert days_left(pair(folder, "endpoint")[1], later) == 90
    assert folder.renew(later) == ()


@pytest.mark.parametrize("end", ["key", "crt"])
@pytest.mark.parametrize("content", [None, b"", b"garbage"])
def test_half_a_pair_is_made_anew(folder: ServerFolder, end: str, content: bytes | None) -> None:
    """As after a crash between writing the one and the other."""
    place = folder.path / f"endpoint.{end}"
    if content is None:
        place.unlink()
    else:
        place.write_bytes(content)
    assert folder.renew(NOW) == ("endpoint",)
    pair(folder, "endpoint")


def test_a_key_without_its_certificate_is_found(folder: ServerFolder) -> None:
    old = folder.path / "endpoint.key"
    kept = old.read_bytes()
    folder.renew(NOW + ENDPOINT_LIFE)
    old.write_bytes(kept)
    assert folder.renew(NOW + ENDPOINT_LIFE) == ("endpoint",)
    pair(folder, "endpoint")


def test_another_address_gets_another_certificate(folder: ServerFolder) -> None:
    moved = ServerFolder(folder.path, ServerConfig(name="hub", address="[fd00::7]:9443"))
    assert moved.renew(NOW) == ("endpoint",)
    assert moved.config.place == ("::", 9443)


def test_a_lost_authority_ends_renewal_with_its_remedy(folder: ServerFolder) -> None:
    (folder.path / "ca.key").unlink()
    assert folder.renew(NOW) == ()  # nothing is to be signed
    with pytest.raises(BadFileError, match="backup"):
        folder.renew(NOW + ENDPOINT_LIFE / 2 + DAY)
    (folder.path / "ca.crt").unlink()
    with pytest.raises(BadFileError, match="backup"):
        folder.renew(NOW)


BAD: dict[str, tuple[dict[str, object], str]] = {
    "no port": ({"address": "fed.example.org"}, "address: .* host:port is needed"),
    "no host": ({"address": "höst:1"}, "host:port is needed"),
    "no name": ({"name": "../hub"}, "a plain name is needed"),
    "no place": ({"listen": "9443"}, "listen: "),
    "a wildcard": ({"also": ("*.example.org",)}, "also: "),
}


@pytest.mark.parametrize(("change", "said"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_meant_is_named(change: dict[str, object], said: str) -> None:
    fields: dict[str, object] = {"name": "hub", "address": "fed.example.org:9443", **change}
    with pytest.raises(UsageError, match=said):
        ServerConfig(**fields)  # type: ignore[arg-type]


FILES: dict[str, tuple[str, type[CloisterError], str]] = {
    "no TOML": ("name =", BadFileError, "not valid TOML"),
    "no text": ("\x00", BadFileError, "not valid TOML"),
    "empty": ("", RecipeError, "address: missing"),
    "an unknown key": ('name = "h"\naddress = "f:1"\nadress = "f"', RecipeError, "did you mean"),
    "another type": ('name = "h"\naddress = 5', RecipeError, "a string needed"),
}


@pytest.mark.parametrize(("text", "kind", "said"), FILES.values(), ids=FILES.keys())
def test_a_damaged_file_is_named(
    tmp_path: Path, text: str, kind: type[CloisterError], said: str
) -> None:
    (tmp_path / "server.toml").write_text(text)
    with pytest.raises(kind, match=said):
        ServerFolder.open(tmp_path)


def test_a_folder_of_an_earlier_version_is_opened(folder: ServerFolder) -> None:
    """Its SuperLink listened at a port."""
    path = folder.path / "server.toml"
    path.write_text(path.read_text() + "superlink_port = 18080\n")
    assert ServerFolder.open(folder.path).config == folder.config
    assert folder.superlink == folder.state / "superlink.sock"


def test_a_folder_without_a_coordinator_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="cloister server init"):
        ServerFolder.open(tmp_path)


@pytest.mark.parametrize("name", ["..", "../other", "a/b", ".hidden", "", "a\nb"])
def test_no_run_lies_outside_the_runs(folder: ServerFolder, name: str) -> None:
    with pytest.raises(UsageError, match="not the name of a run"):
        folder.run(name)
    assert folder.run("triage-1").parent == folder.runs
