"""Sites as threads: their answers count, and a coordinator serves several over its gate."""

import os
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from benchmarks.connected_sites import Watch, cpu_seconds, is_whole, measured, spent
from benchmarks.threaded_site import ThreadedSite, _packed
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.ledger.signing import public_hex
from cloister.protocol.exchange import RECORD, RoundReply, RoundRequest, Status, Step
from cloister.server.replies import Awaited, ReplyTerms, read_replies, update_reader
from tests.support.clock import Clock, TimedGrid

ADAPTER = Adapter({"w": np.ones((3, 2), np.float32)})
TRAIN = RoundRequest("d", 1, encode(ADAPTER), to="ward")


@pytest.fixture(autouse=True)
def _named() -> None:
    TimedGrid(Clock(), {})  # Flower's messages want to know whose process this is


def message(content: RoundRequest | RoundReply) -> Message:
    record = RecordDict({RECORD: ConfigRecord(content.fields())})
    return Message(record, dst_node_id=7, message_type=MessageType.TRAIN)


def test_an_update_of_a_threaded_site_counts() -> None:
    site = ThreadedSite("ward", 0.5)
    terms = ReplyTerms("d", ("ward",), {"ward": public_hex(site.ledger)})
    read = update_reader(1.0, "float32", lambda name: [ADAPTER.shapes])
    taken: list[float] = []
    answers = [("ward", message(site.answer(message(TRAIN))))]
    replies = read_replies(answers, terms, 1, read, lambda name, it: taken.append(it.norm()))
    assert replies.counted == ["ward"]
    assert taken == [pytest.approx(0.5)]
    # The same answer under another key does not.
    others = replace(terms, keys={"ward": public_hex(ThreadedSite("ward", 0.5).ledger)})
    assert not read_replies(answers, others, 1, read, lambda name, it: None).counted


def test_a_threaded_site_is_ready_and_has_no_certificate() -> None:
    site = ThreadedSite("ward", 0.5)
    ask = replace(TRAIN, round=0, adapter=b"", step=Step.PREPARE)
    ready = site.answer(message(ask))
    assert (ready.status, ready.delta, ready.head) == (Status.READY, b"", "")
    terms = ReplyTerms("d", ("ward",), {"ward": public_hex(site.ledger)})
    none = Awaited(0, lambda payload: None)
    answers = [("ward", message(ready))]
    replies = read_replies(
        answers, terms, 0, lambda name: none, lambda name, it: None, Status.READY
    )
    assert replies.counted == ["ward"]
    assert site.answer(message(replace(TRAIN, step=Step.CERTIFY))).status is Status.REFUSED


def test_what_a_reply_is_packed_into_is_its_tree_s_objects() -> None:
    asked = message(TRAIN)
    asked.metadata.__dict__["_message_id"] = "a" * 64
    packed, tree, parts = _packed(ThreadedSite("ward", 0.5).answer(asked), asked)
    assert tree.object_id == packed.metadata.message_id
    assert tree.object_id in parts
    assert tree.children[0].object_id in parts


def test_a_process_s_cpu_time_is_read_and_divided() -> None:
    watch = Watch({"this": os.getpid()})
    before = watch.cpu()
    while cpu_seconds(os.getpid()) - before["this"] < 0.05:
        pass
    watch.look()
    assert spent(before, watch.cpu(), 10)["this"] >= 5  # milliseconds of 50 by 10 units
    assert watch.most["this"][0] > 1


def test_a_run_is_whole_if_every_round_counted_every_site() -> None:
    about = {"sites": 3, "rounds": 2}
    assert is_whole({**about, "counted_sites": [3, 3]})
    assert not is_whole({**about, "counted_sites": [3]})
    assert not is_whole({**about, "counted_sites": [3, 2]})


@pytest.mark.nightly
def test_a_coordinator_serves_connected_sites_which_cost_the_superlink_little_while_they_wait() -> (
    None
):
    found = measured(12, 3, 900.0)
    assert is_whole(found)
    # 20 polls a minute for each site would be 3 ms a second and more. The executor's own looks are
    # 20 to 26 ms for all, about 2 a site.
    idle = found["idle_cpu_ms_per_site_and_second"]
    assert isinstance(idle, dict)
    assert idle["superlink"] < 4.0
    most = found["most"]
    assert isinstance(most, dict)
    assert most["gate"]["files"] < 12 * 4 + 60
