"""Small studies that run in a second: a tiny base and two hospitals' worth of short notes."""

import json
from pathlib import Path

import numpy as np

from cloister.models.config import LoraConfig, ModelConfig
from cloister.recipe import Recipe, parse_recipe
from cloister.tasks.config import TaskConfig
from cloister.training.workspace import Workspace, open_workspace
from tests.support.models import tiny_bert

NOTES = {
    "cardiology": ["chest pain at rest", "severe chest pain", "chest pain since monday"],
    "orthopaedics": ["knee swollen", "the patient has a swollen knee", "mild knee pain"],
    "dermatology": ["itchy rash", "severe rash and itchy", "the rash has no fever"],
}


def write_notes(path: Path, count: int, seed: int = 0) -> Path:
    """A JSONL of `count` notes at two sites, four notes a person."""
    rng = np.random.default_rng(seed)
    labels = list(NOTES)
    rows = []
    for index in range(count):
        label = labels[rng.integers(len(labels))]
        text = NOTES[label][rng.integers(3)]
        site = ("east", "west")[index % 2]
        rows.append({"text": text, "label": label, "site": site, "person": f"p{index // 4}"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def small_recipe(folder: Path, *assignments: str, base: Path | None = None) -> Recipe:
    """Two sites, two rounds of two steps on a tiny BERT; `assignments` change it."""
    return parse_recipe("", [*small_assignments(folder, base), *assignments])


def small_assignments(folder: Path, base: Path | None = None) -> list[str]:
    """The small study as the command line's `--set` values; makes its files."""
    folder.mkdir(parents=True, exist_ok=True)
    model = base or folder / "base"
    if not model.exists():
        tiny_bert(model)
    train, test = folder / "train.jsonl", folder / "test.jsonl"
    if not train.exists():
        write_notes(train, 80, seed=0)
        write_notes(test, 30, seed=1)
    return [
        "study.name=small",
        f"model.base='{model}'",
        f"data.train='{train}'",
        f"data.test='{test}'",
        "data.sites=2",
        "data.public_records=40",
        "task.max_length=16",
        "training.expected_batch_size=10",
        "training.mode=local-steps",
        "training.local_steps=2",
        "training.learning_rate=0.1",
        "training.schedule=constant",
        "lora.train=both",
        "lora.top_layers=0",
        "privacy.max_grad_norm=1.0",
        "federation.num_rounds=2",
        "tracking.tensorboard=false",
    ]


def small_workspace(base: Path, **lora: object) -> Workspace:
    """A workspace on a base for the labels above."""
    return open_workspace(
        ModelConfig(base=str(base)),
        LoraConfig(**({"train": "both", "top_layers": 0} | lora)),  # type: ignore[arg-type]
        TaskConfig(max_length=16),
        tuple(sorted(NOTES)),
        0,
    )
