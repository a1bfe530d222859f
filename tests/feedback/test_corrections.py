"""Each task allows certain corrections of its answers, which become rows."""

from typing import Any

import pytest

from cloister.data.config import DataConfig
from cloister.data.values import Number
from cloister.errors import DataError
from cloister.feedback.corrections import Answers, Given, row_of
from cloister.tasks.score_scale import ScoreScale

TEXT = Answers("text", ("x", "y"))
SCALE = Answers("score", (), ScoreScale(0.0, 3.0, 1.0))
TAGS = Answers("tokens", ("BODY", "SIGN"))
ITEMS = Answers("items", ("a", "b", "c"))
CHAT = Answers("messages")
SEVERAL = Answers("labels", ("x", "y", "z"))
TURNS = [{"role": "user", "content": "why?"}]
COLUMNS = DataConfig(text="note", label="ward", label_separator=None)


@pytest.mark.parametrize(
    ("answers", "asked", "correction", "row"),
    [
        (TEXT, "pain", {"label": "y"}, {"note": "pain", "ward": "y"}),
        (
            Answers("pairs", ("yes", "no")),
            ["pain", "ache"],
            {"label": "no"},
            {"note": "pain", "text_b": "ache", "ward": "no"},
        ),
        (SEVERAL, "pain", {"labels": ["z", "x"]}, {"note": "pain", "labels": ["x", "z"]}),
        (SEVERAL, "pain", {"labels": []}, {"note": "pain", "labels": []}),
        (SCALE, "pain", {"score": 2}, {"note": "pain", "score": Number("2.0")}),
        (
            TAGS,
            ["my", "left", "knee", "hurts"],
            {"entities": [{"type": "SIGN", "words": [3, 4]}, {"type": "BODY", "words": [1, 3]}]},
            {
                "tokens": ["my", "left", "knee", "hurts"],
                "tags": ["O", "B-BODY", "I-BODY", "B-SIGN"],
            },
        ),
        (ITEMS, ["b"], {"item": "c"}, {"items": ["b", "c"]}),
        (
            CHAT,
            TURNS,
            {"reply": "because"},
            {"messages": [*TURNS, {"role": "assistant", "content": "because"}]},
        ),
    ],
)
def test_a_correction_becomes_a_row_of_the_tasks_own_columns(
    answers: Answers, asked: Given, correction: dict[str, Any], row: dict[str, Any]
) -> None:
    assert row_of(answers.kind, asked, answers.corrected(correction, asked), COLUMNS) == row


def test_several_labels_of_a_csv_stay_in_one_cell() -> None:
    columns = DataConfig(label_separator="; ")
    row = row_of("labels", "pain", {"labels": ["x", "z"]}, columns)
    assert row == {"text": "pain", "labels": "x; z"}


@pytest.mark.parametrize(
    ("answers", "correction"),
    [
        (TEXT, None),
        (TEXT, {}),
        (TEXT, {"label": "w"}),
        (TEXT, {"label": ["x"]}),
        (TEXT, {"label": "x", "score": 1}),
        (TEXT, {"reply": "x"}),
        (SEVERAL, {"labels": "x"}),
        (SEVERAL, {"labels": ["x"] * 100}),
        (SEVERAL, {"labels": ["x", "w"]}),
        (SCALE, {"score": 1.5}),
        (SCALE, {"score": 4}),
        (SCALE, {"score": True}),
        (SCALE, {"score": "2"}),
        (TAGS, {"entities": [{"type": "BODY", "words": [0, 3]}]}),
        (TAGS, {"entities": [{"type": "BODY", "words": [1, 1]}]}),
        (TAGS, {"entities": [{"type": "BODY", "words": [-1, 1]}]}),
        (TAGS, {"entities": [{"type": "BODY", "words": [0.0, 1]}]}),
        (TAGS, {"entities": [{"type": "LIMB", "words": [0, 1]}]}),
        (
            TAGS,
            {"entities": [{"type": "BODY", "words": [0, 2]}, {"type": "BODY", "words": [1, 2]}]},
        ),
        (TAGS, {"entities": [["BODY", 0, 1]]}),
        (TAGS, {"entities": [7]}),
        (ITEMS, {"item": "d"}),
        (CHAT, {"reply": "  "}),
        (CHAT, {"reply": 7}),
    ],
)
def test_what_the_task_has_not_is_no_correction(answers: Answers, correction: Any) -> None:
    with pytest.raises(DataError, match="correction"):
        answers.corrected(correction, ["two", "words"])


@pytest.mark.parametrize(
    ("answers", "prediction", "said"),
    [
        (TEXT, {"label": "x", "probabilities": {"x": 1.0}, "is_cut": False}, {"label": "x"}),
        (TEXT, {"passages": [{"id": "y", "text": "…"}, {"id": "x"}]}, {"label": "y"}),
        (SCALE, {"score": 2, "grade": 2}, {"score": 2.0}),
        (ITEMS, {"items": [{"item": "c", "score": 0.1}, {"item": "a"}]}, {"items": ["c", "a"]}),
        (ITEMS, {"items": ["c", "a"]}, {"items": ["c", "a"]}),
        (CHAT, {"reply": "because", "is_cut": False}, {"reply": "because"}),
    ],
)
def test_an_answer_is_kept_without_its_probabilities(
    answers: Answers, prediction: Any, said: dict[str, Any]
) -> None:
    assert answers.said(prediction) == said
    assert answers.said(said) == said


@pytest.mark.parametrize("prediction", [None, 7, [], {}, "x", {"label": 3}, {"passages": []}])
def test_what_is_no_prediction_is_refused(prediction: Any) -> None:
    with pytest.raises(DataError, match="answer"):
        TEXT.said(prediction)
    with pytest.raises(DataError, match="answer"):
        SCALE.said({"score": "2"} if prediction == {} else prediction)


def test_what_was_right_is_a_grade_and_one_item() -> None:
    assert SCALE.agreed({"score": 1.7}) == {"score": 2.0}
    assert ITEMS.agreed({"items": ["c", "a"]}) == {"item": "c"}
    assert TEXT.agreed({"label": "x"}) == {"label": "x"}
    with pytest.raises(DataError, match="no item"):
        ITEMS.agreed({"items": []})
