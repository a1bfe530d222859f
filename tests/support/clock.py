"""A clock that advances when somebody waits, and a Grid whose sites answer at given times."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from cloister.protocol.exchange import RECORD, RoundReply, Status


@dataclass
class Clock:
    """Seconds from 0; `wait` advances them."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        assert seconds > 0  # or the test would never end
        self.now += seconds


Answer = Callable[[int], tuple[float, bool] | None]


@dataclass
class TimedGrid(Grid):
    """Answers each question of a node after some seconds.

    Attributes:
        clock: The time.
        answers: By node: for its how many-th question, from 0, after how many seconds and whether
            with content; None: never.
        refuses: Nodes whose messages Flower does not take now.
    """

    clock: Clock
    answers: Mapping[int, Answer]
    refuses: Callable[[float], set[int]] = lambda now: set()
    asked: list[tuple[float, int]] = field(default_factory=list)
    extra: list[Message] = field(default_factory=list)
    _due: dict[str, tuple[float, Message]] = field(default_factory=dict)
    _count: "itertools.count[int]" = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1

    def set_run(self, run: Run) -> None:
        pass

    @property
    def run(self) -> Run:
        return Run.create_empty(1)

    def get_node_ids(self) -> Iterable[int]:
        return self.answers

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        raise NotImplementedError

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        pushed = []
        for message in messages:
            node = message.metadata.dst_node_id
            name = f"message {next(self._count)}"
            message.metadata.__dict__["_message_id"] = name
            so_far = sum(one == node for _, one in self.asked)
            self.asked.append((self.clock.now, node))
            answer = self.answers[node](so_far)
            if node in self.refuses(self.clock.now):
                pushed.append("")
                continue
            if answer is not None:
                after, with_content = answer
                self._due[name] = (self.clock.now + after, reply_to(message, node, with_content))
            pushed.append(name)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        found, self.extra = self.extra, []
        for name in list(message_ids):
            if name in self._due and self._due[name][0] <= self.clock.now:
                found.append(self._due.pop(name)[1])
        return found


def reply_to(message: Message, node: int, with_content: bool = True) -> Message:
    """Returns a node's answer to a message, or Flower's error."""
    if not with_content:
        return Message(Error(8, "gone"), reply_to=message)
    fields = RoundReply(f"site {node}", 1, Status.FAILED, b"", 0.0, "").fields()
    return Message(RecordDict({RECORD: ConfigRecord(fields)}), reply_to=message)
