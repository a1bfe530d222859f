"""A deployed coordinator signs each question for its site, with the last head that it had."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from cloister.ledger.signing import public_hex
from cloister.protocol.exchange import RECORD, RoundReply, RoundRequest, Status
from cloister.protocol.signed_questions import TrustedCoordinator, Unsigned, check_asked
from cloister.recipe import parse_document, sent_document
from cloister.server.dispatch import Dispatcher, Timeouts
from cloister.server.ledger_heads import Heads
from cloister.server.run_directory import RunDirectory
from cloister.server.voice import Signed, addressed, hear
from tests.recipe.test_old_runs import OLD_DIGEST, OLD_TOML
from tests.support.clock import Clock, TimedGrid

KEY, LEDGERS = (
    Ed25519PrivateKey.generate(),
    {site: Ed25519PrivateKey.generate() for site in ("east", "west")},
)
DOCUMENT = '{"format":2}'
HEAD, NEXT = "ab" * 32, "cd" * 32
QUESTION = RoundRequest("study", 3, b"adapter")


def voice(folder: Path) -> Signed:
    keys = {site: public_hex(key) for site, key in LEDGERS.items()}
    return Signed(KEY, "study", DOCUMENT, keys, Heads(folder))


def said(site: str = "east", *, by: str = "", study: str = "study", **changes: object) -> Message:
    reply = RoundReply(site, 3, Status.TRAINED, b"bytes", 1.0, HEAD)
    reply = replace(reply, **changes)  # type: ignore[arg-type]
    signature = LEDGERS[by or site].sign(reply.statement(study))
    return carried(replace(reply, signature=signature).fields())


def carried(fields: Mapping[str, object]) -> Message:
    TimedGrid(Clock(), {})
    asked = Message(RecordDict(), 2, "train", group_id="3")
    asked.metadata.__dict__["_message_id"] = "asked"
    content = RecordDict({RECORD: ConfigRecord(dict(fields))})  # type: ignore[arg-type]
    return Message(content, reply_to=asked)


def test_each_site_gets_its_own_signed_question(tmp_path: Path) -> None:
    one = voice(tmp_path)
    one.heads.add(one.ledgers["west"], NEXT)
    for site, seen in (("east", ""), ("west", NEXT)):
        asked = addressed(one, QUESTION, site)
        assert (asked.to, asked.seen) == (site, seen)
        assert replace(asked, to="", seen="", signature=b"") == QUESTION
        check_asked(asked, DOCUMENT, lambda site=site: TrustedCoordinator(public_hex(KEY), site))
    assert addressed(Unsigned(), QUESTION, "east") == QUESTION


def test_a_head_that_came_is_in_the_next_question_of_any_run(tmp_path: Path) -> None:
    hear(voice(tmp_path), said())
    for study in ("study", "another"):
        again = replace(voice(tmp_path), study=study)
        assert addressed(again, QUESTION, "east").seen == HEAD
        assert addressed(again, QUESTION, "west").seen == ""


def test_a_run_that_an_earlier_version_began_is_asked_for_signed_under_its_digest(
    tmp_path: Path,
) -> None:
    """Also one of the first format, whose digest is not its document's hash."""
    (tmp_path / "recipe.toml").write_text(OLD_TOML, encoding="utf-8")
    recipe = RunDirectory.reopen(tmp_path).recipe()
    assert recipe.digest() == OLD_DIGEST
    old = replace(voice(tmp_path / "heads"), study=OLD_DIGEST, document=sent_document(recipe))
    asked = addressed(old, RoundRequest(OLD_DIGEST, 3, b"adapter"), "east")
    check_asked(asked, sent_document(recipe), lambda: TrustedCoordinator(public_hex(KEY), "east"))
    assert parse_document(sent_document(recipe)).digest() == asked.study == OLD_DIGEST


# What is no word of a ledger's own about what it holds.
UNBELIEVED: dict[str, Callable[[], Message]] = {
    "another ledger's signature": lambda: said(by="west"),
    "an answer in another study": lambda: said(study="another"),
    "a site that is not of this study": lambda: said("north", by="east"),
    "a word": lambda: said(status=Status.REFUSED),
    "no head": lambda: said(head=""),
    "a head that is none": lambda: said(head="../../etc"),
    "no fields": lambda: carried({}),
    "fields of other types": lambda: carried({"site": 1, "head": HEAD}),
    "no record": lambda: Message(RecordDict(), reply_to=said()),
    "another kind of record": lambda: Message(
        RecordDict({RECORD: ArrayRecord({"a": Array("float32", (1,), "numpy.ndarray", b"x")})}),
        reply_to=said(),
    ),
}


@pytest.mark.parametrize("name", UNBELIEVED)
def test_what_a_ledger_did_not_sign_is_kept_of_nobody_and_ends_nothing(
    name: str, tmp_path: Path
) -> None:
    hear(voice(tmp_path / "heads"), UNBELIEVED[name]())
    assert not (tmp_path / "heads").exists()


def test_an_answer_that_comes_too_late_tells_its_head_all_the_same(tmp_path: Path) -> None:
    """It is dropped, and yet its site released it."""

    class Grid(TimedGrid):
        def push_messages(self, messages):  # type: ignore[no-untyped-def]
            messages = list(messages)
            questions.extend(RoundRequest.from_fields(dict(m.content[RECORD])) for m in messages)
            names = list(super().push_messages(messages))
            for name in names:
                after, reply = self._due[name]
                fields = said(head=HEAD if len(questions) == 1 else NEXT).content
                self._due[name] = (after, Message(fields, reply_to=message_of(reply)))
            return names

    def message_of(reply: Message) -> Message:
        asked = Message(RecordDict(), 2, "train", group_id="3")
        asked.metadata.__dict__["_message_id"] = reply.metadata.reply_to_message_id
        return asked

    questions: list[RoundRequest] = []
    clock, told = Clock(), list[str]()
    grid = Grid(clock, {2: lambda count: (9.0 if count == 0 else 8.0, True)})
    asker = Dispatcher(
        grid,
        lambda _: {2: "east"},
        Timeouts(5.0),
        voice(tmp_path),
        lambda what, number, site: told.append(what),
        clock=clock,
        wait=clock.wait,
    )
    assert list(asker.ask(QUESTION, {2: "east"}, 1, clock.now)) == []
    assert voice(tmp_path).heads.last(public_hex(LEDGERS["east"])) == ""
    assert list(asker.ask(replace(QUESTION, round=4), {2: "east"}, 1, clock.now)) == []
    assert "late" in told
    assert voice(tmp_path).heads.last(public_hex(LEDGERS["east"])) == HEAD
    assert [question.seen for question in questions] == ["", ""]
    list(asker.ask(replace(QUESTION, round=5), {2: "east"}, 1, clock.now))
    assert questions[-1].seen == HEAD
