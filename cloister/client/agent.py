"""The site's agent: one warm process that answers rounds, in place of Flower's executor.

It claims the SuperNode's tasks, checks each message against the site's policy and ledger, and runs
the trainer that is installed, with the base model in memory. The bundle that a run came with is
never unpacked; an error's text never leaves; every reply is checked once more before it goes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict

from cloister.adapter.exchange import RECORD, RoundReply, RoundRequest, Status
from cloister.adapter.formats import Shapes
from cloister.adapter.pairs import cut_shapes
from cloister.client.agent_folder import AgentFolder
from cloister.client.app import Identity, make_client_app
from cloister.client.outgoing import check_outgoing
from cloister.client.own import OwnSite, open_own
from cloister.client.own_ledger import open_ledger
from cloister.client.secure import EpochKeys
from cloister.client.site import Site
from cloister.client.site_file import SiteFile, read_site
from cloister.errors import AdapterFormatError, CloisterError, NetworkError
from cloister.flower.control import empty_bundle
from cloister.flower.tasks import CLIENT_TASK, Executor, Runtime, Task
from cloister.logs import log_json
from cloister.recipe import parse_document
from cloister.training.workspace import Workspace

log = logging.getLogger(__name__)

# Seconds between looks for a task; 2 % of a core.
POLL = 0.1
# How a watchdog ends the process: EX_SOFTWARE, sysexits.h.
HUNG = 70


@dataclass
class OwnSites:
    """The site as its file says now, opened for the study that is asked; kept until either changes.

    Attributes:
        path: `site.toml`.
        opened: What is open, with what it was opened from.
        keys: Of the site's epoch of secure aggregation.
    """

    path: Path
    opened: tuple[tuple[bytes, str, float], OwnSite] | None = None
    keys: EpochKeys = field(default_factory=EpochKeys)

    def __call__(self, context: Context) -> tuple[Site, Workspace]:
        """The site and its workspace, for the study's document in a run's configuration.

        Raises:
            CloisterError: The site does not take part.
        """
        text = str(context.run_config.get("recipe", ""))
        file = read_site(self.path)
        stamp = (self.path.read_bytes(), text, _changed(file))
        if self.opened is None or self.opened[0] != stamp:
            self.opened = None
            own = open_own(file, parse_document(text))
            own = replace(own, site=replace(own.site, keys=self.keys))
            self.opened = (stamp, own)
        own = self.opened[1]
        return own.site, own.workspace


def _changed(file: SiteFile) -> float:
    data = file.place(file.site.data)
    return data.stat().st_mtime if data.exists() else 0.0


@dataclass
class Agent:
    """Answers the rounds of one site.

    Attributes:
        path: `site.toml`.
        runtime: The SuperNode's Runtime API.
        stop: Ends the agent after the task at hand.
    """

    path: Path
    runtime: Runtime
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        file = read_site(self.path)
        self._folder = AgentFolder.of(file)
        self._sites = OwnSites(self.path)
        self._app = make_client_app(self._sites, on_error=self._refused, identify=self._identity)
        self._expected = hashlib.sha256(empty_bundle()).hexdigest()
        self._asked = ("", 0)
        self._activity: dict[str, object] = {"doing": "waiting", "answered": 0, "bundles": 0}

    def serve(self) -> None:
        """Answers until it is told to stop.

        Raises:
            NetworkError: The SuperNode does not take the agent's secret.
        """
        executor = Executor(self.runtime, CLIENT_TASK)
        self._doing("waiting")
        while not self.stop.is_set():
            task = executor.claim()
            if task is None:
                self.stop.wait(POLL)
            else:
                self._handle(task)

    def _handle(self, task: Task) -> None:
        limit = read_site(self.path).site.max_round_seconds
        watchdog = threading.Timer(limit, _end_hung)
        watchdog.daemon = True
        watchdog.start()
        try:
            try:
                message, context, bundle = task.message()
            except NetworkError as error:
                # A SuperNode whose task was given up fetches no other for the same run.
                log.warning("%s; the agent and its SuperNode start again", error)
                task.finish(succeeded=False)
                self.stop.set()
                return
            self._look_at(bundle)
            reply = self._answer(message, context)
            if task.lost.is_set():
                log.warning("the SuperNode gave the task up; its reply stays here")
                task.close()
                return
            task.reply(reply, context)
            task.finish(succeeded=True)
            self._activity["answered"] = int(str(self._activity["answered"])) + 1
        except NetworkError as error:
            log.warning("the reply could not be handed over: %s", error)
            task.close()
        finally:
            watchdog.cancel()
            self._doing("waiting")

    def _answer(self, message: Message, context: Context) -> Message:
        self._asked = ("", 0)
        try:
            request = RoundRequest.from_fields(dict(message.content[RECORD]))
            self._asked = (request.study, request.round)
        except (AdapterFormatError, KeyError):
            pass  # the app says so itself
        self._doing("training", study=self._asked[0], round=self._asked[1])
        reply = self._app(message, context)
        own = self._sites.opened[1] if self._sites.opened else None
        try:
            shapes: Shapes = {}
            if own is not None:
                workspace, site = own.workspace, own.site
                names = workspace.trained_in_round(site.training, self._asked[1]) - workspace.kept
                shapes = cut_shapes(workspace.start.select(names).shapes, site.rank)
            check_outgoing(reply, message, own.site if own else None, shapes)
        except CloisterError as error:
            log.error("a reply was kept back")
            self._refused(error)
            failed = RoundReply("", 0, Status.FAILED, b"", 0.0, "")
            content = RecordDict({RECORD: ConfigRecord(failed.fields())})
            return Message(content, reply_to=message)
        return reply

    def _look_at(self, bundle: bytes) -> None:
        found = hashlib.sha256(bundle).hexdigest()
        if found != self._expected:
            self._activity["bundles"] = int(str(self._activity["bundles"])) + 1
            log.warning("a bundle that is not cloister's came along and was dropped unread: "
                        "%d bytes, SHA-256 %s", len(bundle), found)  # fmt: skip

    def _identity(self) -> Identity | None:
        try:
            file = read_site(self.path)
            return Identity(file.site.name, file.policy, open_ledger(file).sign)
        except CloisterError:
            return None

    def _refused(self, error: Exception) -> None:
        _noted(lambda: self._folder.note_refusal(error, *self._asked))

    def _doing(self, what: str, **more: object) -> None:
        base = {key: self._activity[key] for key in ("answered", "bundles")}
        self._activity = {"doing": what, **base, **more}
        _noted(lambda: self._folder.note_activity(self._activity))


def _noted(note: Callable[[], None]) -> None:
    """Writes a note for the operator; a disk that is full must not keep the site from answering."""
    try:
        note()
    except OSError as error:
        log.error("a note for the operator could not be written: %s", error.strerror)


def _end_hung() -> None:
    log.error("a round takes longer than site.max_round_seconds: the agent ends and starts again")
    os._exit(HUNG)


def main(path: Path, address: str) -> None:
    """Runs the agent until SIGTERM."""
    log_json("agent")
    folder = AgentFolder.of(read_site(path))
    # The SuperNode needs a moment to listen; claiming goes on until it does.
    Agent(path, Runtime(address, folder.secret.read_bytes())).serve()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
