"""The built-in chats: four clinics, one protocol, and for each message another team's answer."""

import hashlib
from collections import Counter

from cloister.data.generated import generated
from cloister.data.hospital_words import COMPLAINTS
from cloister.data.records import ChatRecord
from cloister.data.synthetic_desks import CLINICS, PROTOCOL, clinic_chats, desk_chats

# Of the chats that the second quickstart's figures are about; those of earlier versions, too.
CLINIC_CHATS = "6f7913e6a7a96d1b39261c62c78b558f0fe85cd223c6604f68c33879e56b0208"


def test_equal_seeds_give_equal_chats_and_each_clinic_as_many() -> None:
    made = list(clinic_chats(30))
    assert made == list(clinic_chats(30))
    assert made != list(clinic_chats(30, seed=1))
    assert [chat.clinic for chat in made] == [clinic for clinic in CLINICS for _ in range(30)]
    assert len({chat.patient for chat in made}) == len(made)


def test_the_chats_are_the_same_on_every_machine() -> None:
    rows = repr([chat.row() for chat in clinic_chats(300)])
    assert hashlib.sha256(rows.encode()).hexdigest() == CLINIC_CHATS


def test_an_answer_follows_the_protocol_and_the_other_is_another_team_s() -> None:
    assert PROTOCOL.keys() == COMPLAINTS.keys()
    for chat in clinic_chats(50):
        named = []
        for answer in (chat.answer, chat.other):
            (team,) = [team for team in COMPLAINTS if f", {team} team:" in answer]
            when, bring = PROTOCOL[team]
            assert answer.startswith(f"{chat.clinic} Clinic, ")
            assert when in answer
            assert bring in answer
            named.append(team)
        assert named[0] != named[1]
        assert "{side}" not in chat.question


def test_a_row_is_a_conversation_of_a_site() -> None:
    row = next(clinic_chats(1)).row()
    assert row["site"] == "northgate"
    assert [turn["role"] for turn in row["messages"]] == ["system", "user", "assistant"]  # type: ignore[attr-defined]


def test_each_clinic_has_about_the_records_that_recipes_declare_and_no_patient_is_in_both() -> None:
    train, test = desk_chats()
    sizes = Counter(record.site for record in train)
    assert sizes.keys() == {"northgate", "southbank", "eastfield", "westhill"}
    assert all(1100 <= size <= 1300 for size in sizes.values())
    assert {record.person for record in train}.isdisjoint(record.person for record in test)
    assert [*train, *test] == [
        *generated("synthetic:desks", "messages", train=True),
        *generated("synthetic:desks", "messages", train=False),
    ]
    for record in test:
        assert isinstance(record, ChatRecord)
        assert record.rejected is not None
        assert record.rejected[:-1] == record.messages[:-1]
        assert record.rejected[-1] != record.messages[-1]
