"""An attacker on the coordinator's machine who puts rounds of their own into its SuperLink.

The attacker has everything that Flower requires (the socket and the executor's secret), but not the
coordinator's key.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from cloister.adapter.wire import encode
from cloister.deployment.coordinator.pushed import PushedMarks
from cloister.deployment.flower.control import Control
from cloister.deployment.flower.flower_tasks import SERVER_TASK, Executor, FlowerTask, Runtime
from cloister.deployment.flower.grid import grid_of
from cloister.deployment.flower.replies_on_arrival import Arrivals
from cloister.protocol.exchange import RECORD, RoundReply, RoundRequest
from cloister.recipe import Recipe
from cloister.training.workspace import open_workspace
from tests.support.federation import PATIENCE, Federation, wait_for

# Seconds before a question without an answer is asked again: longer than a SuperNode takes to start
# beside eight busy processes, as a question that is asked twice may outlive the intruder's run; and
# before one that Flower did not take, as its site was not connected.
AGAIN, SOON = 120.0, 1.0


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
        # Marked as the executor does, or the gate holds the sites' polls for a minute.
        grid = grid_of(runtime, task, flower_run, PushedMarks(made.server.pushed))
        grid._arrivals = Arrivals(PATIENCE, time.monotonic)  # however slow the sites are here
        yield grid
        task.finish(succeeded=True)
        grid._client.close()
        claiming._client.close()
    finally:
        os.kill(executor, signal.SIGCONT)


def answers(grid: Grid, nodes: Sequence[int], request: RoundRequest) -> list[RoundReply]:
    """What these sites say, each asked the same; whose question was lost is asked once more.

    A SuperNode that starts again, as with its agent, forgets the question that it had fetched.
    """
    content = RecordDict({RECORD: ConfigRecord(request.fields())})
    asked, came = dict[str, int](), dict[int, Message]()
    due = dict.fromkeys(nodes, 0.0)

    def look() -> bool:
        now = time.monotonic()
        late = [node for node in nodes if node not in came and due[node] <= now]
        messages = [
            Message(content, node, MessageType.TRAIN, group_id=str(request.round)) for node in late
        ]
        for node, name in zip(late, grid.push_messages(messages), strict=True):
            asked.update({name: node} if name else {})
            due[node] = now + (AGAIN if name else SOON)
        for message in grid.pull_messages(asked):
            if message.has_content():  # else the question was asked about again too soon
                came.setdefault(asked.pop(message.metadata.reply_to_message_id), message)
        return len(came) == len(nodes)

    wait_for("every answer", look)
    return [RoundReply.from_fields(dict(message.content[RECORD])) for message in came.values()]


def adapter_of(made: Federation) -> bytes:
    """What a study of this base starts from: anybody with the recipe can make it."""
    recipe: Recipe = made.recipe(1)
    workspace = open_workspace(
        recipe.model, recipe.lora, recipe.task, recipe.task.labels, recipe.study.seed
    )
    return encode(workspace.whole)
