"""The parts of Flower that we use behave as we assume, with a real SuperLink and SuperNode."""

import asyncio
import secrets
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode.nodestate import NodeStateFactory

from cloister.deployment.coordinator.loopback import listening_ports
from cloister.deployment.enrolment.node_key import public_pem
from cloister.deployment.flower import supernode
from cloister.deployment.flower.async_socket import AsyncSocketTransport
from cloister.deployment.flower.commands import superlink
from cloister.deployment.flower.control import Control
from cloister.deployment.flower.environment import quiet_environment
from cloister.deployment.flower.flower_tasks import CLIENT_TASK, SERVER_TASK, Executor, Runtime
from cloister.deployment.flower.sockets import (
    BASE_URL,
    Place,
    listening,
    make_private,
    read_secret,
)
from cloister.deployment.flower.superlink import settings
from cloister.errors import BadFileError, NetworkError
from tests.support.https import served
from tests.support.papers import keys


@dataclass
class Link:
    """A SuperLink that serves, as its service starts it."""

    process: "subprocess.Popen[bytes]"
    socket: Path
    secret: Path


def answers(path: Path) -> bool:
    place = Place(path)
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(place.name)
        except OSError:
            return False
    return True


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    """At a path longer than the kernel takes, as folders of institutions may be.

    The environment asks for Flower's gRPC servers, as a shell might.
    """
    folder = tmp_path_factory.mktemp("link") / ("a" * 60) / ("b" * 60)
    make_private(folder)
    place, secret = folder / "superlink.sock", folder / "secret"
    secret.write_bytes(secrets.token_hex(32).encode())
    command = superlink(socket=place, secret=secret, database=folder / "superlink.db")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CONTROL", "FLEET"):
            patch.setenv(f"FLWR_INTERNAL_GRPC_{name}_API", "1")
        environment = dict(quiet_environment(folder / "flwr"))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 600
            while not answers(place):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield Link(process, place, secret)
        finally:
            process.terminate()
            process.wait(600)


def test_nodes_and_runs_are_told_over_the_socket(link: Link) -> None:
    control = Control(link.socket)
    key = public_pem(keys("ward").node)
    control.register(key)
    (node,) = control.nodes()
    assert (node.key, node.online) == (key, False)
    run = control.start({"recipe": "r", "run": "triage"})
    assert control.unfinished() == {run}
    control.unregister(node.id)
    assert control.nodes() == []
    with closing(Executor(Runtime(link.socket, read_secret(link.secret)), SERVER_TASK)) as executor:
        task = executor.claim()
    assert task is not None
    found, config = task.run()
    assert (found.run_id, config["run"]) == (run, "triage")
    task.finish(succeeded=True)
    assert control.unfinished() == set()
    control.close()


def test_the_gate_s_way_is_as_long(link: Link) -> None:
    async def ask() -> int:
        transport = AsyncSocketTransport(link.socket, httpx.Limits())
        client = httpx.AsyncClient(transport=transport, base_url=BASE_URL, timeout=600)
        async with client:
            return (await client.get("/health")).status_code

    assert asyncio.run(ask()) == 200


def test_an_executor_without_the_secret_gets_no_task(link: Link) -> None:
    with (
        closing(Executor(Runtime(link.socket, b"another"), SERVER_TASK)) as executor,
        pytest.raises(NetworkError, match="does not take this executor's secret"),
    ):
        executor.claim()


def test_the_site_s_runtime_is_at_a_socket_too(tmp_path: Path) -> None:
    make_private(tmp_path / "runtime")
    place = tmp_path / "runtime" / "supernode.sock"
    states = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
    with (
        served(supernode.make_server(states, b"secret"), [listening(place)]),
        closing(Executor(Runtime(place, b"secret"), CLIENT_TASK)) as agent,
        closing(Executor(Runtime(place, b"another"), CLIENT_TASK)) as other,
    ):
        assert agent.claim() is None
        with pytest.raises(NetworkError, match="secret"):
            other.claim()


def test_nothing_of_flower_s_opens_a_port(link: Link) -> None:
    """Whatever the environment of the service says of its gRPC servers."""
    assert listening_ports(link.process.pid) == []
    assert stat.S_IMODE(link.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(link.socket.parent.stat().st_mode) == 0o700
    made = settings(link.secret, Path("unused.db"))
    assert made.enable_supernode_auth
    assert made.superexec_auth_secret == read_secret(link.secret)


def test_nobody_listens_where_others_may_enter(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    with pytest.raises(NetworkError, match=r"others may enter it \(mode 0755\)"):
        listening(folder / "s.sock")
    make_private(folder)
    listening(folder / "s.sock").close()
    listening(folder / "s.sock").close()  # what an ended process left is no hindrance


def test_a_file_system_without_modes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    monkeypatch.setattr(Path, "chmod", lambda *arguments, **keywords: None)
    with pytest.raises(BadFileError, match=r"others may enter it .* supports owners and modes"):
        make_private(tmp_path / "open")


def test_a_secret_that_is_empty_is_none(tmp_path: Path) -> None:
    """Flower asks executors for nothing where it was given no secret."""
    with pytest.raises(BadFileError, match="cannot be read"):
        read_secret(tmp_path / "secret")
    (tmp_path / "secret").write_bytes(b"")
    with pytest.raises(BadFileError, match="is empty"):
        read_secret(tmp_path / "secret")


def test_a_superlink_that_is_away_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / ("a" * 120), tmp_path / ("b" * 120)):
        control = Control(folder / "superlink.sock")
        with pytest.raises(NetworkError, match=r"does not answer .* cloister server start"):
            control.nodes()
        control.close()
        (tmp_path / ("b" * 120)).mkdir(exist_ok=True)
