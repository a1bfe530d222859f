"""An agent counts what it answered and what came along since it started, and begins anew then."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from flwr.app import Context, Message, MessageType, RecordDict

from cloister.deployment.flower.control import empty_bundle
from cloister.deployment.flower.flower_tasks import FlowerTask, Runtime
from cloister.deployment.site.agent import Agent
from cloister.deployment.site.agent_folder import AgentFolder
from tests.support.clock import TimedGrid
from tests.support.models import tiny_bert
from tests.support.neighbours import notes
from tests.support.wards import Carried, Ward

FOREIGN = b"code that comes along"


@dataclass
class Bundled(Carried):
    """A task with a bundle."""

    bundle: bytes = b""

    def message(self) -> tuple[Message, Context, bytes]:
        return self.question, self.context, self.bundle


def asks(agent: Agent, ward: Ward, bundle: bytes) -> None:
    """Somebody who is not the coordinator asks, and sends a bundle along."""
    TimedGrid(ward.clock, {})  # Flower's messages want to know whose process this is
    question = Message(RecordDict(), 7, MessageType.TRAIN, group_id="1")
    question.metadata.__dict__["_message_id"] = "question"
    task = Bundled(question, Context(1, 7, {}, RecordDict(), {"recipe": ""}), bundle=bundle)
    agent._handle(cast(FlowerTask, task))
    assert task.ends == [True]


def counted(folder: AgentFolder) -> list[object]:
    return [folder.activity()[what] for what in ("doing", "answered", "bundles", "strangers")]


def test_what_an_agent_counts_is_since_it_started_and_its_log_names_each_foreign_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ward = Ward.open(tmp_path / "ward", notes(), tiny_bert(tmp_path / "base"), monkeypatch)
    first, folder = ward.agent, ward.agent._folder
    for bundle in (empty_bundle(), FOREIGN, FOREIGN):
        asks(first, ward, bundle)
    assert counted(folder) == ["waiting", 3, 2, 3]
    assert caplog.text.count(hashlib.sha256(FOREIGN).hexdigest()) == 2
    assert hashlib.sha256(empty_bundle()).hexdigest() not in caplog.text
    again = Agent(first.path, cast(Runtime, None), first.moments)
    asks(again, ward, FOREIGN)
    assert counted(folder) == ["waiting", 1, 1, 1]
