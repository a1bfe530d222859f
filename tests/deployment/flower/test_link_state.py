"""Flower's state with fewer writes keeps what Flower's own keeps, and is as good."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flwr.common.constant import Status
from sqlalchemy import event, text

from cloister.deployment.flower.link_state import CHECK, INDEXES, TICK, StudyLinkState
from tests.support.clock import Clock
from tests.support.superlinks import answered, asked, node, run, study_state

# Alembic about Flower's own settings.
pytestmark = pytest.mark.filterwarnings("ignore:No path_separator:DeprecationWarning")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database: Flower's migrations take a second."""
    path = tmp_path_factory.mktemp("link") / "superlink.db"
    study_state(path, Clock())
    return path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(empty: Path, clock: Clock, tmp_path: Path) -> StudyLinkState:
    path = tmp_path / "superlink.db"
    for part in empty.parent.iterdir():
        (tmp_path / part.name).write_bytes(part.read_bytes())
    return study_state(path, clock)


@contextmanager
def statements(state: StudyLinkState) -> Iterator[list[str]]:
    """The first words of what is said to the database meanwhile."""
    said: list[str] = []

    def note(_a: object, _b: object, statement: str, *_: object) -> None:
        said.append(" ".join(statement.split()[:2]).lower())

    event.listen(state._engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        event.remove(state._engine, "before_cursor_execute", note)


def test_a_look_at_a_run_writes_nothing_within_a_second(
    state: StudyLinkState, clock: Clock
) -> None:
    made, _ = run(state)
    state.get_run_status({made})
    with statements(state) as said:
        assert state.get_run_status({made})[made].status == Status.RUNNING
    assert said
    assert not any(one.startswith("update") for one in said)
    clock.now += TICK
    with statements(state) as said:
        state.get_run_status({made})
    assert "update task" in said


def test_an_overdue_task_is_still_ended(
    state: StudyLinkState, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, token = run(state)
    with state.session() as session:
        session.execute(text("UPDATE task SET active_until = '2026-01-01 00:00:00.000000'"))
    assert state.get_task_by_token(token) is None  # whatever the clock says
    clock.now += TICK
    found = state.get_run_status({made})[made]
    assert (found.status, found.sub_status) == (Status.FINISHED, "failed")


def test_what_calls_moved_is_added_to_their_run(state: StudyLinkState, clock: Clock) -> None:
    made, _ = run(state)
    for _ in range(3):
        state.store_traffic(made, bytes_sent=10, bytes_recv=4)
    state.store_traffic(made, bytes_sent=0, bytes_recv=5)
    state.add_clientapp_runtime(made, 1.5)
    for _ in range(2):  # written once
        clock.now += TICK
        (found,) = state.get_run_info(run_ids=[made])
        assert (found.bytes_sent, found.bytes_recv, found.clientapp_runtime) == (30, 17, 1.5)


def test_a_reply_is_found_at_the_next_look_and_given_once(
    state: StudyLinkState, clock: Clock
) -> None:
    made, _ = run(state)
    nodes = [node(state, key) for key in (b"a", b"b")]
    first, second = (asked(state, made, one) for one in nodes)
    assert state.get_message_res({first, second}, made) == []
    answered(state, made, nodes[0], first)
    (reply,) = state.get_message_res({first, second}, made)
    assert reply.metadata.reply_to_message_id == first
    assert state.get_message_res({second}, made) == []


def test_only_replies_to_the_questions_that_are_named_are_given(state: StudyLinkState) -> None:
    made, _ = run(state)
    nodes = [node(state, key) for key in (b"a", b"b")]
    first, second = (asked(state, made, one) for one in nodes)
    for one, question in zip(nodes, (first, second), strict=True):
        answered(state, made, one, question)
    state.get_message_res({second}, made)
    other, _ = run(state)
    with pytest.raises(ValueError, match="invalid IDs"):  # Flower's check, at a run's first look
        state.get_message_res({first}, other)
    assert state.get_message_res({first}, other) == []
    assert len(state.get_message_res({first}, made)) == 1


def test_a_question_whose_node_is_gone_is_told_at_the_next_check(
    state: StudyLinkState, clock: Clock
) -> None:
    made, _ = run(state)
    gone = node(state, b"a")
    question = asked(state, made, gone)
    assert state.get_message_res({question}, made) == []
    with state.session() as session:
        session.execute(text("UPDATE node SET online_until = 1"))
    assert state.get_message_res({question}, made) == []
    clock.now += CHECK
    (told,) = state.get_message_res({question}, made)
    assert told.has_error()


def test_a_check_of_one_run_puts_off_no_other_run_s(state: StudyLinkState, clock: Clock) -> None:
    (one, _), (two, _) = run(state), run(state)
    question = asked(state, two, node(state, b"a"))
    assert state.get_message_res({question}, two) == []
    with state.session() as session:
        session.execute(text("UPDATE node SET online_until = 1"))
    clock.now += CHECK
    assert state.get_message_res({asked(state, one, node(state, b"b"))}, one) == []
    (told,) = state.get_message_res({question}, two)
    assert told.has_error()


def test_what_was_stored_outlives_a_kill(state: StudyLinkState, tmp_path: Path) -> None:
    """Another SuperLink opens the files as they are, with nothing closed or flushed."""
    made, token = run(state)
    asker = node(state, b"a")
    question = asked(state, made, asker)
    answered(state, made, asker, question)
    again = study_state(tmp_path / "superlink.db", Clock())
    assert again.get_task_by_token(token) is not None
    assert again.get_node_id_by_public_key(b"a") == asker
    assert len(again.get_message_res({question}, made)) == 1


def test_one_transaction_at_a_time_uses_the_database(state: StudyLinkState) -> None:
    """So none waits for SQLite's lock, which fails after 5 s."""
    entered = threading.Event()

    def other() -> None:
        with state.object_store.session():  # type: ignore[attr-defined]
            entered.set()

    thread = threading.Thread(target=other)
    with state.session() as session:
        session.execute(text("UPDATE node SET name = 'x'"))
        thread.start()
        with state.object_store.session() as inner:  # type: ignore[attr-defined]
            assert inner is session  # Flower's way: one transaction of both
        assert not entered.wait(0.05)
    thread.join()
    assert entered.is_set()


def test_what_many_threads_store_is_all_there(state: StudyLinkState) -> None:
    made, _ = run(state)
    nodes = [node(state, bytes([number])) for number in range(8)]
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda one=one: found.append(asked(state, made, one)))
        for one in nodes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == len(nodes) == state.num_message_ins()


@pytest.mark.parametrize(("table", "column"), INDEXES.items())
def test_flower_s_searches_use_the_indexes(state: StudyLinkState, table: str, column: str) -> None:
    search = text(f"EXPLAIN QUERY PLAN SELECT 1 FROM {table} WHERE {column} = 1")
    with state.session() as session:
        plan = " ".join(str(row) for row in session.execute(search))
    assert f"cloister_{table}_{column}" in plan
