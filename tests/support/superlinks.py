"""A SuperLink's state without a process, with a node, a run and questions."""

from collections.abc import Callable
from pathlib import Path
from threading import RLock

from flwr.app import Message, RecordDict
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.date import now
from flwr.superlink.federation import NoOpFederationManager

from cloister.deployment.flower.link_state import ObjectStoreInTurn, StudyLinkState


def study_state(database: Path, clock: Callable[[], float]) -> StudyLinkState:
    """The state of a SuperLink that has just started."""
    objects = ObjectStoreInTurn(str(database), RLock())
    objects.initialize()
    state = StudyLinkState(str(database), NoOpFederationManager(), objects, clock)
    state.initialize()
    return state


def node(state: StudyLinkState, key: bytes) -> int:
    """A connected node with a key in PEM."""
    made = state.create_node("noop", "noop", key, 30)
    assert state.activate_node(made, 30)
    return made


def run(state: StudyLinkState) -> tuple[int, str]:
    """A run that an executor has begun, and its token."""
    made = state.create_run("", "", "", {}, NOOP_FEDERATION_ID, None, "noop", TaskType.SERVER_APP)
    (found,) = state.get_run_info(run_ids=[made])
    assert found.primary_task_id is not None
    token = state.claim_task(found.primary_task_id)
    assert token is not None
    assert state.activate_task(found.primary_task_id)
    return made, token


def message(run_id: int, source: int, to: int, *, answers: str = "", ttl: float = 3600) -> Message:
    """A question of a run, or the reply to one."""
    metadata = Metadata(
        run_id=run_id,
        message_id="",
        src_node_id=source,
        dst_node_id=to,
        reply_to_message_id=answers,
        group_id="1",
        created_at=now().timestamp(),
        ttl=ttl,
        message_type="train",
    )
    made = make_message(metadata=metadata, content=RecordDict())
    made.metadata.__dict__["_message_id"] = made.object_id
    return made


def asked(state: StudyLinkState, run_id: int, to: int) -> str:
    """Stores a question to a node; returns its id."""
    made = state.store_message_ins(message(run_id, SUPERLINK_NODE_ID, to))
    assert made is not None
    return made


def answered(state: StudyLinkState, run_id: int, node_id: int, question: str) -> None:
    """Stores a node's reply to a question."""
    reply = message(run_id, node_id, SUPERLINK_NODE_ID, answers=question, ttl=60)
    assert state.store_message_res(reply) is not None
