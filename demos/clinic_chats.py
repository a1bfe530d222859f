"""Messages of patients to four made-up clinics, and what their desks answered.

Complaints are those of the synthetic hospitals (`cloister.data.hospital_words`), so no real patient
is in them, and nothing of it is medical advice. A desk answers by one protocol, in its clinic's
name: which team, when, what to bring. Clinics see different illnesses.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from cloister.data.hospital_words import COMPLAINTS, wordings
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


@dataclass(frozen=True)
class Chat:
    """One message and its answer.

    Attributes:
        clinic: Whose desk answered.
        patient: Who asked.
        question: The message.
        answer: By the protocol.
    """

    clinic: str
    patient: str
    question: str
    answer: str

    def row(self) -> dict[str, object]:
        """As a line of a data file."""
        turns = [
            {"role": "system", "content": f"The desk of {self.clinic} Clinic"},
            {"role": "user", "content": self.question},
            {"role": "assistant", "content": self.answer},
        ]
        return {"messages": turns, "site": self.clinic.lower(), "person": self.patient}


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
            when, bring = PROTOCOL[team]
            yield Chat(
                clinic,
                f"{clinic.lower()}-{number:04d}",
                question + draw.choice(ASKED),
                f"{clinic} Clinic, {team} team: please come {when}. Bring {bring}. "
                "Call 112 if it gets worse.",
            )
