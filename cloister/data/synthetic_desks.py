"""Messages of patients to four made-up clinics, and what their desks answered: the built-in chats.

Complaints are those of the synthetic hospitals (`hospital_words`), so no real patient is in them,
and nothing of it is medical advice. A desk answers by one protocol, in its clinic's name: which
team, when, what to bring. Clinics see different illnesses. As a preference, that answer is
preferred to the one of another team, which the patient does not need.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from cloister.data.hospital_words import COMPLAINTS, wordings
from cloister.data.records import ChatRecord, Message
from cloister.seeds import child_seed

# Weights of the teams at each clinic, in the order of COMPLAINTS.
CLINICS = {
    "Northgate": (24, 4, 4, 10, 8, 8, 6, 6, 22, 8),
    "Southbank": (8, 6, 4, 12, 14, 30, 6, 4, 6, 10),
    "Eastfield": (4, 16, 14, 6, 6, 8, 28, 6, 8, 4),
    "Westhill": (8, 4, 6, 18, 14, 4, 4, 22, 6, 14),
}
# When a team sees a patient, and what to bring; by protocol, whatever the complaint.
PROTOCOL = {
    "cardiology": ("today", "your medicines"),
    "dermatology": ("this week", "a photo of your skin"),
    "ent": ("this week", "your medicines"),
    "gastroenterology": ("tomorrow", "your blood results"),
    "neurology": ("today", "a relative"),
    "orthopaedics": ("tomorrow", "your X-rays"),
    "paediatrics": ("today", "the health book"),
    "psychiatry": ("tomorrow", "a relative"),
    "respiratory": ("today", "your inhalers"),
    "urology": ("tomorrow", "a urine sample"),
}
OPENINGS = ("Hello, I have", "Hi. I've got", "Good morning, I am writing about", "I have")
SINCE = ("since Monday", "for two days", "since last night", "for a week", "on and off")
ASKED = ("What should I do?", "Can I come in?", "Who should see me?", "Please advise.")
# About 1,200 chats a clinic for training and 230 for testing, one a patient.
_PATIENTS = 1_400
# Every sixth patient is a test patient, as in `synthetic`.
_TEST_EVERY = 6


@dataclass(frozen=True)
class Chat:
    """One message and its answer.

    Attributes:
        clinic: Whose desk answered.
        patient: Who asked.
        question: The message.
        answer: By the protocol.
        other: The answer of a team that the patient does not need.
    """

    clinic: str
    patient: str
    question: str
    answer: str
    other: str

    @property
    def asked(self) -> tuple[Message, ...]:
        """The turns before the answer."""
        desk = Message("system", f"The desk of {self.clinic} Clinic")
        return desk, Message("user", self.question)

    def record(self) -> ChatRecord:
        """The chat as a record, whose answer is preferred to the other one."""
        return ChatRecord(
            (*self.asked, Message("assistant", self.answer)),
            site=self.clinic.lower(),
            person=self.patient,
            rejected=(*self.asked, Message("assistant", self.other)),
        )

    def row(self) -> dict[str, object]:
        """The chat as a line of a data file, without the other answer."""
        turns = (*self.asked, Message("assistant", self.answer))
        return {
            "messages": [{"role": turn.role, "content": turn.content} for turn in turns],
            "site": self.clinic.lower(),
            "person": self.patient,
        }


def desk_chats(seed: int = 0) -> tuple[list[ChatRecord], list[ChatRecord]]:
    """Generates the chats of all desks, each with a reply that is not preferred.

    Args:
        seed: Equal seeds give equal chats, in every process.

    Returns:
        Training chats (about 1,200 a clinic) and test chats (about 230 a clinic), in the order of
        clinics and patients. No patient is in both.
    """
    halves: tuple[list[ChatRecord], list[ChatRecord]] = [], []
    for number, chat in enumerate(clinic_chats(_PATIENTS, seed)):
        halves[number % _TEST_EVERY == _TEST_EVERY - 1].append(chat.record())
    return halves


def clinic_chats(each: int, seed: int = 0) -> Iterator[Chat]:
    """Generates so many chats of each clinic, one a patient.

    Args:
        each: Chats of a clinic.
        seed: Equal seeds give equal chats.
    """
    for clinic, mix in CLINICS.items():
        for number in range(each):
            draw = random.Random(child_seed(seed, "clinic", clinic, number))
            team = draw.choices(tuple(COMPLAINTS), mix)[0]
            wording = draw.choice(wordings(draw.choice(COMPLAINTS[team])))
            complaint = wording.replace("{side}", draw.choice(("left", "right")))
            question = f"{draw.choice(OPENINGS)} {complaint} {draw.choice(SINCE)}. "
            question += draw.choice(ASKED)
            other = draw.choice([one for one in COMPLAINTS if one != team])
            patient = f"{clinic.lower()}-{number:04d}"
            answers = (_answer(clinic, one) for one in (team, other))
            yield Chat(clinic, patient, question, *answers)


def _answer(clinic: str, team: str) -> str:
    when, bring = PROTOCOL[team]
    return (
        f"{clinic} Clinic, {team} team: please come {when}. Bring {bring}. "
        "Call 112 if it gets worse."
    )
