"""A site ("ward") whose agent answers without a SuperNode, with a clock that records advance.

`Seen` holds everything that an observer can see of an answer: its fields, its bytes except for the
noise, Flower's envelope, and the time at which it leaves.
"""

import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from transformers import PreTrainedTokenizerBase

from cloister.adapter.wire import decode, encode
from cloister.client import lone_times, measured_times, proving
from cloister.client import round as site_round
from cloister.client.moments import Moments
from cloister.client.site_file import read_site
from cloister.deployment.flower.flower_tasks import FlowerTask, Runtime
from cloister.deployment.site import agent, records
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.joining import SiteMembership
from cloister.deployment.site.open_ledger import begin_ledger
from cloister.ledger.signing import public_hex
from cloister.models.base import weights_sha256
from cloister.protocol.exchange import RECORD, RoundReply, RoundRequest, Status, Step
from cloister.protocol.signed_questions import signed
from cloister.recipe import Recipe, sent_document
from cloister.tasks.template import ChatTemplate
from tests.support.approvals import standing
from tests.support.clock import Clock, TimedGrid
from tests.support.studies import NOTES

SITE = """
[site]
name = "ward"
data = "records.jsonl"
public_records = 40
ledger = "ward.ledger"
model = "{base}"

[records]
task = "{task}"
labels = {labels}

[budget]
epsilon = 40.0
delta = 2e-5

[privacy]
max_grad_norm = 8.0
person = "person"
unit = "{unit}"

[accept]
tasks = ["{task}"]
base_sha256 = ["{sha256}"]
max_rounds = 60
"""
# Of the coordinator whose questions every ward answers.
COORDINATOR = Ed25519PrivateKey.generate()
# What a record costs in seconds: reading a byte, a character that a tokenizer or template is given,
# a turn that is rendered, ten tokens trained once. Whatever the true costs are, they differ with
# the records as these do: by what is really looked at.
READ, CHARACTER, TURN, TRAIN = 2e-8, 1e-6, 1e-5, 2e-3


@dataclass(frozen=True)
class Seen:
    """One answer as the coordinator sees it; equal if two answers cannot be distinguished."""

    said: tuple[object, ...]
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    envelope: tuple[object, ...]
    left: float


@dataclass
class Carried:
    """A task as Flower would hand it to the agent; it stores the reply."""

    question: Message
    context: Context
    lost: threading.Event = field(default_factory=threading.Event)
    replies: list[Message] = field(default_factory=list)
    ends: list[bool] = field(default_factory=list)

    def message(self) -> tuple[Message, Context, bytes]:
        return self.question, self.context, b""

    def reply(self, message: Message, context: Context) -> None:
        self.replies.append(message)

    def finish(self, succeeded: bool) -> None:
        self.ends.append(succeeded)

    def close(self) -> None:
        raise AssertionError("the agent gave a task up")


