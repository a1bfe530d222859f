"""A deployed site answers only what its coordinator signed for it."""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ArrayRecord, Error, Message, RecordDict

from cloister.client import app
from cloister.client import round as site_round
from cloister.client.site_file import read_site
from cloister.deployment.enrolment.coordinator_key import key_fingerprint
from cloister.deployment.enrolment.documents import write_invite
from cloister.deployment.site import agent
from cloister.deployment.site import opened_site as own
from cloister.deployment.site.agent import NOTED_STRANGERS
from cloister.deployment.site.joining import SiteMembership
from cloister.deployment.site.refusals import FIRST, LAST
from cloister.errors import BadFileError, NetworkError, UsageError
from cloister.ledger.ledger import Ledger
from cloister.ledger.signing import public_hex
from cloister.ledger.storage import LedgerFile
from cloister.protocol.exchange import RECORD, RoundReply, RoundRequest, Status, Step
from cloister.protocol.signed_questions import signed
from cloister.recipe import Recipe, sent_document
from tests.client.test_differential import notes, study
from tests.support.clock import TimedGrid
from tests.support.models import tiny_bert
from tests.support.papers import authority, invite
from tests.support.wards import COORDINATOR, Ward

STRANGER = Ed25519PrivateKey.generate()


@dataclass
class Asked:
    """A ward in a study of which one round was released."""

    ward: Ward
    recipe: Recipe
    adapter: bytes
    first: RoundReply

    @property
    def ledger(self) -> Path:
        return read_site(self.ward.folder / "site.toml").ledger

    @property
    def why(self) -> str:
        return str(self.ward.agent._folder.refusals()[-1]["why"])

    def train(self, number: int, seen: str = "") -> RoundReply:
        request = RoundRequest(self.recipe.digest(), number, self.adapter)
        self.ward.ask(self.recipe, request, seen)
        assert self.ward.reply is not None
        return self.ward.reply

    def question(self, number: int = 2, step: Step = Step.TRAIN) -> RoundRequest:
        """A question as the coordinator signs it."""
        adapter = self.adapter if step is Step.TRAIN else b""
        request = RoundRequest(self.recipe.digest(), number, adapter, step)
        return signed(request, COORDINATOR, sent_document(self.recipe), to="ward", seen="")

    def restart(self) -> None:
        before = self.ward.agent
        self.ward.agent = type(before)(before.path, before.runtime, before.moments)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("ward"))


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def opened(folder: Path, bert: Path, patch: pytest.MonkeyPatch) -> Asked:
    ward, recipe = Ward.open(folder, notes(), bert, patch), study(bert)
    ready = ward.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))
    assert ready.said[2] is Status.READY
    asked = Asked(ward, recipe, ward.adapter, RoundReply("", 0, Status.REFUSED, b"", 0.0, ""))
    asked.first = asked.train(1)
    assert asked.first.status is Status.TRAINED
    return asked


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, bert: Path, patch: pytest.MonkeyPatch) -> Asked:
    """Shared by tests that leave it as it is."""
    return opened(tmp_path_factory.mktemp("asked") / "ward", bert, patch)


@pytest.fixture
def own_asked(tmp_path: Path, bert: Path, patch: pytest.MonkeyPatch) -> Asked:
    return opened(tmp_path / "ward", bert, patch)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whatever a site does for a question, by name, as it is done."""
    done: list[str] = []

    def watch(owner: object, name: str) -> None:
        work = getattr(owner, name)

        def noted(*given: object, **named: object) -> object:
            done.append(name)
            return work(*given, **named)

        monkeypatch.setattr(owner, name, noted)

    for owner, name in (
        (agent, "parse_document"),
        (agent, "open_ledger"),
        (agent, "open_for_study"),
        (own, "open_ledger"),
        (own, "open_workspace"),
        (own, "find_base"),
        (own, "base_at_hand"),
        (own, "encode_units"),
        (app, "run_round"),
        (site_round, "local_update"),
        (Ledger, "sign"),
        (LedgerFile, "entries"),
        (LedgerFile, "writing"),
    ):
        watch(owner, name)
    return done


def unchanged(
    asked: Asked,
    document: str,
    message: RoundRequest | Mapping[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Puts a message to the ward: it is refused by nobody, and nothing was done for it."""
    before = asked.ledger.read_bytes()
    asked.ward.agent._activity["strangers"] = 0  # each of these is noted in full
    (asked.ward.agent._folder.own / "refusals.jsonl").unlink(missing_ok=True)
    with monkeypatch.context() as patched:
        done = watched(patched)
        seen = asked.ward.put(document, message)
        assert done == []
    site, _, status, *sizes = seen.said
    assert (site, status, sizes) == ("", Status.REFUSED, [0, 0.0, 0, 0])
    assert asked.ledger.read_bytes() == before
    assert len(asked.ward.agent._folder.refusals()) == 1


