"""Flower's state of a SuperLink in SQLite, with fewer writes for each call of a site.

Flower's `SqlLinkState` keeps everything that must outlive a killed SuperLink, and so does this one:
nodes, runs, messages and their objects are in its file before a call is answered. It differs where
many sites made it slow (as with Flower's, SQLite writes before an answer and syncs at its own
checkpoints: after a power cut the last seconds may be missing, and sites are asked again):

    Flower                                            here
    each call takes SQLite's one write lock two or    calls take turns in this process, so none
    three times, and fails after 5 s without it       polls for the lock or fails
    each call ends overdue tasks                      once a second
    each call adds its bytes to its run's sums        once a second; a kill loses the last second's
    each look for replies checks every open question  replies at each look, all of a run every 5 s
    deleted objects and polls search whole tables     they use indexes

Tested against Flower 1.41 (`tests/deployment/flower/test_link_state.py`).
"""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flwr.app import Message
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.supercore.sql_mixin import SqlMixin
from flwr.supercore.state.schema.linkstate_models import MessageRes, Run
from flwr.supercore.utils import uint64_to_int64
from flwr.superlink.federation import FederationManager
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from cloister.deployment.flower import INSTALL_TESTED
from cloister.errors import UsageError

# Seconds between two looks for overdue tasks, which Flower gives up after 60 s without a heartbeat,
# and between two writes of the sums.
TICK = 1.0
# Seconds between two checks of all open questions of a run: whether one expired, or its node is
# gone, which Flower notices after 60 s.
CHECK = 5.0
# Indexes for the keys by which Flower deletes objects (a foreign key's other side) and finds a
# node's question.
INDEXES = {
    "run_objects": "object_id",
    "object_children": "child_id",
    "message_ins": "dst_node_id",
}


@dataclass
class _Moved:
    """What a run's calls moved: bytes to and from sites, and the sites' seconds."""

    sent: int = 0
    received: int = 0
    seconds: float = 0.0


class _InTurn(SqlMixin):
    """Lets one transaction of this process at a time use the database.

    Attributes:
        turn: Held during a transaction; states of one database share it.
    """

    turn: threading.RLock

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction, at its turn; one within another is part of that one."""
        with self.turn, super().session() as session:
            yield session


class ObjectStoreInTurn(_InTurn, SqlObjectStore):
    """Flower's objects.

    Args:
        database: Path of the database.
        turn: Shared with the state of the same database.
    """

    def __init__(self, database: str, turn: threading.RLock) -> None:
        super().__init__(database)
        self.turn = turn


class StudyLinkState(_InTurn, SqlLinkState):
    """Flower's nodes, runs and messages.

    Args:
        database: Path of the database.
        federation: Flower's manager of federations.
        objects: The objects in the same database.
        clock: Returns seconds of a monotonic clock.
    """

    def __init__(
        self,
        database: str,
        federation: FederationManager,
        objects: ObjectStoreInTurn,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(database, federation, objects)
        self.turn = objects.turn
        self._clock = clock
        self._ticked = -math.inf
        self._checked: defaultdict[int, float] = defaultdict(lambda: -math.inf)  # by run
        self._moved: defaultdict[int, _Moved] = defaultdict(_Moved)

    def initialize(self, log_queries: bool = False, **engine_kwargs: Any) -> list[str]:
        """Opens the database, and adds the indexes."""
        tables = super().initialize(log_queries, **engine_kwargs)
        with self.session() as session:
            for table, column in INDEXES.items():
                named = f"cloister_{table}_{column}"
                session.execute(text(f"CREATE INDEX IF NOT EXISTS {named} ON {table} ({column})"))
        return tables

    def _cleanup_expired_task_tokens(self) -> None:
        """Ends overdue tasks and writes the sums; at most once in `TICK` seconds.

        Flower calls it before whatever reads a task's or run's state.
        """
        with self.turn:
            if self._clock() - self._ticked < TICK:
                return
            self._ticked = self._clock()
            super()._cleanup_expired_task_tokens()
            self.write_sums()

    def write_sums(self) -> None:
        """Adds to each run what its calls moved since the last time."""
        with self.session() as session:
            for run, moved in self._moved.items():
                session.execute(
                    update(Run)
                    .where(Run.run_id == uint64_to_int64(run))
                    .values(
                        bytes_sent=Run.bytes_sent + moved.sent,
                        bytes_recv=Run.bytes_recv + moved.received,
                        clientapp_runtime=Run.clientapp_runtime + moved.seconds,
                    )
                )
            self._moved.clear()

    def store_traffic(self, run_id: int, *, bytes_sent: int, bytes_recv: int) -> None:
        """Counts a call's bytes, which are written with the next tick."""
        with self.turn:
            self._moved[run_id].sent += bytes_sent
            self._moved[run_id].received += bytes_recv

    def add_clientapp_runtime(self, run_id: int, runtime: float) -> None:
        """Counts a task's seconds, which are written with the next tick."""
        with self.turn:
            self._moved[run_id].seconds += runtime

    def get_message_res(self, message_ids: set[str], run_id: int) -> list[Message]:
        """Replies to a run's questions; errors for questions that have none any more come at the
        run's next check of all."""
        with self.turn:
            if self._clock() - self._checked[run_id] < CHECK:
                message_ids = message_ids & self._replied(run_id)
            else:
                self._checked[run_id] = self._clock()
            return super().get_message_res(message_ids, run_id) if message_ids else []

    def _replied(self, run_id: int) -> set[str]:
        """Ids of a run's questions whose replies nobody has fetched."""
        replies = select(MessageRes.reply_to_message_id).where(
            MessageRes.run_id == uint64_to_int64(run_id), MessageRes.delivered_at == ""
        )
        with self.session() as session:
            return {str(question) for question in session.scalars(replies)}


def in_turn(factory: LinkStateFactory) -> StudyLinkState:
    """Makes a SuperLink use this state from now on, in place of Flower's for the same database.

    Args:
        factory: The SuperLink's; its application asks it for the state at each call.

    Raises:
        UsageError: The factory is not as in Flower 1.41, and goes on with a state of its own.
    """
    objects = ObjectStoreInTurn(factory.database, threading.RLock())
    objects.initialize()
    state = StudyLinkState(factory.database, factory.federation_manager, objects)
    state.initialize()
    factory.objectstore_factory.store_instance = objects
    factory.state_instance = state
    if factory.state() is not state or factory.objectstore_factory.store() is not objects:
        raise UsageError(
            f"this Flower's SuperLink goes on with a state of its own; {INSTALL_TESTED}"
        )
    return state
