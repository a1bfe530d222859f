"""`cloister server doctor` finds what would let another user in, at a real socket."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.deployment.coordinator import doctor
from cloister.deployment.coordinator.doctor import CheckOutcome, CheckResult, examine
from cloister.deployment.coordinator.folder import ServerConfig, ServerFolder
from cloister.deployment.coordinator.loopback import by_hand, protection
from tests.support.https import FakeSuperLink, at_socket
from tests.support.ports import free_port

LISTENER = """
import socket, sys, time
server = socket.socket()
server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen()
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def folder() -> Iterator[ServerFolder]:
    """Where every user of this machine gets to: pytest's own folder is root's alone."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    config = ServerConfig(name="desk", address=f"localhost:{free_port()}")
    try:
        made = ServerFolder.create(place / "desk", config, datetime.now(UTC))
        made.path.chmod(0o755)  # only `state` is left to hold them
        yield made
    finally:
        shutil.rmtree(place)


@contextmanager
def service(folder: ServerFolder, port: int, name: str) -> Iterator[None]:
    """A running service, as far as its file tells, one of whose children listens at a port."""
    command = [sys.executable, "-S", "-c", LISTENER, str(port), "cloister"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert child.stdout
        child.stdout.readline()
        children = {name: {"pid": child.pid}, "executor": {"pid": None}}
        document = {"pid": child.pid, "children": children}
        folder.service.write_text(json.dumps(document))
        yield
    finally:
        child.kill()
        child.communicate()


def found(folder: ServerFolder) -> dict[str, CheckResult]:
    return {finding.name: finding for finding in examine(folder)}


root = pytest.mark.skipif(os.getuid() != 0, reason="only root acts as another user")


@root
def test_another_user_is_refused_and_is_let_in_where_modes_say_so(folder: ServerFolder) -> None:
    with at_socket(FakeSuperLink(), folder.superlink):
        assert found(folder)["another user"].verdict is CheckOutcome.PASS
        folder.superlink.chmod(0o666)
        assert found(folder)["another user"].verdict is CheckOutcome.PASS  # the folder holds it
        folder.state.chmod(0o755)
        told = found(folder)["another user"]
        assert told.verdict is CheckOutcome.FAIL
        assert "nobody connected to" in told.detail
        folder.superlink.chmod(0o600)
        assert found(folder)["another user"].verdict is CheckOutcome.PASS  # and so does the socket


def test_owners_and_modes_are_looked_at(folder: ServerFolder) -> None:
    assert found(folder)["owners and modes"].verdict is CheckOutcome.PASS
    for place, mode in ((folder.state, 0o750), (folder.secret, 0o640), (folder.state, 0o701)):
        before = place.stat().st_mode
        place.chmod(mode)
        told = found(folder)["owners and modes"]
        assert (told.verdict, str(place) in told.detail) == (CheckOutcome.FAIL, True)
        place.chmod(before)
    assert found(folder)["owners and modes"].verdict is CheckOutcome.PASS


@pytest.mark.skipif(sys.platform != "linux", reason="ports of a process, as Linux lists them")
def test_a_port_that_is_nobody_s_business_is_found(folder: ServerFolder) -> None:
    port = folder.config.place[1]
    with service(folder, port, "gate"):
        assert found(folder)["ports of gate"].verdict is CheckOutcome.PASS
    with service(folder, port, "superlink"):
        told = found(folder)["ports of superlink"]
        assert (told.verdict, str(port) in told.detail) == (CheckOutcome.FAIL, True)
    other = free_port()
    with service(folder, other, "gate"):
        assert found(folder)["ports of gate"].verdict is CheckOutcome.FAIL


def test_what_cannot_be_tried_is_said_and_how_to_try_it(
    folder: ServerFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found(folder)["another user"].verdict is CheckOutcome.UNKNOWN  # nobody listens
    monkeypatch.setattr(doctor, "is_root", lambda: False)
    with at_socket(FakeSuperLink(), folder.superlink):
        told = found(folder)["another user"]
        assert told.verdict is CheckOutcome.UNKNOWN
        assert by_hand(folder.superlink) in told.remedy
        assert run(["server", "doctor", str(folder.path)]) == 0
        assert "sudo -u nobody test -w" in capsys.readouterr().out
        assert run(["server", "doctor", str(folder.path), "--json"]) == 0
        told_rows = json.loads(capsys.readouterr().out)["checks"]
        assert {row["check"] for row in told_rows} >= {"another user", "owners and modes", "ports"}
    folder.secret.chmod(0o644)  # `state` is closed as the folder is opened
    assert run(["server", "doctor", str(folder.path)]) == 9
    assert "correct these" in capsys.readouterr().err


def test_the_protection_is_said_at_the_start(folder: ServerFolder) -> None:
    said = protection(folder)
    assert "listens on no port" in said
    assert str(folder.superlink) in said