def by_a_stranger(request: RoundRequest, document: str) -> RoundRequest:
    return signed(request, STRANGER, document, to=request.to, seen=request.seen)


# What whoever carries a question could make of it; the first is a round pushed into the SuperLink.
FORGED: dict[str, Callable[[RoundRequest], RoundRequest]] = {
    "nobody signed": lambda one: replace(one, signature=b""),
    "as an earlier version asked": lambda one: replace(one, to="", signature=b""),
    "another study": lambda one: replace(one, study="ab" * 32),
    "another round": lambda one: replace(one, round=3),
    "another adapter": lambda one: replace(one, adapter=one.adapter[:-1] + b"\x01"),
    "another body": lambda one: replace(one, body=b"{}"),
    "another step": lambda one: replace(one, step=Step.CERTIFY),
    "another site": lambda one: replace(one, to="clinic"),
    "another head": lambda one: replace(one, seen="cd" * 32),
    "half a signature": lambda one: replace(one, signature=one.signature[:32]),
    "another signature": lambda one: replace(one, signature=STRANGER.sign(b"anything")),
}


@pytest.mark.parametrize("name", FORGED)
def test_what_the_coordinator_did_not_sign_as_it_came_is_refused_before_anything(
    name: str, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    unchanged(asked, sent_document(asked.recipe), FORGED[name](asked.question()), monkeypatch)
    wrong_site = name in ("another site", "as an earlier version asked")
    assert ("a question to" if wrong_site else "without a valid signature") in asked.why


@pytest.mark.parametrize("step", Step)
def test_every_step_of_a_stranger_is_refused(
    step: Step, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = sent_document(asked.recipe)
    forged = by_a_stranger(asked.question(2, step), document)
    unchanged(asked, document, forged, monkeypatch)


@pytest.mark.parametrize(
    ("signed_as", "put_as"),
    [(one, other) for one in Step for other in (Step.TRAIN, Step.MASK) if one is not other],
)
def test_no_step_s_question_is_another_s(
    signed_as: Step, put_as: Step, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question that costs nothing cannot be put again as one that trains."""
    document = sent_document(asked.recipe)
    unchanged(asked, document, replace(asked.question(2, signed_as), step=put_as), monkeypatch)


def test_a_question_of_one_study_cannot_be_put_with_another_s_document(
    asked: Asked, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even parsed: the document's hash is signed, whatever digest its text claims."""
    other = study(bert, "training.learning_rate=0.2")
    for document in (sent_document(other), sent_document(asked.recipe) + " ", "", "[" * 10**6):
        unchanged(asked, document, asked.question(), monkeypatch)
    elsewhere = signed(asked.question(), COORDINATOR, sent_document(other), to="ward", seen="")
    unchanged(asked, sent_document(asked.recipe), elsewhere, monkeypatch)


def test_a_question_to_another_site_stays_another_s(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = sent_document(asked.recipe)
    theirs = signed(asked.question(), COORDINATOR, document, to="clinic", seen="")
    unchanged(asked, document, theirs, monkeypatch)
    assert "a question to 'clinic', but this site is ward" in asked.why


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"study": "s", "round": 1, "adapter": b"", "step": "train", "body": b""},
        {"round": "3"},
        {"to": 7},
    ],
)
def test_what_is_no_question_is_refused_before_anything(
    fields: dict[str, object], asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = asked.question().fields() if set(fields) <= {"round", "to"} and fields else {}
    unchanged(asked, sent_document(asked.recipe), {**whole, **fields}, monkeypatch)


@pytest.mark.parametrize("kind", ["query", "evaluate", "train.another", "get_properties"])
def test_a_message_of_another_kind_is_refused_and_ends_no_agent(kind: str, asked: Asked) -> None:
    """Also where what it carries was signed."""
    before = asked.ledger.read_bytes()
    seen = asked.ward.put(sent_document(asked.recipe), asked.question(), kind)
    assert (seen.said[0], seen.said[2]) == ("", Status.REFUSED)
    assert asked.ledger.read_bytes() == before


def test_a_message_without_content_is_refused_and_ends_no_agent(asked: Asked) -> None:
    before, count = asked.ledger.read_bytes(), asked.ward.agent._activity["strangers"]
    TimedGrid(asked.ward.clock, {})
    empty = Message(RecordDict(), 7, "train", group_id="1")
    wrong = Message(RecordDict({RECORD: ArrayRecord()}), 7, "train", group_id="1")
    lost = Message(Error(8, "gone"), reply_to=asked_by(empty))
    for message in (empty, wrong, lost):
        seen = asked.ward.carry("", message)
        assert (seen.said[0], seen.said[2]) == ("", Status.REFUSED)
    assert asked.ward.agent._activity["strangers"] == int(str(count)) + 3
    assert asked.ledger.read_bytes() == before


def asked_by(message: Message) -> Message:
    message.metadata.__dict__["_message_id"] = "before"
    return message


def test_what_a_ledger_notes_of_a_question_is_what_it_noted_before_they_were_signed(
    asked: Asked,
) -> None:
    """So a run that an earlier version began goes on: its rounds are known by the same hash."""
    [charged] = [
        entry.fields
        for entry in LedgerFile(asked.ledger).entries()
        if entry.fields["kind"] == "reserve" and entry.fields["round"] == 1
    ]
    assert charged["request"] == hashlib.sha256(asked.adapter).hexdigest()


def test_a_replayed_question_is_answered_with_the_same_bytes_at_no_cost(
    own_asked: Asked,
) -> None:
    asked = own_asked
    question = asked.question(1)
    second = asked.train(2, asked.first.head)
    assert second.status is Status.TRAINED
    before = Ledger(asked.ledger).head
    for _ in range(2):
        asked.ward.put(sent_document(asked.recipe), question)
        assert asked.ward.reply == asked.first
    told = asked.ward.agent._folder.activity
    known = {what: told()[what] for what in ("leaves_every", "device")}
    asked.restart()
    asked.ward.put(sent_document(asked.recipe), question)
    assert asked.ward.reply == asked.first
    assert known.items() <= told().items()  # a restart costs the operator nothing that they read
    assert Ledger(asked.ledger).head == before


def test_a_site_without_a_coordinator_s_key_answers_nothing_until_it_is_told(
    own_asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that joined before there was such a key."""
    asked, file = own_asked, read_site(own_asked.ward.folder / "site.toml")
    place = SiteMembership.of(file)
    place.coordinator.unlink()
    document = sent_document(asked.recipe)
    unchanged(asked, document, asked.question(), monkeypatch)
    assert "cloister site trust" in asked.why
    place.coordinator.write_text("no key")
    unchanged(asked, document, asked.question(), monkeypatch)
    taken(asked, COORDINATOR)
    asked.ward.put(document, asked.question())
    assert asked.ward.reply is not None
    assert asked.ward.reply.status is Status.TRAINED


def taken(asked: Asked, key: Ed25519PrivateKey) -> None:
    """What `cloister site trust` does."""
    from cloister.deployment.site.trusted_key import trust

    file = read_site(asked.ward.folder / "site.toml")
    place = SiteMembership.of(file)
    if not place.authority.exists():
        write_invite(place.path / "invite.json", invite(), authority())
        place.authority.write_bytes(authority().pem)
    public = public_hex(key)
    with pytest.raises(UsageError, match="--fingerprint: missing"):
        trust(file, public, None)
    with pytest.raises(NetworkError, match="do not accept it"):
        trust(file, public, key_fingerprint(public_hex(STRANGER)))
    with pytest.raises(BadFileError, match="not a coordinator's public key"):
        trust(file, public[:-1], key_fingerprint(public))
    assert trust(file, public, key_fingerprint(public)) == public


def test_a_renewed_key_holds_from_the_next_question_on_and_the_old_one_no_longer(
    own_asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, fresh = own_asked, Ed25519PrivateKey.generate()
    document = sent_document(asked.recipe)
    question = signed(asked.question(), fresh, document, to="ward", seen="")
    unchanged(asked, document, question, monkeypatch)
    taken(asked, fresh)
    unchanged(asked, document, asked.question(), monkeypatch)
    asked.ward.put(document, question)
    assert asked.ward.reply is not None
    assert asked.ward.reply.status is Status.TRAINED


@pytest.mark.parametrize("running", [True, False], ids=["under a running agent", "then started"])
def test_a_site_that_was_rolled_back_releases_no_round_twice(
    own_asked: Asked, running: bool, tmp_path: Path
) -> None:
    """Its whole folder, in which ledger, key, head and proofs agree with one another."""
    asked, copy = own_asked, tmp_path / "copy"
    shutil.copytree(asked.ward.folder, copy)
    second = asked.train(2, asked.first.head)
    assert second.status is Status.TRAINED
    ahead = tmp_path / "ahead"
    shutil.copytree(asked.ward.folder, ahead)
    restored(asked, copy)
    if not running:
        asked.restart()
    head = Ledger(asked.ledger).head
    # The coordinator asks for the same round again, for the next one, and for what costs nothing.
    for number in (2, 3, 1):
        reply = asked.train(number, second.head)
        assert (reply.status, reply.delta, reply.head) == (Status.REFUSED, b"", "")
        assert "restore the newest backup" in asked.why
    for number, step in ((0, Step.PREPARE), (2, Step.CERTIFY)):
        request = RoundRequest(asked.recipe.digest(), number, b"", step)
        assert asked.ward.ask(asked.recipe, request, second.head).said[2] is Status.REFUSED
    assert Ledger(asked.ledger).head == head
    # Whoever does not say what came before gets other bytes for the same round: so this can fail.
    if not running:
        assert asked.train(2).delta != second.delta
    # The remedy: the newest copy.
    restored(asked, ahead)
    asked.restart()
    assert asked.train(2, second.head) == second
    assert asked.train(3, second.head).status is Status.TRAINED


def restored(asked: Asked, copy: Path) -> None:
    shutil.rmtree(asked.ward.folder)
    shutil.copytree(copy, asked.ward.folder)


def test_a_site_that_is_ahead_of_what_its_coordinator_had_goes_on(own_asked: Asked) -> None:
    """A reply that was lost on its way: the coordinator knows of the round before it."""
    asked = own_asked
    second = asked.train(2, asked.first.head)
    again = asked.train(2, asked.first.head)
    assert again == second
    assert asked.train(3, asked.first.head).status is Status.TRAINED
    assert asked.train(4, "").status is Status.TRAINED


def test_strangers_do_not_crowd_out_why_the_coordinator_s_own_questions_came_to_nothing(
    own_asked: Asked,
) -> None:
    asked, document = own_asked, sent_document(own_asked.recipe)
    assert asked.train(99).status is Status.REFUSED
    reason = asked.why
    for _ in range(FIRST + LAST + 10):
        asked.ward.put(document, replace(asked.question(), signature=b""))
    assert asked.ward.agent._folder.activity()["strangers"] == FIRST + LAST + 10
    whys = [row["why"] for row in asked.ward.agent._folder.refusals()]
    assert reason in whys
    assert len(whys) == 1 + NOTED_STRANGERS
    assert asked.train(98).status is Status.REFUSED
    assert "round 98" in asked.why
