"""The coordinator's folder: configuration, authority, members and runs.

server.toml        name, address, ports
ca.key, ca.crt     the certificate authority; back it up, as every site pins it; the key may be
                   encrypted
ca-next.*          the next authority, once it is announced (rotation.py)
ca-former.crt      the former authority; succession.json names its successor (with a number: an
                   earlier rotation)
coordinator.key    signs every question that a site is asked; each site trusts its public half
endpoint.*         key and certificate of the endpoint for sites; renewed automatically
executor.secret    the secret that an executor shows to the SuperLink
members.json       the sites: invited, approved, revoked
heads/             the last entries that came from each site's ledger
state/             Flower's files, the gate's, and the SuperLink's socket; disposable, for the
                   owner only
logs/              logs of every process
runs/              one folder for each run
service.json       the running service: its pid, its children
"""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import tomli_w

from cloister.deployment.enrolment.address import is_host, split_address
from cloister.deployment.enrolment.authority import (
    ENDPOINT_LIFE,
    Authority,
    create_authority,
    is_due,
    issue_endpoint,
    load_authority,
    load_certificate,
    serves,
)
from cloister.deployment.enrolment.coordinator_key import create_coordinator_key, public_key_of
from cloister.deployment.enrolment.passphrase import Unlock, unlock
from cloister.errors import BadFileError, RecipeError, UsageError
from cloister.fields import as_table, read_section
from cloister.files import write_whole
from cloister.names import is_name
from cloister.owner_only import private_folder, tighten
from cloister.toml_text import read_toml


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """The settings in `server.toml`.

    Attributes:
        name: The coordinator's name, as sites see it.
        address: `host:port` at which sites reach it.
        listen: `host:port` to listen at; absent: all addresses, at the port of `address`.
        also: Further names or addresses of the endpoint, for its certificate.
    """

    name: str
    address: str
    listen: str = ""
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise UsageError(f"name: {self.name!r} given; a plain name is needed, without / or \\")
        for field in ("address", "listen"):
            if getattr(self, field) or field == "address":
                split_address(getattr(self, field), field)
        invalid = [host for host in self.also if not is_host(host)]
        if invalid:
            raise UsageError(f"also: {invalid[0]!r} given; a DNS name or an IP address is needed")

    @property
    def hosts(self) -> tuple[str, ...]:
        """Returns the host names that the endpoint's certificate is for."""
        return (split_address(self.address, "address")[0], *self.also)

    @property
    def place(self) -> tuple[str, int]:
        """Returns the host and port to listen at."""
        if self.listen:
            return split_address(self.listen, "listen")
        host, port = split_address(self.address, "address")
        return "::" if ":" in host else "0.0.0.0", port


