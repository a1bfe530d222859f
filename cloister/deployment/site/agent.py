"""The site's agent: one warm process that answers rounds, in place of Flower's executor.

It claims the SuperNode's tasks, answers what its coordinator signed and nothing else, checks each
question against the site's policy, approvals and ledger, and runs the trainer that is installed,
with the base model in memory. The bundle that a run came with is never unpacked; an error's text
never leaves; every reply is checked once more before it goes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from flwr.app import Context, Message

from cloister.client.admission import Admitted
from cloister.client.app import Identity, as_message, make_client_app, refused_by_nobody
from cloister.client.changes import as_rows, changes
from cloister.client.egress import check_outgoing
from cloister.client.moments import Moments, period_of
from cloister.client.secure import EpochKeys
from cloister.client.site_file import SiteFile, read_site, site_bytes, site_of
from cloister.client.terms import accepted_terms
from cloister.data.values import MOST_ROW_BYTES
from cloister.deployment.flower.control import empty_bundle
from cloister.deployment.flower.tasks import CLIENT_TASK, Executor, FlowerTask, Runtime
from cloister.deployment.logs import log_json
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.approvals import check_approved
from cloister.deployment.site.network import leave
from cloister.deployment.site.open_ledger import open_ledger
from cloister.deployment.site.opened_site import open_for_study
from cloister.deployment.site.proposed import AskedStudies
from cloister.deployment.site.records import RecordSource
from cloister.deployment.site.trusted_key import trusted_coordinator
from cloister.errors import (
    AdapterFormatError,
    CloisterError,
    NetworkError,
    PreflightError,
    StrangerError,
    UnapprovedError,
)
from cloister.models.device import device_words
from cloister.protocol.exchange import RoundRequest, Step
from cloister.protocol.signed_questions import TrustedCoordinator
from cloister.recipe import parse_document
from cloister.training.free_memory import free_at_start

log = logging.getLogger(__name__)

# Seconds between looks for a task, of which a SuperNode fetches one every 3 s at most; each look
# costs the agent and its SuperNode 2 ms of processor time.
POLL = 0.25
# Seconds to read one record when the agent starts, for the moment at which it begins to serve: ten
# times what a JSONL's line takes; and one row of the most bytes, of which CPython's scanner reads
# about 50 MB/s, whoever's it is.
READ_SECONDS = 1e-4
READ_BYTE_SECONDS = 2e-8
# Questions of strangers that are noted in full while an agent runs, a fifth of the refusals that
# stay for good (`refusals.FIRST`): whoever puts them must not crowd out why the coordinator's own
# came to nothing. The others are counted.
NOTED_STRANGERS = 20
# How a watchdog ends the process: EX_SOFTWARE, sysexits.h.
HUNG = 70


# What an admission follows from: the bytes of `site.toml`, the study's document, and which reading
# of the records is served.
Source = tuple[bytes, str, int]


@dataclass
class OwnSites:
    """The site in the study that is asked about; kept until one of its sources changes.

    Attributes:
        path: `site.toml`.
        records: As they were read when the agent started, or told to read them again.
        moments: When it may be seen that their encoding is done.
        admitted: The site in its study, with what it was admitted from.
        unsound: What a study's proof failed on, with the same: asked again, it is not tried again.
        keys: Of the site's epoch of secure aggregation.
    """

    path: Path
    records: RecordSource
    moments: Moments
    admitted: tuple[Source, Admitted] | None = None
    unsound: tuple[Source, PreflightError] | None = None
    keys: EpochKeys = field(default_factory=EpochKeys)

    def __call__(self, context: Context) -> Admitted:
        """The site in the study whose document is in a run's configuration.

        Whether the policy accepts it and somebody approved it is looked up for every question, so
        that what is rejected, or ends, ends at the next one. Until another study is approved, the
        one at hand stays loaded. A site that was asked for a round and holds no admission, as after
        a restart, admits itself as it would when asked to prepare; the proof that it kept makes it
        short.

        Raises:
            UnapprovedError: The study waits for somebody at the site.
            CloisterError: The site does not take part.
        """
        text = str(context.run_config.get("recipe", ""))
        content = site_bytes(self.path)  # once: an admission belongs to what it was made from
        file = site_of(self.path, content)
        records = self.records.current
        source = (content, text, self.records.readings)
        recipe = parse_document(text)
        terms = accepted_terms(file, recipe)
        _noted(lambda: AskedStudies.of(file).note(terms.study, text))
        check_approved(terms)
        if self.unsound is not None and self.unsound[0] == source:
            raise self.unsound[1]
        if self.admitted is None or self.admitted[0] != source:
            self.admitted = None
            try:
                found = open_for_study(file, recipe, records, self.moments, self.keys)
            except PreflightError as error:
                self.unsound = (source, error)
                raise
            self.admitted = (source, found)
        return self.admitted[1]


@dataclass
class Agent:
    """Answers the rounds of one site.

    Attributes:
        path: `site.toml`.
        runtime: The SuperNode's Runtime API.
        moments: When answers leave.
        stop: Ends the agent after the task at hand.
    """

    path: Path
    runtime: Runtime
    moments: Moments = field(default_factory=Moments)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._file = file = read_site(self.path)  # its name holds while the agent runs
        self._folder = AgentFolder.of(file)
        self._limit = file.site.max_round_seconds
        begun = self.moments.clock()
        free_at_start(torch.device("cpu"))  # without the records, on which no choice may depend
        records = RecordSource(file)
        self.moments.hold(begun, _reading_period(file))
        self._sites = OwnSites(self.path, records, self.moments)
        self._app = make_client_app(
            self._sites,
            self._trusted,
            on_error=self._wrong,
            identify=self._identity,
            moments=self.moments,
            on_asked=self._is_asked,
        )
        self._question: RoundRequest | None = None
        self._expected = hashlib.sha256(empty_bundle()).hexdigest()
        self._serves()
        self._asked = ("", 0)
        self._activity: dict[str, object] = {
            "doing": "waiting",
            "answered": 0,
            "bundles": 0,
            "strangers": 0,
        }

    def serve(self) -> None:
        """Answers until it is told to stop.

        Raises:
            NetworkError: The SuperNode does not take the agent's secret.
        """
        executor = Executor(self.runtime, CLIENT_TASK)
        self._doing("waiting")
        while not self.stop.is_set():
            self._reload_if_asked()
            task = executor.claim()
            if task is None:
                self.stop.wait(POLL)
            else:
                self._handle(task)

    def _handle(self, task: FlowerTask) -> None:
        # A file that is being written cannot be read: the question is refused as one that finds it
        # so, and meanwhile the limit from before holds.
        with suppress(CloisterError):
            self._limit = read_site(self.path).site.max_round_seconds
        watchdog = threading.Timer(self._limit, _end_hung)
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
            self._count("answered")
        except NetworkError as error:
            log.warning("the reply could not be handed over: %s", error)
            task.close()
        finally:
            watchdog.cancel()
            self._doing("waiting")

    def _answer(self, message: Message, context: Context) -> Message:
        self._asked, self._question = ("", 0), None
        try:
            reply = self._app(message, context)
        except Exception as error:  # Flower's own, of a kind of message that no app answers
            self._wrong(error)
            reply = as_message(refused_by_nobody(0), message)
        asked: RoundRequest | None = self._question
        # Of a question that is not the coordinator's nothing is known here, and nobody answers.
        admitted = self._sites.admitted[1] if asked and self._sites.admitted else None
        try:
            site, shapes = (
                (admitted.site, admitted.sent_in(self._asked[1])) if admitted else (None, {})
            )
            who = self._identity(context) if asked and site is None else None
            check_outgoing(reply, message, site, shapes, who.sign if who else None)
        except CloisterError as error:
            log.error("a reply was kept back")
            self._refused(error)
            return as_message(refused_by_nobody(self._asked[1]), message)
        prepared = asked is not None and asked.step is Step.PREPARE
        if prepared and admitted is not None and admitted.site.study == self._asked[0]:
            self._activity["leaves_every"] = admitted.period
            self._activity["device"] = device_words(admitted.workspace.network.device)
            found = changes(
                admitted.site.plan,
                admitted.plan,
                isolate_units=admitted.site.policy.privacy.isolate_units,
            )
            study = {
                "study": admitted.site.study,
                "changes": as_rows(found),
                "silent": admitted.silent,
            }
            _noted(lambda: self._folder.note_study(study))
        return reply

    def _trusted(self) -> TrustedCoordinator:
        return trusted_coordinator(self._file)

    def _is_asked(self, request: RoundRequest) -> None:
        """Notes what the coordinator asks for, once it is known to be the coordinator."""
        self._question, self._asked = request, (request.study, request.round)
        doing = {Step.PREPARE: "preparing", Step.DELIVER: "taking the adapter"}.get(
            request.step, "training"
        )
        self._doing(doing, study=request.study, round=request.round)

    def _reload_if_asked(self) -> None:
        """Reads the records again where the operator asks for it; those from before stay if not.

        Whether it goes well or not, the agent goes on at a moment, as at its start.
        """
        if not self._folder.take_reload():
            return
        begun = self.moments.clock()
        try:
            file = read_site(self.path)
            try:
                self._sites.records.reload(file)
            finally:
                self.moments.hold(begun, _reading_period(file))
        except CloisterError as error:
            log.error("the records cannot be read; those from before are served")
            self._asked = ("", 0)
            self._refused(error)
            return
        self._serves()

    def _serves(self) -> None:
        _noted(lambda: self._folder.note_records(self._sites.records.document()))

    def _look_at(self, bundle: bytes) -> None:
        found = hashlib.sha256(bundle).hexdigest()
        if found != self._expected:
            self._count("bundles")
            log.warning(
                "a bundle that is not cloister's came along and was dropped unread: "
                "%d bytes, SHA-256 %s",
                len(bundle),
                found,
            )

    def _identity(self, context: Context) -> Identity | None:
        try:
            file = read_site(self.path)
            return Identity(file.site.name, open_ledger(file).sign)
        except CloisterError:
            return None

    def _wrong(self, error: Exception) -> None:
        """Notes what went wrong with a question; of strangers' ones, the first."""
        own = isinstance(error, CloisterError) and not isinstance(
            error, StrangerError | AdapterFormatError
        )  # such as a key that cannot be read
        is_known = self._question is not None or own
        if is_known or self._count("strangers") <= NOTED_STRANGERS:
            self._refused(error)

    def _count(self, what: str) -> int:
        count = int(str(self._activity[what])) + 1
        self._activity[what] = count
        return count

    def _refused(self, error: Exception) -> None:
        if isinstance(error, UnapprovedError):  # it is among the studies that asked
            return
        _noted(lambda: self._folder.note_refusal(error, *self._asked))

    def _doing(self, what: str, **more: object) -> None:
        kept = ("answered", "bundles", "strangers", "leaves_every", "device")
        base = {key: self._activity[key] for key in kept if key in self._activity}
        self._activity = {"doing": what, **base, **more}
        _noted(lambda: self._folder.note_activity(self._activity))


def _reading_period(file: SiteFile) -> float:
    """Of reading the records, from declared and public numbers: one may be as large as any is."""
    rows = file.site.public_records * READ_SECONDS
    return period_of(rows + MOST_ROW_BYTES * READ_BYTE_SECONDS)


def _noted(note: Callable[[], None]) -> None:
    """Writes a note for the operator; a disk that is full must not keep the site from answering."""
    try:
        note()
    except OSError as error:
        log.error("a note for the operator could not be written: %s", error.strerror)


def _end_hung() -> None:
    log.error("a round takes longer than site.max_round_seconds: the agent ends and starts again")
    os._exit(HUNG)


def main(path: Path) -> None:
    """Runs the agent until SIGTERM."""
    log_json("agent")
    file = read_site(path)
    log.info("%s", leave(file))
    folder = AgentFolder.of(file)
    # The SuperNode needs a moment to listen; claiming goes on until it does.
    Agent(path, Runtime(folder.socket, folder.secret.read_bytes())).serve()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
