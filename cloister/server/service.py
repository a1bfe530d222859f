"""The coordinator's service: SuperLink, gate and executor, kept running; members and runs in step.

sites --TLS--> gate --loopback--> SuperLink <--loopback-- executor
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloister.errors import CloisterError, NetworkError, UsageError
from cloister.files import write_whole
from cloister.flower.commands import superlink
from cloister.flower.control import Control
from cloister.flower.environment import quiet_environment
from cloister.processes import Program, Supervisor
from cloister.provisioning.authority import days_left
from cloister.server.folder import ServerFolder
from cloister.server.journal import Run, Standing, all_runs, change_run, note
from cloister.server.members import connecting, read_members
from cloister.server.run_directory import RunDirectory

log = logging.getLogger(__name__)

# Seconds between looks at members and runs, and at the endpoint's certificate.
TICK, RENEW_TICK = 1.0, 3600.0
# A run that was interrupted so often without closing a round is left to the coordinator.
MOST_RESUMES = 20


class Service:
    """A running coordinator.

    Args:
        folder: Its folder.
    """

    def __init__(self, folder: ServerFolder) -> None:
        self._folder = folder
        self._synced: tuple[int, int | None] | None = None
        self._ticked = self._renewed = 0.0
        self.supervisor = Supervisor(programs_of(folder), self._tick, self._note)

    def run(self) -> None:
        """Runs until SIGTERM or SIGINT.

        Raises:
            UsageError: It runs already.
            NetworkError: A port that it needs is taken.
        """
        running = read_service(self._folder)
        if running is not None:
            raise UsageError(
                f"{self._folder.path}: this coordinator runs already (process {running['pid']})"
            )
        host, port = self._folder.config.place
        for place in ((host, port), ("127.0.0.1", self._folder.config.superlink_port)):
            refuse_taken(*place)
        self._folder.renew(datetime.now(UTC))
        self.supervisor.end_on_signals()
        self.supervisor.run()
        self._folder.service.unlink(missing_ok=True)

    def _note(self) -> None:
        children = {
            name: {"pid": child.pid, "starts": child.starts, "exit_code": child.exit_code}
            for name, child in self.supervisor.children.items()
        }
        document = {"pid": os.getpid(), "children": children}
        write_whole(self._folder.service, json.dumps(document).encode())

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._renewed > RENEW_TICK:
            self._renewed = now
            if self._folder.renew(datetime.now(UTC)):
                log.info("the endpoint's certificate was renewed")
                self.supervisor.restart("gate")
        if now - self._ticked < TICK:
            return
        self._ticked = now
        try:
            self._sync()
            self._resume()
        except NetworkError:
            return  # the SuperLink is on its way; the next tick looks again
        except CloisterError as error:
            log.error("%s", error)

    def _sync(self) -> None:
        """Tells the SuperLink who may connect, where that or the SuperLink changed."""
        members, link = self._folder.members, self.supervisor.children["superlink"]
        state = (members.stat().st_mtime_ns if members.exists() else 0, link.pid)
        if state == self._synced or link.pid is None:
            return
        control = Control(self._folder.superlink, self._folder.certificate)
        try:
            allowed = {m.node_key for m in connecting(read_members(members), datetime.now(UTC))
                       .values()}  # fmt: skip
            known = {node.key: node.id for node in control.nodes()}
            for key in allowed - known.keys():
                control.register(key)
            for key in known.keys() - allowed:
                control.unregister(known[key])
        finally:
            control.close()
        self._synced = state

    def _resume(self) -> None:
        for run in all_runs(self._folder.runs):
            if run.standing is Standing.INTERRUPTED and run.resumed < MOST_RESUMES:
                submit(self._folder, run)
                note(self._folder.run(run.name), "resumed", text=f"interrupted: {run.error}")


def runs_of(folder: ServerFolder) -> list[dict[str, Any]]:
    """Every run, how it stands and how far it is."""
    rows = []
    for run in all_runs(folder.runs):
        metrics = RunDirectory(folder.run(run.name)).metrics()
        rows.append(
            {
                "name": run.name,
                "standing": run.standing.value,
                "round": metrics[-1]["round"] if metrics else 0,
                "sites": list(run.sites),
                "error": run.error,
            }
        )
    return rows


def status_of(folder: ServerFolder, now: datetime) -> dict[str, Any]:
    """What a coordinator wants to see at a glance."""
    service = read_service(folder)
    seen_file = folder.state / "seen.json"
    seen = json.loads(seen_file.read_text("utf-8")) if seen_file.exists() else {}
    certificate = (folder.path / "endpoint.crt").read_bytes()
    return {
        "name": folder.config.name,
        "address": folder.config.address,
        "running": service is not None,
        "processes": [
            {"name": name, **child}
            for name, child in (service or {"children": {}})["children"].items()
        ],
        "certificate_days": days_left(certificate, now),
        "sites": [
            {
                "site": site,
                "standing": member.standing.value,
                "expires": member.expires,
                "seen": seen.get(site, {}).get("seen"),
                "bytes": seen.get(site, {}).get("bytes", 0),
            }
            for site, member in sorted(read_members(folder.members).items())
        ],
        "runs": runs_of(folder),
    }


def submit(folder: ServerFolder, run: Run) -> Run:
    """Hands a run to the SuperLink, as a new one of Flower's.

    Raises:
        NetworkError: The SuperLink does not answer.
    """
    control = Control(folder.superlink, folder.certificate)
    place = folder.run(run.name)
    try:
        recipe = (place / "recipe.toml").read_text(encoding="utf-8")
        flower_run = control.start({"run": run.name, "recipe": recipe})
    finally:
        control.close()
    return change_run(
        place, standing=Standing.SUBMITTED, flower_run=flower_run, resumed=run.resumed + 1
    )


def programs_of(folder: ServerFolder) -> list[Program]:
    """What a coordinator runs."""
    environment = quiet_environment(folder.state / "flwr")
    link = superlink(
        port=folder.config.superlink_port,
        authority=folder.certificate,
        certificate=folder.path / "loopback.crt",
        key=folder.path / "loopback.key",
        secret=folder.secret,
        database=folder.state / "superlink.db",
    )
    ours = {
        name: [sys.executable, "-m", f"cloister.server.{name}", str(folder.path)]
        for name in ("gate", "executor")
    }
    return [
        Program(name=name, command=command, environment=environment,
                log=folder.logs / f"{name}.log")
        for name, command in {"superlink": link, **ours}.items()
    ]  # fmt: skip


def read_service(folder: ServerFolder) -> dict[str, Any] | None:
    """The running service; None where none runs."""
    try:
        document: dict[str, Any] = json.loads(folder.service.read_text(encoding="utf-8"))
        os.kill(int(document["pid"]), 0)
    except (OSError, ValueError, KeyError):
        return None
    return document if _is_ours(int(document["pid"])) else None


def _is_ours(pid: int) -> bool:
    """Whether a process is cloister's, and not another one that got its number."""
    try:
        return b"cloister" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return not Path("/proc/self").exists()  # systems without /proc: the number has to do


def refuse_taken(host: str, port: int) -> None:
    """Refuses a port at which somebody listens.

    Raises:
        NetworkError: It is taken, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise NetworkError(
                f"{host}:{port}: cannot be listened at ({error.strerror}); end what does, or "
                "change server.toml"
            ) from error
