"""The coordinator's service: keeps SuperLink, gate and executor running, and registers members.

sites --TLS--> gate --unix socket--> SuperLink <--unix socket-- executor
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cloister.deployment.coordinator.folder import ServerFolder
from cloister.deployment.coordinator.journal import (
    Run,
    RunStatus,
    all_runs,
    change_run,
    note,
    read_run,
)
from cloister.deployment.coordinator.members import MemberStatus as Approval
from cloister.deployment.coordinator.members import read_members
from cloister.deployment.coordinator.status import read_service
from cloister.deployment.flower.commands import superlink
from cloister.deployment.flower.control import Control
from cloister.deployment.flower.environment import quiet_environment
from cloister.deployment.flower.sockets import make_private
from cloister.deployment.loading import command_of
from cloister.deployment.processes import Program, Supervisor
from cloister.errors import CloisterError, NetworkError, UsageError
from cloister.files import write_whole
from cloister.owner_only import private_umask
from cloister.recipe import sent_document
from cloister.server.run_directory import RunDirectory

log = logging.getLogger(__name__)

# Seconds between checks of members and runs, and of the endpoint's certificate.
TICK, RENEW_TICK = 1.0, 3600.0
# A run that is interrupted this often without closing a round is not resumed automatically.
MOST_RESUMES = 20

# Time of the last change in ns, inode, size in bytes.
FileStamp = tuple[int, int, int]


class CoordinatorService:
    """Runs a coordinator: starts and watches its processes, and resumes interrupted runs.

    Args:
        folder: Its folder.
    """

    def __init__(self, folder: ServerFolder) -> None:
        self._folder = folder
        self._synced: tuple[FileStamp | None, int] | None = None
        self._ticked = self._renewed = 0.0
        self._shown: FileStamp | None = None  # the endpoint certificate that the gate uses
        self.supervisor = Supervisor(programs_of(folder), self._tick, self._note)

    def run(self) -> None:
        """Runs until SIGTERM or SIGINT; its processes' files are readable by their own user only.

        Raises:
            UsageError: It runs already.
            NetworkError: The port that it needs is taken.
            BadFileError: Other users would reach the SuperLink.
            CloisterError: A certificate has expired and cannot be renewed.
        """
        running = read_service(self._folder)
        if running is not None:
            raise UsageError(
                f"{self._folder.path}: this coordinator is running already (process "
                f"{running['pid']})"
            )
        refuse_taken(*self._folder.config.place)
        make_private(self._folder.state)
        self._renew(starting=True)
        self._shown = self._certificate()
        for run in all_runs(self._folder.runs):
            if run.standing is RunStatus.STOPPING:  # no process is left that could set STOPPED
                change_run(self._folder.run(run.name), standing=RunStatus.STOPPED)
        self.supervisor.end_on_signals()
        with private_umask():
            self.supervisor.run()
        self._folder.service.unlink(missing_ok=True)

    def _note(self) -> None:
        children = {
            name: {"pid": child.pid, "starts": child.starts, "exit_code": child.exit_code}
            for name, child in self.supervisor.children.items()
        }
        document = {"pid": os.getpid(), "children": children}
        write_whole(self._folder.service, json.dumps(document).encode(), mode=0o600)

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._renewed > RENEW_TICK:
            self._renewed = now
            self._renew()
        if now - self._ticked < TICK:
            return
        self._show()
        self._ticked = now
        try:
            self._sync()
            self._resume()
        except NetworkError:
            return  # the SuperLink is starting; the next tick tries again
        except CloisterError as error:
            log.error("%s", error)

    def _renew(self, starting: bool = False) -> None:
        """Renews certificates that are due. If it cannot, because the authority's key is encrypted
        or elsewhere, the present certificate is used until it expires."""
        now = datetime.now(UTC)
        try:
            self._folder.renew(now)
        except CloisterError as error:
            if starting and not self._folder.can_serve(now):
                raise
            log.error("%s; or renew by hand: cloister server renew %s", error, self._folder.path)

    def _show(self) -> None:
        """Restarts the gate if the endpoint's certificate was renewed, by any process."""
        found = self._certificate()
        if found is not None and found != self._shown:
            self._shown = found
            log.info("the endpoint's certificate was renewed")
            self.supervisor.restart("gate")

    def _certificate(self) -> FileStamp | None:
        return _stamp(self._folder.path / "endpoint.crt")

    def _sync(self) -> None:
        """Tells the SuperLink who may connect, if that or the SuperLink changed.

        A node whose membership ended stays registered, because Flower never accepts a key twice;
        the gate no longer lets it through.
        """
        members, link = self._folder.members, self.supervisor.children["superlink"]
        if link.pid is None:
            return
        state = (_stamp(members), link.pid)
        if state == self._synced:
            return
        control = Control(self._folder.superlink)
        try:
            everybody = read_members(members).values()
            allowed = {m.node_key for m in everybody if m.standing is Approval.APPROVED}
            known = {node.key: node.id for node in control.nodes()}
            failed = False
            for key in known.keys() - allowed:
                failed |= _failed(partial(control.unregister, known[key]))
            for key in sorted(allowed - known.keys()):
                failed |= _failed(partial(control.register, key))
        finally:
            control.close()
        self._synced = None if failed else state

    def _resume(self) -> None:
        for run in all_runs(self._folder.runs):
            if run.standing is not RunStatus.INTERRUPTED:
                continue
            if run.resumed >= MOST_RESUMES:  # set an end state, because watchers wait for one
                change_run(
                    self._folder.run(run.name),
                    standing=RunStatus.FAILED,
                    exit_code=1,
                    error=f"interrupted {run.resumed} times in one round, last by: {run.error}",
                )
            else:
                submit(self._folder, run)
                note(self._folder.run(run.name), "resumed", text=f"interrupted: {run.error}")


