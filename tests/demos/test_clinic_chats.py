"""The second quickstart's chats: four clinics, one protocol, no text in both sets."""

import sys
from pathlib import Path

import pytest

from cloister.data.hospital_words import COMPLAINTS

DEMOS = Path(__file__).parents[2] / "demos"


@pytest.fixture
def chats(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(DEMOS))
    import clinic_chats

    yield clinic_chats
    sys.modules.pop("clinic_chats")


def test_equal_seeds_give_equal_chats_and_each_clinic_as_many(chats: object) -> None:
    made = list(chats.clinic_chats(30))  # type: ignore[attr-defined]
    assert made == list(chats.clinic_chats(30))  # type: ignore[attr-defined]
    assert made != list(chats.clinic_chats(30, seed=1))  # type: ignore[attr-defined]
    assert [chat.clinic for chat in made] == [c for c in chats.CLINICS for _ in range(30)]  # type: ignore[attr-defined]
    assert len({chat.patient for chat in made}) == len(made)


def test_an_answer_follows_the_protocol(chats: object) -> None:
    assert chats.PROTOCOL.keys() == COMPLAINTS.keys()  # type: ignore[attr-defined]
    for chat in chats.clinic_chats(50):  # type: ignore[attr-defined]
        (team,) = [team for team in COMPLAINTS if f", {team} team:" in chat.answer]
        when, bring = chats.PROTOCOL[team]  # type: ignore[attr-defined]
        assert chat.answer.startswith(f"{chat.clinic} Clinic, ")
        assert when in chat.answer
        assert bring in chat.answer
        assert "{side}" not in chat.question


def test_a_row_is_a_conversation_of_a_site(chats: object) -> None:
    chat = next(chats.clinic_chats(1))  # type: ignore[attr-defined]
    row = chat.row()
    assert row["site"] == "northgate"
    assert [turn["role"] for turn in row["messages"]] == ["system", "user", "assistant"]
