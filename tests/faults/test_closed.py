"""On a shared machine, no proxy sees a federation's bytes and no other user gets in."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cloister.deployment.coordinator.doctor import CheckOutcome, examine
from cloister.deployment.coordinator.journal import RunStatus
from cloister.deployment.coordinator.loopback import listening_ports
from cloister.deployment.flower.control import Control
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.connectivity import reach
from cloister.deployment.site.joining import SiteMembership
from tests.support.federation import check_history, federation
from tests.support.proxies import recording_proxy

CHILDREN = {"server": ("superlink", "gate", "executor"), "east": ("supernode", "agent")}


@pytest.mark.nightly
def test_no_proxy_of_the_environment_sees_a_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In all six variables, for every process of both sides and for the operator's commands."""
    with recording_proxy(monkeypatch) as recorder, federation(tmp_path) as made:
        for who in ("server", "east", "west"):
            made.start(who)
        made.submit("triage", 1)
        assert made.wait_ended("triage") is RunStatus.FINISHED
        for site in made.sites.values():
            steps = list(reach(SiteMembership.of(site)))
            assert [step.name for step in steps] == [
                "name",
                "port",
                "TLS",
                "clock",
                "version",
                "membership",
            ]
            assert all(step.fine for step in steps)
        made.end_all()
        assert recorder.seen == []
        with httpx.Client(timeout=600) as client, pytest.raises(httpx.HTTPError):
            client.get("http://localhost:1/")
        assert len(recorder.seen) == 1  # it does record
        check_history(made, "triage")


ATTACK = """
import json, os, sys
from pathlib import Path
from cloister.errors import NetworkError
from cloister.deployment.flower.control import Control
from cloister.deployment.flower.flower_tasks import CLIENT_TASK, SERVER_TASK, Executor, Runtime
link, node, *ids = sys.argv[2:]
if sys.argv[1] != "root":
    os.setgroups([])
    os.setgid(int(ids[0]))
    os.setuid(int(sys.argv[1]))

def tried(call):
    try:
        return repr(call())
    except NetworkError as error:
        return "refused" if "Permission denied" in str(error) else f"reached: {error}"

control = Control(Path(link))
told = {
    "list nodes": tried(control.nodes),
    "list runs": tried(control.unfinished),
    "stop a run": tried(lambda: control.stop(1)),
    "push": tried(lambda: control.start({"recipe": "", "run": "stranger"})),
    "evict": tried(lambda: control.unregister(1)),
}
for name, path, kind in (("coordinator", link, SERVER_TASK), ("site", node, CLIENT_TASK)):
    try:
        import socket
        folder, file = os.path.split(path)
        os.chdir(folder)
        socket.socket(socket.AF_UNIX).connect(file)
        told[name] = "reached"
    except PermissionError:
        told[name] = "refused"
print(json.dumps(told))
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Where every user of this machine gets to: pytest's own folder is root's alone."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place)


@pytest.mark.nightly
@pytest.mark.skipif(os.getuid() != 0, reason="only root acts as another user")
def test_another_user_neither_lists_nor_pushes_nor_evicts(open_folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    with federation(open_folder) as made:
        for who in ("server", "east", "west"):
            made.start(who)
        made.submit("triage", 3)
        made.wait_closed("triage", 1)
        places = [str(made.server.superlink), str(AgentFolder.of(made.sites["east"]).socket)]

        def attack(user: str) -> dict[str, str]:
            done = subprocess.run(
                [sys.executable, "-c", ATTACK, user, *places, str(nobody.pw_gid)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return dict(json.loads(done.stdout))

        made.server.path.chmod(0o755)  # only `state` is left to hold them
        assert set(attack(str(nobody.pw_uid)).values()) == {"refused"}
        control = Control(made.server.superlink)
        assert sum(node.online for node in control.nodes()) == 2
        control.close()
        for who, names in CHILDREN.items():
            for name in names:
                pid = made.child(who, name)
                assert pid
                ports = set(listening_ports(pid))
                assert ports == ({made.server.config.place[1]} if name == "gate" else set()), name
        assert {finding.verdict for finding in examine(made.server)} == {CheckOutcome.PASS}
        assert made.wait_ended("triage") is RunStatus.FINISHED
        made.server.superlink.chmod(0o666)
        for folder in (made.server.path, made.server.state):
            folder.chmod(0o755)  # as a machine without modes: now they are let in
        told = attack(str(nobody.pw_uid))
        assert told["coordinator"] == "reached"
        assert told["site"] == "refused"
        assert "Node(" in told["list nodes"]
        assert not all(row.verdict is CheckOutcome.PASS for row in examine(made.server))
        made.end_all()
        check_history(made, "triage")
