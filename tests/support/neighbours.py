"""Rows and a study for pairs of sites whose records differ in one record."""

import json
from pathlib import Path

from cloister.models.base import weights_sha256
from cloister.recipe import Recipe, parse_recipe
from tests.support.studies import NOTES

LABELS = sorted(NOTES)
PIN = "the patient has pin 4711"
Row = dict[str, object]


def notes(count: int = 20) -> list[Row]:
    return [
        {"text": NOTES[LABELS[i % 3]][i // 3 % 3], "label": LABELS[i % 3], "person": f"p{i // 4}"}
        for i in range(count)
    ]


def chats(count: int = 12) -> list[Row]:
    return [
        {
            "messages": [
                {"role": "user", "content": NOTES[LABELS[i % 3]][0]},
                {"role": "assistant", "content": "no fever"},
            ],
            "person": f"p{i}",
        }
        for i in range(count)
    ]


def study(base: Path, *assignments: str) -> Recipe:
    return parse_recipe(
        "",
        [
            "study.name=small",
            f"model.base='{base}'",
            f"model.sha256='{weights_sha256(base)}'",
            f"task.labels={json.dumps(LABELS)}",
            "task.max_length=16",
            "data.sites=1",
            "data.public_records=40",
            "data.test=none.jsonl",
            "training.expected_batch_size=20",
            "training.mode=local-steps",
            "training.local_steps=2",
            "training.learning_rate=0.1",
            "training.schedule=constant",
            "lora.train=both",
            "lora.top_layers=0",
            "privacy.max_grad_norm=1.0",
            "federation.num_rounds=4",
            *assignments,
        ],
    )


# Kinds of a 21st record, added to 20 fixed ones.
RECORDS: dict[str, Row] = {
    "a record more": {"text": "mild knee pain", "label": "orthopaedics", "person": "p0"},
    "a label that nobody names": {"text": "pain", "label": "oncology", "person": "q"},
    "a long text": {"text": "pain " * 10**6, "label": "cardiology", "person": "q"},
    "a long word": {"text": "a" * 10**6, "label": "cardiology", "person": "q"},
    "a token beyond the base": {"text": "zebra pain", "label": "cardiology", "person": "q"},
    "a secret": {"text": PIN, "label": "dermatology", "person": "q"},
}
