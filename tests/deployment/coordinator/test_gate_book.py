"""The gate remembers its members' questions, also after a restart."""

from pathlib import Path

import pytest

from cloister.deployment.coordinator.gate import make_server
from cloister.deployment.coordinator.gate_book import MOST_QUESTIONS, Book
from cloister.deployment.enrolment.node_key import public_pem
from tests.support import gate as gates
from tests.support.gate import OTHER_NODE, QUESTION, Gate, ask, open_gate
from tests.support.https import FakeSuperLink, served
from tests.support.papers import keys

ELSE = "e" * 64


def test_a_node_that_was_not_yet_known_is_learnt_and_no_other_s_is_taken(tmp_path: Path) -> None:
    """As after an update of the coordinator, where nodes are activated already."""
    with open_gate(tmp_path) as gate:
        gates.join(gate.folder, "clinic")
        gate.link.code = 401  # the SuperLink knows whose key it is
        assert gate.say(gates.poll(OTHER_NODE)) == 401
        gate.link.code, gate.link.said["pull-messages"] = 200, b""
        assert gate.say(gates.poll()) == 200
        assert gate.say(gates.poll(OTHER_NODE)) == 403
        assert gate.say(gates.poll(), "clinic") == 403
        assert gate.say(gates.poll(OTHER_NODE), "clinic") == 200


def test_a_node_that_is_registered_anew_is_another(tmp_path: Path) -> None:
    with open_gate(tmp_path) as gate:
        ask(gate)
        gate.link.said["activate-node"] = gates.activated(70)
        assert gate.say(gates.activation()) == 200
        assert gate.say(gates.poll()) == 403
        assert gate.say(gates.reply(70, 70)) == 403  # asked of the node before
        assert gate.say(gates.poll(70)) == 200


def test_a_question_that_is_over_is_answered_no_more(tmp_path: Path) -> None:
    with open_gate(tmp_path) as gate:
        ask(gate, ttl=-1.0)
        assert gate.say(gates.reply()) == 403


def test_a_reply_that_the_superlink_did_not_take_may_be_another(tmp_path: Path) -> None:
    with open_gate(tmp_path) as gate:
        ask(gate)
        gate.link.code = 500
        assert gate.say(gates.reply()) == 500
        assert gate.say(gates.part()) == 403
        gate.link.code = 200
        assert gate.say(gates.reply(message="8" * 64)) == 200


def test_only_so_many_questions_are_remembered_and_open_ones_longest(tmp_path: Path) -> None:
    with open_gate(tmp_path) as gate:
        ask(gate)
        names = [f"{number:064x}" for number in range(MOST_QUESTIONS)]
        for name in names:
            ask(gate, message=name)
            if name != names[0]:
                said = gates.reply(question=name, message=name[::-1], objects=())
                assert gate.say(said) == 200
        page = Book(gate.folder.state / "asked").page(public_pem(keys("ward").node))
        assert len(page.questions) == MOST_QUESTIONS
        assert {QUESTION, names[0]} <= set(page.questions)


def test_a_gate_that_starts_anew_in_a_round_takes_the_replies(tmp_path: Path) -> None:
    """Asked by one gate, announced through a second, pushed through a third."""
    folder, link = gates.make_folder(tmp_path), FakeSuperLink()
    gates.join(folder, "ward")
    gate = Gate(folder, link)
    with gates.behind(folder, link):
        with served(make_server(folder)):
            ask(gate)
        with served(make_server(folder)):
            assert gate.say(gates.reply(question="9" * 64)) == 403
            assert gate.say(gates.reply()) == 200
        with served(make_server(folder)):
            assert gate.say(gates.part(object_id=ELSE)) == 403
            assert gate.say(gates.part()) == 200
            assert gate.say(gates.fetch()) == 200
            assert gate.say(gates.confirm()) == 200


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"node": 7, "questions": [1]}', None])
def test_a_page_that_is_lost_costs_one_question(tmp_path: Path, damage: bytes | None) -> None:
    folder, link = gates.make_folder(tmp_path), FakeSuperLink()
    gates.join(folder, "ward")
    gate = Gate(folder, link)
    with gates.behind(folder, link):
        with served(make_server(folder)):
            ask(gate)
        (page,) = (folder.state / "asked").iterdir()
        if damage is None:
            page.unlink()
        else:
            page.write_bytes(damage)
        with served(make_server(folder)):
            assert gate.say(gates.reply()) == 403
            assert gate.say(gates.poll()) == 200  # the coordinator asks again
            assert gate.say(gates.reply()) == 200


def test_an_answer_of_the_superlink_that_cannot_be_read_is_not_passed_on(tmp_path: Path) -> None:
    with open_gate(tmp_path) as gate:
        for call, said in (("pull-messages", gates.poll()), ("activate-node", gates.activation())):
            gate.link.said[call] = b"\xff\xff"
            assert gate.say(said) == 502