def _stamp(path: Path) -> FileStamp | None:
    """Returns the stamp of a file that is replaced as a whole; None: there is none.

    Two writes within one tick of the kernel (4 ms) have the same time, but different inodes.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _failed(call: Callable[[], None]) -> bool:
    """Whether a call about one node failed; the calls about other nodes are still made."""
    try:
        call()
    except NetworkError as error:
        log.warning("a node: %s", error)
        return True
    return False


def submit(folder: ServerFolder, run: Run) -> Run:
    """Starts a run at the SuperLink, as a new Flower run.

    Raises:
        NetworkError: The SuperLink does not answer.
        RecipeError: The run's recipe is incomplete, or too long for a site.
    """
    place = folder.run(run.name)
    recipe = sent_document(RunDirectory.reopen(place).recipe())
    before = read_run(place)
    # Write SUBMITTED before start(): the executor may set RUNNING immediately.
    change_run(place, standing=RunStatus.SUBMITTED, resumed=run.resumed + 1)
    control = Control(folder.superlink)
    try:
        flower_run = control.start({"run": run.name, "recipe": recipe})
    except NetworkError:
        change_run(place, standing=before.standing, resumed=before.resumed)
        raise
    finally:
        control.close()
    return change_run(place, flower_run=flower_run)


def programs_of(folder: ServerFolder) -> list[Program]:
    """Returns the programs that a coordinator runs."""
    environment = quiet_environment(folder.state / "flwr")
    link = superlink(
        socket=folder.superlink,
        secret=folder.secret,
        database=folder.state / "superlink.db",
    )
    ours = {
        "gate": [sys.executable, "-m", "cloister.deployment.coordinator.gate", str(folder.path)],
        "executor": command_of("cloister.deployment.coordinator.executor", folder.path),
    }
    return [
        Program(
            name=name, command=command, environment=environment, log=folder.logs / f"{name}.log"
        )
        for name, command in {"superlink": link, **ours}.items()
    ]


def refuse_taken(host: str, port: int) -> None:
    """Refuses a port that another process listens at.

    Raises:
        NetworkError: The port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise NetworkError(
                f"{host}:{port}: cannot listen there ({error.strerror}); stop the program that "
                "does, or change server.toml"
            ) from error