@dataclass
class Ward:
    """A ward's folder and its running agent."""

    folder: Path
    clock: Clock
    agent: agent.Agent
    waited: float = 0.0
    reply: RoundReply | None = None  # the last

    @classmethod
    def open(
        cls,
        folder: Path,
        rows: Sequence[object],
        base: Path,
        patch: pytest.MonkeyPatch,
        *,
        task: str = "sequence-classification",
        unit: str = "record",
        proofs: Path | None = None,
        approves: bool = True,
        proves: bool = False,
    ) -> "Ward":
        """A ward with these rows; a row that is text stands in the file as it is.

        `approves`: whether a standing approval of its lets studies in. `proves`: whether it proves
        and measures a study itself, though another ward of this process has.
        """
        folder.mkdir(parents=True)
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (folder / "records.jsonl").write_text("".join(line + "\n" for line in lines))
        labels = [] if task in ("causal-lm", "scoring", "recommendation") else sorted(NOTES)
        sha256 = weights_sha256(base)
        text = SITE.format(
            base=base, unit=unit, task=task, sha256=sha256, labels=json.dumps(labels)
        )
        if task == "scoring":
            text = text.replace("labels = []", "score_range = [0, 3]\nscore_step = 1")
        if task == "recommendation":
            text = text.replace("labels = []", 'items = "../items.csv"')
        if approves:  # studies of more labels than these wait for somebody all the same
            allowed = [*NOTES, "oncology"]
            text += standing(sha256, task=task, unit=unit, max_epsilon=40.0, labels=allowed)
        (folder / "site.toml").write_text(text)
        file = read_site(folder / "site.toml")
        begin_ledger(file)
        trusted = SiteMembership.of(file).coordinator
        trusted.parent.mkdir()
        trusted.write_text(public_hex(COORDINATOR) + "\n")
        place = AgentFolder.of(file)
        place.own.mkdir(parents=True)
        if proofs is not None and proofs.exists():  # one machine proves a study once
            shutil.copy(proofs, place.proofs)
        clock = Clock()
        _charge_time(clock, patch)
        if not proves:
            _prove_once(patch)
        ward = cls(folder, clock, cast(agent.Agent, None))
        moments = Moments(clock, ward._wait)
        ward.agent = agent.Agent(file.path, cast(Runtime, None), moments)
        return ward

    @property
    def proofs(self) -> Path:
        return AgentFolder.of(read_site(self.folder / "site.toml")).proofs

    @property
    def adapter(self) -> bytes:
        """The study's start, where the ward takes part in one; else of any other."""
        admitted = self.agent._sites.admitted
        return encode(admitted[1].workspace.whole) if admitted else b"adapter"

    def ask(self, recipe: Recipe, request: RoundRequest, seen: str = "") -> Seen:
        """Puts one question to the agent, as its coordinator does."""
        document = sent_document(recipe)
        return self.put(document, signed(request, COORDINATOR, document, to="ward", seen=seen))

    def put(
        self,
        document: str,
        request: RoundRequest | Mapping[str, object],
        kind: str = MessageType.TRAIN,
    ) -> Seen:
        """Puts a message as it is to the agent, and looks at all that comes of it."""
        said = request.fields() if isinstance(request, RoundRequest) else dict(request)
        TimedGrid(self.clock, {})  # Flower's messages want to know whose process this is
        content = RecordDict({RECORD: ConfigRecord(cast(Any, said))})
        question = Message(content, 7, kind, group_id=str(said.get("round", 0)))
        return self.carry(document, question)

    def carry(self, document: str, question: Message) -> Seen:
        """Hands one message of Flower's over."""
        question.metadata.__dict__["_message_id"] = "question"
        context = Context(1, 7, {}, RecordDict(), {"recipe": document})
        carried = Carried(question, context)
        self.waited = time.time()
        self.agent._handle(cast(FlowerTask, carried))
        assert carried.ends == [True]
        (reply,) = carried.replies
        about = reply.metadata
        # Of the moment of leaving, and no finer than a second: no work on records is in it.
        assert about.created_at == int(about.created_at) >= int(self.waited)
        flower = dict(vars(about))
        stamp = flower.pop("_created_at") - question.metadata.created_at
        flower["_ttl"] = round(flower["_ttl"] + stamp, 5)  # doubles of this size are 2·10⁻⁷ apart
        fields = RoundReply.from_fields(dict(reply.content[RECORD]))
        self.reply, trained = fields, fields.status is Status.TRAINED
        shapes = decode(fields.delta).shapes if trained else {}
        return Seen(
            (
                fields.site,
                fields.round,
                fields.status,
                len(fields.delta),
                fields.epsilon,
                len(fields.head),
                len(fields.signature),
            ),
            tuple(shapes.items()),
            (tuple(reply.content), tuple(sorted(flower.items()))),
            round(self.clock.now, 9),  # what floats add up to in other orders
        )

    def life(self, recipe: Recipe, more: Sequence[RoundRequest] = ()) -> list[Seen]:
        """A study at the ward: asked to prepare, for two rounds, again, and for what is not due."""
        study, seen = recipe.digest(), []
        seen.append(self.ask(recipe, RoundRequest(study, 0, b"", Step.PREPARE)))
        rounds = (1, 1, 2, 10**6)
        questions = [RoundRequest(study, number, self.adapter) for number in rounds]
        questions += [
            RoundRequest(study, 4, b"garbage"),
            RoundRequest("another", 4, self.adapter),
            RoundRequest(study, 4, self.adapter, Step.MASK),
            *more,
        ]
        return seen + [self.ask(recipe, question) for question in questions]

    def _wait(self, seconds: float) -> None:
        self.clock.wait(seconds)
        self.waited = time.time()


_KEPT: dict[str, Any] = {}


def _prove_once(patch: pytest.MonkeyPatch) -> None:
    """Lets sites share proofs and measured times with an equal key."""
    kept = proving.KeptProofs._kept

    def remembered(
        self: proving.KeptProofs, key: str, make: Callable[[], Any], *more: Callable[..., Any]
    ) -> Any:
        def once() -> Any:
            if key not in _KEPT:
                _KEPT[key] = make()
            return _KEPT[key]

        return kept(self, key, once, *more)

    patch.setattr(proving.KeptProofs, "_kept", remembered)


def _charge_time(clock: Clock, patch: pytest.MonkeyPatch) -> None:
    """Advances the clock by the cost of each function that touches records."""

    def timed(owner: object, name: str, cost: Callable[..., float]) -> None:
        work = getattr(owner, name)
        work = getattr(work, "untimed", work)

        def slower(*given: Any, **named: Any) -> Any:
            result = work(*given, **named)
            clock.now += cost(*given)
            return result

        slower.untimed = work  # type: ignore[attr-defined]
        patch.setattr(owner, name, slower)

    def characters(text: object) -> int:
        return sum(len(part) + 1 for part in text) if isinstance(text, list) else len(str(text))

    def rendering(template: ChatTemplate, messages: Sequence[Any], *_: Any) -> float:
        return sum(TURN + CHARACTER * len(message.content) for message in messages)

    timed(records, "read_records", lambda f: READ * f.place(f.site.data).stat().st_size)
    timed(
        PreTrainedTokenizerBase,
        "__call__",
        lambda _, *texts: CHARACTER * sum(map(characters, texts)),
    )
    timed(ChatTemplate, "render", rendering)
    # What is measured on synthetic records costs likewise; but it is kept, and so shared by wards.
    elapsed = SimpleNamespace(perf_counter=lambda: time.perf_counter() + clock.now)
    for measuring_times in (measured_times, lone_times):
        patch.setattr(measuring_times, "time", elapsed)
    measured = getattr(proving.measured_times, "untimed", proving.measured_times)

    def measuring(*given: Any) -> Any:
        before = clock.now
        try:
            return measured(*given)
        finally:
            clock.now = before

    measuring.untimed = measured  # type: ignore[attr-defined]
    patch.setattr(proving, "measured_times", measuring)
    # A round, and the step that its period is measured on.
    for trains in (site_round, measured_times):
        timed(
            trains,
            "local_update",
            lambda network, task, units, *_: (
                TRAIN * sum(len(example.input_ids) for unit in units for example in unit) / 10
            ),
        )
