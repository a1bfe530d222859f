"""A site as a thread: Flower's own SuperNode connection, and answers that a coordinator counts.

It connects, polls, fetches and pushes by the functions that a SuperNode uses, with a node's key of
its own, and signs each answer with a ledger's key of its own. It has no records and no ledger: its
update is drawn once, and its heads are hashes of its name and the round. So it costs next to
nothing, and what is measured is the coordinator.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import (
    inflate_object_from_contents,
    pull_objects,
)
from flwr.supercore.run import RunNotRunningException
from flwr.supernode.fleet_http_connection import http_request_response

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, encode
from cloister.deployment.enrolment.documents import JoinRequest
from cloister.deployment.enrolment.node_key import public_pem
from cloister.ledger.signing import public_hex
from cloister.protocol.exchange import RECORD, RoundReply, RoundRequest, Status, Step

# Seconds between polls without a question: as in Flower's `start_client_internal`.
POLL = 3.0
# What a site says of its ε; no accountant is asked.
EPSILON = 8.0
# A SuperNode's id and seven calls (`http_request_response`).
Connection: TypeAlias = tuple[Any, ...]
log = logging.getLogger(__name__)
ANSWERS = {Step.PREPARE: Status.READY, Step.TRAIN: Status.TRAINED}


@dataclass
class ThreadedSite:
    """One site.

    Attributes:
        name: Its name.
        norm: Norm of its update; below the study's bound.
        node: The key with which its SuperNode connection identifies itself.
        ledger: The key with which it signs answers.
        answered: Number of the questions that it answered.
        connected: Set once it is connected.
    """

    name: str
    norm: float
    node: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP384R1())
    )
    ledger: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    answered: int = 0
    connected: threading.Event = field(default_factory=threading.Event)

    @cached_property
    def _seed(self) -> int:
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8], "big")

    def join_request(self, token: str, public_records: int) -> JoinRequest:
        """Returns the request that a coordinator approves."""
        return JoinRequest(
            site=self.name,
            token=token,
            node_key=public_pem(self.node),
            ledger_key=public_hex(self.ledger),
            public_records=public_records,
        )

    def serve(self, address: str, authority: bytes, stopped: threading.Event) -> None:
        """Connects and answers questions until it is stopped.

        Args:
            address: The gate's, HOST:PORT.
            authority: The coordinator's authority, in PEM.
            stopped: Set by the caller at the end.
        """
        keys = (self.node, self.node.public_key())
        known: set[int] = set()
        while not stopped.is_set():
            # Flower ends a connection whose TLS failed; an agent then starts its SuperNode again.
            with http_request_response(address, False, authority, keys) as connection:
                self.connected.set()
                while not stopped.is_set():
                    try:
                        if not self._answer_next(connection, known):
                            stopped.wait(POLL)
                    except RunNotRunningException:  # a SuperNode drops the question, too
                        continue
            stopped.wait(POLL)

    def _answer_next(self, connection: Connection, known: set[int]) -> bool:
        """Fetches a question and sends the answer; returns whether there was one.

        Args:
            connection: A SuperNode's.
            known: The runs of which it had a question before; a new one is added.

        Raises:
            RunNotRunningException: The run ended meanwhile.
        """
        _, receive, send, get_run, get_fab, pull, push, confirm = connection
        received = receive()
        if received is None:
            return False
        question, tree = received
        run, name = question.metadata.run_id, question.metadata.message_id
        if run not in known:  # as a SuperNode does at a run's first question
            get_fab(get_run(run).fab_hash, run)
            known.add(run)
        ids = list(dict.fromkeys(node.object_id for node in iterate_object_tree(tree)))
        contents = pull_objects(ids, lambda object_id: pull(run, object_id))
        confirm(run, name)
        whole = inflate_object_from_contents(name, contents)
        assert isinstance(whole, Message)
        reply, replied, parts = _packed(self.answer(whole), question)
        try:
            wanted, session = send(reply, replied, 0.0)
            for object_id in wanted:
                push(run, session, object_id, parts[object_id])
        except RunNotRunningException:
            raise
        except Exception as error:  # a SuperNode drops the reply, too, and is asked once more
            log.warning("%s: a reply was not taken: %s", self.name, error)
            return True
        self.answered += 1
        return True

    def answer(self, question: Message) -> RoundReply:
        """Returns the signed answer to a question: `ready`, an update, or `refused`."""
        request = RoundRequest.from_fields(dict(question.content[RECORD]))
        status = ANSWERS.get(request.step, Status.REFUSED)
        trained = status is Status.TRAINED
        reply = RoundReply(
            site=self.name,
            round=request.round,
            status=status,
            delta=encode(self._update(request.adapter)) if trained else b"",
            epsilon=EPSILON,
            head=_head(self.name, request.round) if trained else "",
        )
        return replace(reply, signature=self.ledger.sign(reply.statement(request.study)))

    def _update(self, adapter: bytes) -> Adapter:
        """An update of the site's norm, the same in each round."""
        rng = np.random.default_rng(self._seed)
        like = decode(adapter)
        drawn = Adapter(
            {
                name: rng.standard_normal(shape).astype(np.float32)
                for name, shape in like.shapes.items()
            }
        )
        return drawn.scale(self.norm / drawn.norm())


def _head(site: str, number: int) -> str:
    return hashlib.sha256(f"{site} {number}".encode()).hexdigest()


def _packed(reply: RoundReply, question: Message) -> tuple[Message, ObjectTree, dict[str, bytes]]:
    """A reply as Flower sends it: the message, the tree of its objects, and their bytes."""
    message = Message(
        RecordDict({RECORD: ConfigRecord(reply.fields())}),
        reply_to=question,
    )
    with no_object_id_recompute():
        message.metadata.__dict__["_message_id"] = message.object_id
        parts = {name: one.deflate() for name, one in get_all_nested_objects(message).items()}
        return message, get_object_tree(message), parts
