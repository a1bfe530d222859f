"""What a pupil is told: points and material from the two models, the hint by a rule on both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lessons import Idea, Question, material_id

# Points of a full answer, one for each idea.
FULL = 3


@dataclass(frozen=True)
class Advice:
    """What a pupil is told.

    Attributes:
        grade: The scorer's points, 0 to 3.
        hint: What a teacher would ask back, or praise.
        material: The idea whose material is recommended; None: nothing seems to be missing.
    """

    grade: int
    hint: str
    material: Idea | None


def advice(question: Question, grade: int, found: Sequence[str]) -> Advice:
    """Turns what the models gave into words.

    The rule: of a full answer nothing is missing. Else the idea is missing whose material the
    finder ranks first among those of the question (another question's cannot be meant). With some
    points the pupil gets this idea's hint; without any, the question's general one.

    Args:
        question: That was answered.
        grade: The scorer's.
        found: Ids of materials, the finder's best first.
    """
    if grade >= FULL:
        return Advice(grade, "That is a full answer. Well done!", None)
    by_id = {material_id(question, idea): idea for idea in question.ideas}
    missing = next((by_id[one] for one in found if one in by_id), question.ideas[0])
    return Advice(grade, missing.hint if grade else question.nudge, missing)
