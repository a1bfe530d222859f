"""A signed question is for one site in one study; all others are refused."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import BadFileError, StrangerError
from cloister.ledger.signing import SMALL_ORDER, public_hex
from cloister.protocol.exchange import RoundReply, RoundRequest, Status, Step
from cloister.protocol.signed_questions import TrustedCoordinator, Unsigned, check_asked, signed

KEY = Ed25519PrivateKey.generate()
TRUSTED = TrustedCoordinator(public_hex(KEY), "ward")
DOCUMENT = '{"format":2}'
TEXTS = st.text(max_size=20)
QUESTIONS = st.builds(
    RoundRequest,
    study=TEXTS,
    round=st.integers(0, 2**62),
    adapter=st.binary(max_size=20),
    step=st.sampled_from(Step),
    body=st.binary(max_size=20),
)
# For each field another value than any that was signed.
OTHERS = {
    "study": TEXTS,
    "round": st.integers(-(2**62), 2**62),
    "adapter": st.binary(max_size=20),
    "step": st.sampled_from(Step),
    "body": st.binary(max_size=20),
    "to": TEXTS,
    "seen": TEXTS,
    "signature": st.binary(max_size=80),
}


def asked(question: RoundRequest, seen: str = "") -> RoundRequest:
    return signed(question, KEY, DOCUMENT, to="ward", seen=seen)


@given(QUESTIONS, TEXTS, st.text(max_size=200))
def test_what_was_signed_is_answered(question: RoundRequest, seen: str, document: str) -> None:
    one = signed(question, KEY, document, to="ward", seen=seen)
    check_asked(one, document, lambda: TRUSTED)
    assert RoundRequest.from_fields(one.fields()) == one


@pytest.mark.parametrize("name", [field.name for field in fields(RoundRequest)])
@given(st.data(), QUESTIONS, TEXTS)
def test_changing_any_field_makes_it_a_stranger_s(
    name: str, data: st.DataObject, question: RoundRequest, seen: str
) -> None:
    """Every field that there is: one that is added and not signed fails here."""
    one = asked(question, seen)
    other = replace(one, **{name: data.draw(OTHERS[name])})
    if other == one:
        return
    with pytest.raises(StrangerError):
        check_asked(other, DOCUMENT, lambda: TRUSTED)


@given(QUESTIONS, st.text(max_size=50))
def test_another_document_makes_it_a_stranger_s(question: RoundRequest, document: str) -> None:
    if document != DOCUMENT:
        with pytest.raises(StrangerError):
            check_asked(asked(question), document, lambda: TRUSTED)


@pytest.mark.parametrize(
    "trusted",
    [
        replace(TRUSTED, site="clinic"),
        replace(TRUSTED, key=public_hex(KEY)[:-1]),
        replace(TRUSTED, key=public_hex(Ed25519PrivateKey.generate())),
        replace(TRUSTED, key=""),
    ],
)
def test_another_site_or_key_takes_it_for_a_stranger_s(trusted: TrustedCoordinator) -> None:
    with pytest.raises(StrangerError):
        check_asked(asked(RoundRequest("study", 1, b"")), DOCUMENT, lambda: trusted)


@pytest.mark.parametrize("key", sorted(SMALL_ORDER))
def test_a_key_under_which_anything_is_signed_trusts_nobody(key: str) -> None:
    one = replace(RoundRequest("study", 1, b"", to="ward"), signature=bytes([1]) + bytes(63))
    with pytest.raises(StrangerError):
        check_asked(one, DOCUMENT, lambda: TrustedCoordinator(key, "ward"))


def test_no_signature_on_an_answer_holds_for_a_question() -> None:
    """Were one key both, neither text could be the other."""
    reply = RoundReply("ward", 1, Status.TRAINED, b"", 0.0, "")
    question = RoundRequest("study", 1, b"", to="ward")
    forged = replace(question, signature=KEY.sign(reply.statement("study")))
    with pytest.raises(StrangerError):
        check_asked(forged, DOCUMENT, lambda: TRUSTED)


def test_a_site_whose_key_cannot_be_read_answers_nobody() -> None:
    def unread() -> TrustedCoordinator:
        raise BadFileError("no key")

    with pytest.raises(BadFileError):
        check_asked(asked(RoundRequest("study", 1, b"")), DOCUMENT, unread)


def test_unsigned_questions_are_for_those_who_say_so() -> None:
    check_asked(RoundRequest("study", 1, b""), "", Unsigned())


def test_no_deployed_file_says_so() -> None:
    """Simulations (of votes, too) and audits may; a deployment can ask and answer nothing so."""
    package = Path(__file__).parents[2] / "cloister"
    named = {
        path.relative_to(package).parts[0]
        for path in package.rglob("*.py")
        if "Unsigned()" in path.read_text(encoding="utf-8")
    }
    assert named == {"simulation", "audit", "synthesis"}
