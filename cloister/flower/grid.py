"""Flower's Grid over the SuperLink's Runtime API, for a task that this process claimed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from flwr.app import Message
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, Metadata
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    pull_objects,
)
from flwr.supercore.run import Run
from flwr.superlink.grid.http_grid import HttpGrid

from cloister.errors import NetworkError
from cloister.flower.pulling import not_there, read_pulled
from cloister.flower.tasks import SERVER_PATIENCE, Runtime, Task, connect, patient_invoker

log = logging.getLogger(__name__)


class StudyGrid(HttpGrid):
    """Flower's Grid, where a push that breaks off is one that was not taken."""

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Pushes messages; an empty id for each that the SuperLink did not take.

        Raises:
            NetworkError: The messages are larger than the SuperLink takes.
        """
        pushed = list(messages)
        try:
            ids = [message_id or "" for message_id in super().push_messages(pushed)]
        except ObjectPushError:  # a SuperLink that was started anew does not know the session
            log.warning("the SuperLink did not take %d messages", len(pushed))
            return [""] * len(pushed)
        if len(ids) != len(pushed):
            raise NetworkError("the SuperLink takes no messages of this size; see its log")
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Takes the replies to these messages, as far as they are there.

        Each is read by itself: one that is no message costs none of the others.
        """
        assert self._run is not None
        answered = self._runtime_client.PullMessages(
            PullAppMessagesRequest(message_ids=message_ids)
        )
        pull = make_pull_object_fn_protobuf(
            pull_object_protobuf=self._runtime_client.PullObject,
            node=self.node,
            run_id=self._run.run_id,
        )
        trees = answered.message_object_trees
        return [
            self._pulled(one.metadata, [part.object_id for part in iterate_object_tree(tree)], pull)
            for one, tree in zip(answered.messages_list, trees, strict=True)
        ]

    def _pulled(
        self, metadata: Metadata, objects: list[str], pull: Callable[[str], bytes]
    ) -> Message:
        try:
            contents = pull_objects(object_ids=objects, pull_object_fn=pull)
        except ObjectPullError:
            return not_there(metadata)
        self._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self.node,
                run_id=metadata.run_id,
                message_object_id=metadata.message_id,
            )
        )
        return read_pulled(metadata, contents)


def grid_of(runtime: Runtime, task: Task, run: Run) -> StudyGrid:
    """The Grid of a run; its calls raise NetworkError once the run is no longer ours.

    Args:
        runtime: The SuperLink's.
        task: The run's, claimed.
        run: The run.
    """
    grid = StudyGrid(
        runtime.address,
        insecure=runtime.authority is None,
        root_certificates=runtime.authority,
        token=task.token,
    )
    # Its own invoker interrupts the whole process where the SuperLink does not know the task.
    grid._retry_invoker = patient_invoker()
    grid._client = connect(runtime, task.token)
    grid._client.patience = SERVER_PATIENCE
    grid.set_run(run)
    return grid
