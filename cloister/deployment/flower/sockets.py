"""Flower's interfaces on unix sockets: the kernel decides who connects.

A port on loopback is open to every user of a machine: another user could push rounds, evict a site,
hold all connections, or listen in Flower's place while it is down. A socket in a folder of mode
0700 is reachable by its owner only, and no proxy can be in between.
"""

from __future__ import annotations

import os
import socket
import ssl
import stat
import weakref
from collections.abc import Sequence
from pathlib import Path

import httpx
from flwr.supercore.protobuf.client import ProtobufClient, ProtobufClientInterceptor
from flwr.supercore.retry import RetryInvoker

from cloister.errors import BadFileError, NetworkError

# Bytes of a socket's path: sun_path holds 108 on Linux and 104 on macOS, with a zero at the end.
LONGEST_PATH = 100
# Seconds for a call, as in Flower's own clients.
PATIENCE = 30.0
# A URL needs a host; the connection always goes to the socket.
BASE_URL = "http://localhost"


def make_private(folder: Path, user: int | None = None) -> None:
    """Makes a folder that only its owner enters, for sockets.

    Args:
        folder: The folder, which may exist already.
        user: Numeric user to give it to; None: this process's.

    Raises:
        BadFileError: It cannot be made, or its file system ignores owners and modes.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        if user is not None:
            os.chown(folder, user, -1)
    except OSError as error:
        raise BadFileError(f"{folder}: cannot be made private ({error.strerror})") from error
    if (why := why_open(folder, os.getuid() if user is None else user)) is not None:
        raise BadFileError(
            f"{folder}: {why}; move it to a local file system that supports owners and modes"
        )


def why_open(folder: Path, user: int) -> str | None:
    """Why other users can enter a folder; None if they cannot.

    Raises:
        OSError: The folder cannot be read.
    """
    found = folder.stat()
    if found.st_uid != user:
        return f"belongs to user {found.st_uid}, not to {user}"
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return f"others may enter it (mode {stat.S_IMODE(found.st_mode):04o})"
    return None


def listening(path: Path) -> socket.socket:
    """Listens at a path in a private folder, and replaces an earlier socket there.

    Raises:
        NetworkError: Others may enter the folder, or nothing can listen there.
    """
    try:
        folder = path.parent.stat()
        if (why := why_open(path.parent, folder.st_uid)) is not None:
            raise NetworkError(f"{path.parent}: {why}, so no service listens there")
        path.unlink(missing_ok=True)
        place = Place(path)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            server.bind(place.name)
        finally:
            os.umask(before)
        if folder.st_uid != os.getuid():  # a service's filter may take the call away
            os.chown(path, folder.st_uid, -1, follow_symlinks=False)
    except OSError as error:
        raise NetworkError(f"{path}: cannot listen there ({error.strerror or error})") from error
    return server


class Place:
    """A name of a socket that is short enough for the kernel, for a path of any depth.

    Args:
        path: Absolute.

    Attributes:
        name: The short name, valid as long as this object exists.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        if len(os.fsencode(self.name)) > LONGEST_PATH and hasattr(os, "O_PATH"):
            try:
                folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                return  # nobody listens there; connecting gives that error
            weakref.finalize(self, os.close, folder)
            self.name = f"/proc/self/fd/{folder}/{path.name}"


def read_secret(path: Path) -> bytes:
    """Reads the secret of executors; an empty one is refused, because Flower would then require
    none.

    Raises:
        BadFileError: It cannot be read, or is empty.
    """
    try:
        secret = path.read_bytes()
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read ({error.strerror}); start again") from error
    if not secret:
        raise BadFileError(f"{path}: is empty; remove it and start the service again")
    return secret


class SocketTransport(httpx.HTTPTransport):
    """Plain HTTP over a unix socket.

    Args:
        path: The socket's.
    """

    def __init__(self, path: Path) -> None:
        self._place = Place(path)
        super().__init__(uds=self._place.name, verify=_nobody())


class SocketClient(ProtobufClient):
    """A Flower client over a unix socket; a mixin to put before one of Flower's client classes.

    Args:
        path: The socket's.
        interceptors: Flower's, in their order.
        retry_invoker: Retries calls; None: each call is made once.

    Guarantees:
        No proxy of the environment sees a call, and no redirect is followed.
    """

    def __init__(
        self,
        path: Path,
        interceptors: Sequence[ProtobufClientInterceptor],
        retry_invoker: RetryInvoker | None = None,
    ) -> None:
        # Flower's own constructor makes a client that uses the environment's proxies.
        self._base_url = BASE_URL
        self._interceptors = tuple(interceptors)
        self._retry_invoker = retry_invoker
        self._client = httpx.Client(
            transport=SocketTransport(path), timeout=PATIENCE, trust_env=False
        )


def _nobody() -> ssl.SSLContext:
    """Returns an empty TLS context, so that httpx loads no authorities: sockets use no TLS."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
