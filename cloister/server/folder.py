"""The coordinator's folder: who it is, its authority, its members and its runs.

server.toml        name, address, ports
ca.key, ca.crt     the authority; back them up, every site pins them
endpoint.*         key and certificate of the sites' endpoint, renewed by themselves
loopback.*         of the SuperLink, which only this machine reaches
executor.secret    what an executor shows to the SuperLink
members.json       the sites: invited, approved, revoked
state/             Flower's; disposable
logs/              of every process
runs/              one folder a run
service.json       the running service: its pid, its children
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import tomli_w

from cloister.errors import BadFileError, RecipeError, UsageError
from cloister.fields import as_table, read_section
from cloister.files import write_whole
from cloister.names import is_name
from cloister.owner_only import private_folder, tighten
from cloister.provisioning.address import is_host, split_address
from cloister.provisioning.authority import (
    AUTHORITY_LIFE,
    ENDPOINT_LIFE,
    Authority,
    create_authority,
    is_due,
    issue_endpoint,
    load_authority,
)
from cloister.toml_text import read_toml

# The SuperLink's own certificate is for this machine alone.
LOOPBACK = ("localhost", "127.0.0.1")


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """`server.toml`.

    Attributes:
        name: The coordinator's, as sites see it.
        address: `host:port` under which sites reach it.
        listen: `host:port` to listen at; absent: all addresses, at the port of `address`.
        superlink_port: Port of Flower's SuperLink on loopback.
        also: More names or addresses of the same endpoint, for its certificate.
    """

    name: str
    address: str
    listen: str = ""
    superlink_port: int = 18080
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise UsageError(f"name: {self.name!r} given; a plain name is needed, without / or \\")
        for field in ("address", "listen"):
            if getattr(self, field) or field == "address":
                split_address(getattr(self, field), field)
        if not 0 < self.superlink_port < 65536:
            raise UsageError(f"superlink_port: {self.superlink_port} given; a port is needed")
        if self.superlink_port == self.place[1]:
            raise UsageError(
                f"superlink_port: {self.superlink_port} given, at which the sites' endpoint "
                "listens; another port is needed"
            )
        odd = [host for host in self.also if not is_host(host)]
        if odd:
            raise UsageError(f"also: {odd[0]!r} given; a DNS name or an IP address is needed")

    @property
    def hosts(self) -> tuple[str, ...]:
        """What the endpoint's certificate is for."""
        return (split_address(self.address, "address")[0], *self.also)

    @property
    def place(self) -> tuple[str, int]:
        """Host and port to listen at."""
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
    """

    path: Path
    config: ServerConfig

    @classmethod
    def create(cls, path: Path, config: ServerConfig, now: datetime) -> ServerFolder:
        """Makes a coordinator: its authority, its endpoint's certificate, its secret.

        Raises:
            UsageError: There is one already.
            BadFileError: It cannot be written.
        """
        path = path.absolute()
        if (path / "server.toml").exists():
            raise UsageError(
                f"{path}: a coordinator is here already; its authority is kept, as every site pins "
                "it: edit server.toml, or choose another folder"
            )
        folder = cls(path, config)
        try:
            for part in (path, folder.state, folder.logs, folder.runs):
                private_folder(part)
            write_whole(folder.secret, secrets.token_hex(32).encode(), mode=0o600)
            if not (path / "ca.key").exists():
                create_authority(path, config.name, now)
            folder.renew(now)
            write_whole(path / "server.toml", tomli_w.dumps(as_table(config)).encode())
        except OSError as error:
            raise BadFileError(f"{path}: cannot be written ({error}); choose another") from error
        return folder

    @classmethod
    def open(cls, path: Path) -> ServerFolder:
        """Opens a coordinator's folder.

        Raises:
            BadFileError: There is none, or its `server.toml` is damaged.
        """
        path = path.absolute()
        if not (path / "server.toml").is_file():
            raise BadFileError(
                f"{path}: no coordinator is here; cloister server init makes one, --server names "
                "another folder"
            )
        table = read_toml(path / "server.toml", "restore it from the coordinator's backup")
        problems: list[str] = []
        missing = [key for key in ("name", "address") if key not in table]
        problems += [f"server.toml: {key}: missing" for key in missing]
        config = None if missing else read_section(ServerConfig, table, "server.toml", problems)
        if config is None:
            raise RecipeError([f"{path}: {problem}" for problem in problems])
        folder = cls(path, config)
        for part in (path, folder.state, folder.logs, folder.runs):
            tighten(part)
        return folder

    @property
    def authority(self) -> Authority:
        """The coordinator's.

        Raises:
            BadFileError: It is missing or damaged.
        """
        return load_authority(self.path)

    @property
    def certificate(self) -> Path:
        """The authority's certificate."""
        return self.path / "ca.crt"

    @property
    def secret(self) -> Path:
        """What executors show."""
        return self.path / "executor.secret"

    @property
    def members(self) -> Path:
        """Who may connect."""
        return self.path / "members.json"

    @property
    def service(self) -> Path:
        """The running service."""
        return self.path / "service.json"

    @property
    def state(self) -> Path:
        """Flower's files."""
        return self.path / "state"

    @property
    def logs(self) -> Path:
        """Of every process."""
        return self.path / "logs"

    @property
    def runs(self) -> Path:
        """One folder a run."""
        return self.path / "runs"

    @property
    def superlink(self) -> str:
        """The SuperLink's address on this machine."""
        return f"127.0.0.1:{self.config.superlink_port}"

    def run(self, name: str) -> Path:
        """A run's folder.

        Raises:
            UsageError: That is no name of a run.
        """
        if not is_name(name):
            raise UsageError(f"{name!r}: no run's name; cloister run list shows them")
        return self.runs / name

    def renew(self, now: datetime) -> tuple[str, ...]:
        """Issues certificates anew that are due.

        Returns:
            Which: `endpoint`, `loopback`.

        Raises:
            BadFileError: The authority cannot be read, or the folder not be written.
        """
        authority = self.authority
        issued = []
        # The SuperLink does not take another certificate while it runs, and no site sees its own.
        for name, hosts, life in (
            ("endpoint", self.config.hosts, ENDPOINT_LIFE),
            ("loopback", LOOPBACK, AUTHORITY_LIFE),
        ):
            place = self.path / name
            try:
                if is_due(_read_pair(place), authority, hosts, now):
                    _write_pair(place, issue_endpoint(authority, hosts, now, life))
                    issued.append(name)
            except OSError as error:
                raise BadFileError(f"{place}.crt: cannot be renewed ({error})") from error
        return tuple(issued)


def _read_pair(path: Path) -> tuple[bytes, bytes]:
    """Key and certificate; what is not there is empty."""
    places = (path.with_suffix(".key"), path.with_suffix(".crt"))
    key, certificate = (place.read_bytes() if place.exists() else b"" for place in places)
    return key, certificate


def _write_pair(path: Path, pair: tuple[bytes, bytes]) -> None:
    key, certificate = pair
    write_whole(path.with_suffix(".key"), key, mode=0o600)
    write_whole(path.with_suffix(".crt"), certificate)
