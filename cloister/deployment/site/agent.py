"""The site's agent: the process that answers rounds, instead of Flower's executor.

It claims the SuperNode's tasks, answers only questions that its coordinator signed, checks each
question against the site's policy, approvals and ledger, and runs the installed trainer, with the
base model in memory. A run's bundle is never unpacked; an error's text never leaves; every reply is
checked again before it is sent.
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
from cloister.client.app import Identity, anonymous_refusal, as_message, make_client_app
from cloister.client.changes import as_rows, changes
from cloister.client.egress import check_outgoing
from cloister.client.evaluating import is_evaluation
from cloister.client.moments import Moments, period_of
from cloister.client.secure import EpochKeys
from cloister.client.site_file import SiteFile, read_site, site_bytes, site_of
from cloister.client.terms import accepted_terms
from cloister.data.values import MOST_ROW_BYTES
from cloister.deployment.flower.control import empty_bundle
from cloister.deployment.flower.flower_tasks import CLIENT_TASK, Executor, FlowerTask, Runtime
from cloister.deployment.logs import log_json
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.approvals import check_approved
from cloister.deployment.site.network_access import leave
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

# Seconds between checks for a task, of which a SuperNode fetches one every 3 s at most; each check
# costs the agent and its SuperNode 2 ms of processor time.
POLL = 0.25
# Seconds to read one record, for the moment at which a started agent begins to serve: ten times a
# JSONL line; and bytes per second for one row of the largest size, which CPython's scanner reads at
# about 50 MB/s.
READ_SECONDS = 1e-4
READ_BYTE_SECONDS = 2e-8
# Most questions of strangers that an agent notes in full, a fifth of the refusals that are kept for
# good (`refusals.FIRST`): they must not crowd out reasons about the coordinator's own questions.
# The others are only counted.
NOTED_STRANGERS = 20
# Exit code of the watchdog: EX_SOFTWARE, sysexits.h.
HUNG = 70


# The sources of an admission: the bytes of `site.toml`, the study's document, and the number of the
# reading of the records.
Source = tuple[bytes, str, int]


@dataclass
class OwnSites:
    """Opens the site in the study of a question, and keeps it until one of its sources changes.

    Attributes:
        path: `site.toml`.
        records: The records, read when the agent started or was told to read them again.
        moments: The moments at which the end of their encoding may show.
        admitted: The site in its study, with the sources of its admission.
        unsound: The error of a failed proof, with its sources; the proof is not tried again.
        keys: Keys of the site's epoch of secure aggregation.
    """

    path: Path
    records: RecordSource
    moments: Moments
    admitted: tuple[Source, Admitted] | None = None
    unsound: tuple[Source, PreflightError] | None = None
    keys: EpochKeys = field(default_factory=EpochKeys)

    def __call__(self, context: Context) -> Admitted:
        """Returns the site in the study whose document is in a run's configuration.

        Policy and approval are checked for every question, so a rejection or an expiry takes effect
        at the next one. The loaded study stays until another one is approved. A site without an
        admission that is asked for a round, as after a restart, admits itself first; its kept proof
        makes that fast.

        Raises:
            UnapprovedError: The study waits for an approval at the site.
            CloisterError: The site does not take part.
        """
        text = str(context.run_config.get("recipe", ""))
        content = site_bytes(self.path)  # read once, so that an admission belongs to its sources
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
        moments: The moments at which answers leave.
        stop: Ends the agent after the present task.
    """

    path: Path
    runtime: Runtime
    moments: Moments = field(default_factory=Moments)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._file = file = read_site(
            self.path
        )  # the socket's short name is valid while the agent runs
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
            on_error=self._note_error,
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
            NetworkError: The SuperNode refuses the agent's secret.
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
        # While the file is being edited it may be unreadable: the question is then refused, and the
        # earlier limit applies until the file can be read.
        with suppress(CloisterError):
            self._limit = read_site(self.path).site.max_round_seconds
        watchdog = threading.Timer(self._limit, _end_hung)
        watchdog.daemon = True
        watchdog.start()
        try:
            try:
                message, context, bundle = task.message()
            except NetworkError as error:
                # A SuperNode whose task was given up fetches no other task of the same run.
                log.warning("%s; the agent and its SuperNode start again", error)
                task.finish(succeeded=False)
                self.stop.set()
                return
            self._look_at(bundle)
            reply = self._answer(message, context)
            if task.lost.is_set():
                log.warning("the SuperNode abandoned the task; its reply is not sent")
                task.close()
                return
            task.reply(reply, context)
            task.finish(succeeded=True)
            self._count("answered")
        except NetworkError as error:
            log.warning("the reply could not be given to the SuperNode: %s", error)
            task.close()
        finally:
            watchdog.cancel()
            self._doing("waiting")

    def _answer(self, message: Message, context: Context) -> Message:
        self._asked, self._question = ("", 0), None
        try:
            reply = self._app(message, context)
        except Exception as error:  # an error of Flower, for a kind of message that no app answers
            self._note_error(error)
            reply = as_message(anonymous_refusal(0), message)
        asked: RoundRequest | None = self._question
        # A question that the coordinator did not sign is answered without a name.
        admitted = self._sites.admitted[1] if asked and self._sites.admitted else None
        try:
            site, shapes = (
                (admitted.site, admitted.sent_in(self._asked[1])) if admitted else (None, {})
            )
            who = self._identity(context) if asked and site is None else None
            scored = admitted.evaluated if admitted else {}
            check_outgoing(reply, message, site, shapes, who.sign if who else None, scored)
        except CloisterError as error:
            log.error("a reply was kept back")
            self._refused(error)
            return as_message(anonymous_refusal(self._asked[1]), message)
        # A run that goes on asks no site to prepare again: a restarted agent notes it at any step.
        is_new = "leaves_every" not in self._activity or (
            asked is not None and asked.step is Step.PREPARE
        )
        if is_new and admitted is not None and admitted.site.study == self._asked[0]:
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
        """Notes a question after its signature was checked."""
        self._question, self._asked = request, (request.study, request.round)
        others = {
            Step.PREPARE: "preparing",
            Step.DELIVER: "taking the adapter",
            Step.VOTE: "voting",
        }
        usual = "evaluating" if is_evaluation(request) else "training"
        admitted = self._sites.admitted
        if admitted is not None and admitted[1].plan.votes is not None:
            usual = "voting"
        doing = others.get(request.step, usual)
        self._doing(doing, study=request.study, round=request.round)

    def _reload_if_asked(self) -> None:
        """Reads the records again if the operator asked for it; after an error the earlier ones
        stay.

        In both cases the agent continues at a moment, as at its start.
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
            log.error("the records cannot be read; the earlier ones stay in use")
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
                "a bundle that is not cloister's was received and dropped unread: "
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

    def _note_error(self, error: Exception) -> None:
        """Notes the error of a question; of strangers' questions only the first ones."""
        own = isinstance(error, CloisterError) and not isinstance(
            error, StrangerError | AdapterFormatError
        )  # for example a key that cannot be read
        is_known = self._question is not None or own
        if is_known or self._count("strangers") <= NOTED_STRANGERS:
            self._refused(error)

    def _count(self, what: str) -> int:
        count = int(str(self._activity[what])) + 1
        self._activity[what] = count
        return count

    def _refused(self, error: Exception) -> None:
        if isinstance(error, UnapprovedError):  # `cloister site studies` lists it instead
            return
        _noted(lambda: self._folder.note_refusal(error, *self._asked))

    def _doing(self, what: str, **more: object) -> None:
        kept = ("answered", "bundles", "strangers", "leaves_every", "device")
        base = {key: self._activity[key] for key in kept if key in self._activity}
        self._activity = {"doing": what, **base, **more}
        _noted(lambda: self._folder.note_activity(self._activity))


def _reading_period(file: SiteFile) -> float:
    """Period of reading the records, from declared and public numbers, with one row of the largest
    size."""
    rows = file.site.public_records * READ_SECONDS
    return period_of(rows + MOST_ROW_BYTES * READ_BYTE_SECONDS)


def _noted(note: Callable[[], None]) -> None:
    """Writes a note for the operator; a full disk must not keep the site from answering."""
    try:
        note()
    except OSError as error:
        log.error("a note for the operator could not be written: %s", error.strerror)


def _end_hung() -> None:
    log.error("a round takes longer than site.max_round_seconds: the agent stops and starts again")
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
