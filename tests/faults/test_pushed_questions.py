"""Somebody at the coordinator's machine puts rounds into the SuperLink: the site refuses them.

Real processes on loopback. The intruder has all that Flower asks for, the socket and even
the executor's secret; what it lacks is the coordinator's key.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from cloister.adapter.wire import encode
from cloister.deployment.coordinator.journal import RunStatus
from cloister.deployment.flower.control import Control
from cloister.deployment.flower.grid import grid_of
from cloister.deployment.flower.tasks import SERVER_TASK, Executor, FlowerTask, Runtime
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.ledger.storage import LedgerFile
from cloister.protocol.exchange import RECORD, RoundReply, RoundRequest, Status, Step
from cloister.protocol.signed_questions import signed
from cloister.recipe import sent_document
from tests.support.federation import Federation, check_history, federation, wait_for


@contextmanager
def intruder(made: Federation, document: str) -> Iterator[Grid]:
    """A run of somebody's own in the SuperLink; the coordinator's executor does not see it."""
    executor = made.child("server", "executor")
    assert executor is not None
    os.kill(executor, signal.SIGSTOP)
    try:
        control = Control(made.server.superlink)
        control.start({"run": "first", "recipe": document})
        control.close()
        runtime = Runtime(made.server.superlink, made.server.secret.read_bytes())
        claiming, claimed = Executor(runtime, SERVER_TASK), list[FlowerTask]()

        def claim() -> bool:
            task = claiming.claim()
            claimed.extend([] if task is None else [task])
            return bool(claimed)

        wait_for("the intruder's run", claim)
        (task,) = claimed
        flower_run, _ = task.run()
        grid = grid_of(runtime, task, flower_run)
        yield grid
        task.finish(succeeded=True)
        grid._client.close()
        claiming._client.close()
    finally:
        os.kill(executor, signal.SIGCONT)


def answer(grid: Grid, request: RoundRequest) -> RoundReply:
    """What the one site says."""
    (node,) = grid.get_node_ids()
    content = RecordDict({RECORD: ConfigRecord(request.fields())})
    message = Message(content, node, MessageType.TRAIN, group_id=str(request.round))
    pushed, came = list(grid.push_messages([message])), list[Message]()

    def look() -> bool:
        came.extend(grid.pull_messages(pushed))
        return bool(came)

    wait_for("an answer", look)
    return RoundReply.from_fields(dict(came[0].content[RECORD]))


def test_a_round_that_somebody_pushes_into_the_superlink_is_refused_and_not_charged(
    tmp_path: Path,
) -> None:
    with federation(tmp_path, ("east",), epsilon="40.0", noise=0.8) as made:
        made.start("server")
        made.start("east")
        made.submit("first", 1, "federation.min_sites=1")
        assert made.wait_ended("first") is RunStatus.FINISHED
        file = made.sites["east"]
        before = file.ledger.read_bytes()
        recipe = made.recipe(3, "federation.min_sites=1", "study.name=pushed")
        document, study = sent_document(recipe), recipe.digest()
        first = made.recipe(1, "federation.min_sites=1")
        stranger = Ed25519PrivateKey.generate()
        train = RoundRequest(study, 1, adapter_of(made))
        prepare = RoundRequest(study, 0, b"", Step.PREPARE)
        with intruder(made, document) as grid:
            for question in (
                prepare,
                train,
                signed(prepare, stranger, document, to="east", seen=""),
                signed(train, stranger, document, to="east", seen=""),
                replace(train, study=first.digest(), round=2),
            ):
                reply = answer(grid, question)
                assert (reply.site, reply.status, reply.delta) == ("", Status.REFUSED, b"")
        assert file.ledger.read_bytes() == before
        noted = [row["why"] for row in AgentFolder.of(file).refusals()]
        assert len(noted) == 5
        assert sum("did not sign as it came" in why for why in noted) == 2
        assert sum("this site is east" in why for why in noted) == 3
        # The coordinator's own rounds go on.
        made.submit("second", 1, "federation.min_sites=1", "study.name=second")
        assert made.wait_ended("second") is RunStatus.FINISHED
        assert check_history(made, "first", "second")["counted"] == 2
        assert len(LedgerFile(file.ledger).entries()) == 5


def adapter_of(made: Federation) -> bytes:
    """What a study of this base starts from: anybody with the recipe can make it."""
    from cloister.recipe import Recipe
    from cloister.training.workspace import open_workspace

    recipe: Recipe = made.recipe(1)
    workspace = open_workspace(
        recipe.model, recipe.lora, recipe.task, recipe.task.labels, recipe.study.seed
    )
    return encode(workspace.whole)


@pytest.mark.nightly
def test_a_restored_copy_of_a_site_is_refused_its_rounds_by_a_coordinator_started_anew(
    tmp_path: Path,
) -> None:
    """What the coordinator remembers outlives its restart, and holds in another study."""
    with federation(tmp_path, ("east",), epsilon="40.0", noise=0.8) as made:
        file = made.sites["east"]
        folder, before = file.path.parent, tmp_path / "before"
        shutil.copytree(folder, before)
        made.start("server")
        made.start("east")
        made.submit("first", 1, "federation.min_sites=1")
        assert made.wait_ended("first") is RunStatus.FINISHED
        assert (made.end("server"), made.end("east")) == (0, 0)
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        made.start("server")
        made.start("east")
        made.submit("second", 1, "federation.min_sites=1", "study.name=second")
        assert made.wait_ended("second") is RunStatus.FAILED
        assert "restore the newest backup" in AgentFolder.of(file).refusals()[-1]["why"]
        assert len(LedgerFile(file.ledger).entries()) == 1
