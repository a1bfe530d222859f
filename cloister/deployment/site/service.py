"""The site's service: keeps Flower's SuperNode and our agent running.

coordinator's gate <--TLS, outbound-- SuperNode <--unix socket, secret-- agent: data, ledger
"""

from __future__ import annotations

import json
import logging
import os
import pwd
import secrets
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from cloister.client.site_file import SiteFile
from cloister.deployment.flower.commands import supernode
from cloister.deployment.flower.environment import quiet_environment
from cloister.deployment.flower.sockets import make_private
from cloister.deployment.loading import command_of
from cloister.deployment.processes import Program, Supervisor
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.connectivity import reach
from cloister.deployment.site.decisions import Decisions
from cloister.deployment.site.joining import SiteMembership
from cloister.deployment.site.network_access import needs_hub
from cloister.deployment.site.proposed import AskedStudies
from cloister.deployment.site.trust import settle
from cloister.deployment.site.trusted_key import trusted_coordinator
from cloister.errors import BadFileError, CloisterError, UsageError
from cloister.files import write_whole
from cloister.owner_only import private_folder, private_umask, tighten_all

log = logging.getLogger(__name__)

# Seconds between checks of the trusted authorities: a few small files and signatures.
TRUST_TICK = 10.0
# Activities of the agent during which its SuperNode must not be restarted.
BUSY = ("preparing", "training", "evaluating", "voting", "taking the adapter")


class SiteService:
    """Runs a site: starts and watches its SuperNode and its agent.

    Args:
        file: The site's.

    Raises:
        BadFileError: The site has joined no federation, or has no coordinator's key to trust.
        UsageError: The coordinator has not approved it yet, or its service runs already.
    """

    def __init__(self, file: SiteFile) -> None:
        self._file = file
        self._folder = AgentFolder.of(file)
        membership = SiteMembership.of(file)
        address = membership.invite.address
        if not membership.is_welcome():
            raise UsageError(
                f"{file.site.name}: the coordinator has not approved this site yet; send it "
                f"{membership.request}, then use its answer: cloister site join {file.path} "
                "FILE"
            )
        trusted_coordinator(file)
        running = self._folder.running()
        if running is not None:
            raise UsageError(f"{file.site.name}: is running already (process {running['pid']})")
        user = _user(file.site.agent_user)
        self._prepare(user)
        environment = quiet_environment(self._folder.path / "flwr", offline=not needs_hub(file))
        node = supernode(
            address=address,
            authority=membership.authority,
            key=membership.node_key,
            socket=self._folder.socket,
            secret=self._folder.secret,
        )
        agent = command_of("cloister.deployment.site.agent", file.path)
        logs = self._folder.logs
        self.supervisor = Supervisor(
            [
                Program(
                    name="supernode",
                    command=node,
                    environment=environment,
                    log=logs / "supernode.log",
                ),
                # If an agent dies between claiming a task and taking its message, the SuperNode
                # would wait for ever, so it is restarted together with the agent.
                Program(
                    name="agent",
                    command=agent,
                    environment=environment,
                    log=logs / "agent.log",
                    takes_down=("supernode",),
                    user=user,
                ),
            ],
            on_tick=self._tick,
            on_change=self._note,
        )
        self._ticked = 0.0
        self._roots = self._trusted(membership)

    def run(self) -> None:
        """Runs until SIGTERM or SIGINT; its processes' files are readable by their own user
        only."""
        self.supervisor.end_on_signals()
        with private_umask():
            self.supervisor.run()
        self._folder.service.unlink(missing_ok=True)

    def _tick(self) -> None:
        """Restarts the SuperNode between two rounds if the trusted authorities changed, as it reads
        them once."""
        if time.monotonic() - self._ticked < TRUST_TICK:
            return
        self._ticked, membership = time.monotonic(), SiteMembership.of(self._file)
        try:
            roots = self._trusted(membership)
        except CloisterError as error:
            log.error("%s", error)
            return
        if roots != self._roots and self._folder.activity().get("doing") not in BUSY:
            self._roots = roots
            log.info("the coordinator's authorities changed; the SuperNode starts with them")
            self.supervisor.restart("supernode")

    def _trusted(self, membership: SiteMembership) -> bytes:
        settle(membership.path, datetime.now(UTC))
        return membership.authority.read_bytes()

    def _note(self) -> None:
        node = self.supervisor.children["supernode"]
        if node.exit_code is not None and node.pid is None and not self.supervisor.stop.is_set():
            threading.Thread(target=self._explain, daemon=True).start()
        children = {
            name: {"pid": child.pid, "starts": child.starts, "exit_code": child.exit_code}
            for name, child in self.supervisor.children.items()
        }
        document = {"pid": os.getpid(), "children": children}
        write_whole(self._folder.service, json.dumps(document).encode(), mode=0o600)

    def _explain(self) -> None:
        """Finds out why the SuperNode ended, since it does not report it."""
        for step in reach(SiteMembership.of(self._file)):
            if not step.fine:
                trouble = f"{step.name}: {step.detail}; {step.remedy}"
                log.warning("the coordinator cannot be reached: %s", trouble)
                self._folder.note_connection(trouble)
                return
        self._folder.note_connection(
            "the coordinator is reached; after a broken connection it accepts a site again within "
            "a minute"
        )

    def _prepare(self, user: int | None) -> None:
        place = self._folder
        try:
            for path in (place.path, place.logs, place.own):
                private_folder(path)
                tighten_all(path)
            SiteMembership.of(self._file).close()
            place.forget_connection()
            write_whole(place.secret, secrets.token_hex(32).encode(), mode=0o600)
            if user is not None:  # the agent passes through the folder and owns its own files
                place.path.chmod(0o711)
                # In there the agent reads the coordinator's public key, and nothing else.
                SiteMembership.of(self._file).path.chmod(0o711)
                for path in (place.own, place.secret):
                    os.chown(path, user, -1)
                self._share_approvals(user)
        except OSError as error:
            raise BadFileError(f"{place.path}: cannot be written ({error})") from error
        make_private(place.socket.parent, user)

    def _share_approvals(self, user: int) -> None:
        """Lets the agent read decisions and store documents of studies; it cannot decide."""
        decisions, asked = Decisions.of(self._file).path, AskedStudies.of(self._file).path
        if decisions.exists():  # as its operators share it
            return
        group = pwd.getpwuid(user).pw_gid
        for path, owner in ((decisions, -1), (asked, user)):
            path.mkdir(mode=0o700)
            os.chown(path, owner, group)
            path.chmod(0o2750)


def _user(name: str | None) -> int | None:
    if name is None:
        return None
    if os.getuid() != 0:
        raise UsageError(
            f"site.agent_user: {name!r} given; but only root can start the agent as another user; "
            "start the service as root, or leave it out"
        )
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError as error:
        raise UsageError(f"site.agent_user: this machine has no user {name!r}") from error


def stop_service(folder: AgentFolder) -> Path | None:
    """Asks the running service to end; returns its file, which disappears at its end; None if none
    runs."""
    running = folder.running()
    if running is None:
        return None
    os.kill(int(running["pid"]), 15)
    return folder.service