@dataclass(frozen=True)
class ServerFolder:
    """A coordinator's folder.

    Attributes:
        path: Absolute.
        config: `server.toml`.
        passphrase: Returns the passphrase of the authority's key; called only if the key is
            encrypted and needed for a signature.
    """

    path: Path
    config: ServerConfig
    passphrase: Unlock = dataclasses.field(default=unlock, compare=False, repr=False)

    @classmethod
    def create(
        cls, path: Path, config: ServerConfig, now: datetime, passphrase: bytes | None = None
    ) -> ServerFolder:
        """Makes a coordinator: its authority, its endpoint's certificate, its secret.

        Args:
            path: The new folder.
            config: The settings for `server.toml`.
            now: The present time, with its zone.
            passphrase: Encrypts the authority's key; None: the key is not encrypted.

        Raises:
            UsageError: The folder has a coordinator already.
            BadFileError: It cannot be written.
        """
        path = path.absolute()
        if (path / "server.toml").exists():
            raise UsageError(
                f"{path}: already has a coordinator; its authority is kept, because every site "
                "pins it: edit server.toml, or choose another folder"
            )
        folder = cls(path, config, unlock if passphrase is None else lambda: passphrase)
        try:
            for part in (path, folder.state, folder.logs, folder.runs):
                private_folder(part)
            write_whole(folder.secret, secrets.token_hex(32).encode(), mode=0o600)
            if not (path / "ca.key").exists():
                create_authority(path, config.name, now, passphrase)
            folder.complete()
            folder.renew(now)
            write_whole(path / "server.toml", tomli_w.dumps(as_table(config)).encode())
        except OSError as error:
            raise BadFileError(f"{path}: cannot be written ({error}); choose another") from error
        return folder

    @classmethod
    def open(cls, path: Path, passphrase: Unlock = unlock) -> ServerFolder:
        """Opens a coordinator's folder.

        Args:
            path: The folder.
            passphrase: Returns the passphrase of the authority's key, if it is encrypted and
                needed.

        Raises:
            BadFileError: There is no coordinator, or its `server.toml` is damaged.
        """
        path = path.absolute()
        if not (path / "server.toml").is_file():
            raise BadFileError(
                f"{path}: not a coordinator's folder; make one with cloister server init, or name "
                "another folder with --server"
            )
        table = read_toml(path / "server.toml", "restore it from the coordinator's backup")
        table.pop("superlink_port", None)  # from versions whose SuperLink listened at a port
        problems: list[str] = []
        missing = [key for key in ("name", "address") if key not in table]
        problems += [f"server.toml: {key}: missing" for key in missing]
        config = None if missing else read_section(ServerConfig, table, "server.toml", problems)
        if config is None:
            raise RecipeError([f"{path}: {problem}" for problem in problems])
        folder = cls(path, config, passphrase)
        for part in (path, folder.state, folder.logs, folder.runs):
            tighten(part)
        return folder

    def complete(self) -> str | None:
        """Adds the key that signs questions to a folder of an earlier version.

        Returns:
            Its public key if it was made now; None if it existed.

        Raises:
            BadFileError: It cannot be written.
        """
        return None if self.key.exists() else public_key_of(create_coordinator_key(self.key))

    @property
    def key(self) -> Path:
        """Returns the key that signs the coordinator's questions."""
        return self.path / "coordinator.key"

    @property
    def heads(self) -> Path:
        """Returns the record of the ledger heads that each site has shown, across runs."""
        return self.path / "heads"

    @property
    def authority(self) -> Authority:
        """Returns the coordinator's authority, with its key.

        Raises:
            BadFileError: It is missing or damaged, or the passphrase is wrong.
            UsageError: Its key is encrypted, and there is no passphrase.
        """
        return load_authority(self.path, self.passphrase)

    @property
    def certificate(self) -> Path:
        """The file of the certificate authority's certificate."""
        return self.path / "ca.crt"

    @property
    def secret(self) -> Path:
        """The file with the secret that the executor shows to the SuperLink."""
        return self.path / "executor.secret"

    @property
    def members(self) -> Path:
        """The file that lists the members."""
        return self.path / "members.json"

    @property
    def service(self) -> Path:
        """The file with the id of the service's process."""
        return self.path / "service.json"

    @property
    def state(self) -> Path:
        """Returns the folder of Flower's own files."""
        return self.path / "state"

    @property
    def largest(self) -> Path:
        """The file with the size limit of each run's replies."""
        return self.state / "largest.json"

    @property
    def pushed(self) -> Path:
        """Returns the file that says which nodes got new questions."""
        return self.state / "pushed.json"

    @property
    def logs(self) -> Path:
        """Returns the folder of all processes' logs."""
        return self.path / "logs"

    @property
    def runs(self) -> Path:
        """The folder that holds one folder for each run."""
        return self.path / "runs"

    @property
    def superlink(self) -> Path:
        """The SuperLink's socket, which only this folder's owner can reach."""
        return self.state / "superlink.sock"

    def run(self, name: str) -> Path:
        """Returns the folder of a run.

        Raises:
            UsageError: The name is not a run's.
        """
        if not is_name(name):
            raise UsageError(f"{name!r}: not the name of a run; cloister run list shows the names")
        return self.runs / name

    def named_run(self, run: str) -> Path:
        """Returns the folder of a run that is named here, or else given as a folder."""
        here = self.runs / run if is_name(run) else None
        return here if here is not None and here.is_dir() else Path(run)

    def renew(self, now: datetime) -> tuple[str, ...]:
        """Renews certificates that are due; opens the authority's key only for that.

        Returns:
            The renewed ones: `endpoint`, or nothing.

        Raises:
            BadFileError: The authority cannot be read, or the folder cannot be written.
            UsageError: The authority's key is encrypted, and there is no passphrase.
        """
        issuer = load_certificate(self.path)
        place, hosts = self.path / "endpoint", self.config.hosts
        if not is_due(_read_pair(place), issuer, hosts, now):
            return ()
        authority = self.authority
        try:
            _write_pair(place, issue_endpoint(authority, hosts, now, ENDPOINT_LIFE))
        except OSError as error:
            raise BadFileError(
                f"{place}.crt: cannot be renewed ({error}); correct this and try again"
            ) from error
        return ("endpoint",)

    def can_serve(self, now: datetime) -> bool:
        """Whether the endpoint's certificate is valid now, even if renewal is due.

        Raises:
            BadFileError: The authority's certificate cannot be read.
        """
        issuer = load_certificate(self.path)
        return serves(_read_pair(self.path / "endpoint"), issuer, self.config.hosts, now)


def _read_pair(path: Path) -> tuple[bytes, bytes]:
    """Reads key and certificate; a missing one is empty.

    Raises:
        BadFileError: One of them cannot be read.
    """
    places = (path.with_suffix(".key"), path.with_suffix(".crt"))
    try:
        key, certificate = (place.read_bytes() if place.exists() else b"" for place in places)
    except OSError as error:
        raise BadFileError(f"{path}.crt: cannot be read ({error})") from error
    return key, certificate


def _write_pair(path: Path, pair: tuple[bytes, bytes]) -> None:
    key, certificate = pair
    write_whole(path.with_suffix(".key"), key, mode=0o600)
    write_whole(path.with_suffix(".crt"), certificate)
