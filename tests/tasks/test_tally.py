"""Sums of records give the scores that a task's own meter gives, for every task."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from cloister.data.records import (
    ChatRecord,
    ItemsRecord,
    LabelsRecord,
    Message,
    PairRecord,
    Record,
    ScoreRecord,
    TextRecord,
    TokenRecord,
)
from cloister.tasks.build import build_task
from cloister.tasks.chat import ChatMeter
from cloister.tasks.config import TaskConfig
from cloister.tasks.tally.chosen import tally_of
from cloister.tasks.tally.label_tally import MOST_CONFUSED, LabelTally
from cloister.tasks.task import Meter, Task
from tests.support.models import WORDS, word_tokenizer
from tests.support.plugins import Site

LABELS = ("a", "b", "c")
MANY = tuple(f"l{n:02}" for n in range(MOST_CONFUSED + 1))
COUNT = 12
# What no sum over records gives: areas under curves of all records' probabilities.
NOT_SUMS = {"mean_ap", "average_precision"}


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def texts(labels: Sequence[str]) -> list[Record]:
    return [TextRecord("fever", str(rng(n).choice(list(labels)))) for n in range(COUNT)]


def tags(n: int) -> tuple[str, ...]:
    return tuple(rng(n).choice(["O", "B-X", "I-X", "B-Y", "I-Y"], 4).tolist())


def chat(n: int) -> ChatRecord:
    reply = " ".join(rng(n).choice(list(WORDS), 1 + n % 4))
    return ChatRecord((Message("user", "fever"), Message("assistant", reply)))


def cases(folder: Path) -> dict[str, tuple[TaskConfig, tuple[str, ...], list[Record]]]:
    items = folder / "items.jsonl"
    rows = [{"item": f"i{n}", "text": WORDS[n]} for n in range(6)]
    items.write_text("".join(json.dumps(row) + "\n" for row in rows))
    passages = {"rash": "itchy rash", "chest": "chest pain", "knee": "swollen knee"}
    return {
        "sequence": (TaskConfig(max_length=16), LABELS, texts(LABELS)),
        "many labels": (TaskConfig(max_length=16), MANY, texts(MANY)),
        "pairs": (
            TaskConfig(kind="text-pairs", max_length=16),
            LABELS,
            [PairRecord("fever", LABELS[n % 3], text_b="rash") for n in range(COUNT)],
        ),
        "labels": (
            TaskConfig(kind="multi-label-classification", max_length=16),
            LABELS,
            [
                LabelsRecord("fever", tuple(x for x in LABELS if rng(n).random() < 0.5))
                for n in range(COUNT)
            ],
        ),
        "tokens": (
            TaskConfig(kind="token-classification", max_length=16),
            ("X", "Y"),
            [TokenRecord(("fever",) * 4, tags(n)) for n in range(COUNT)],
        ),
        "grades": (
            TaskConfig(kind="scoring", max_length=16, score_range=(1.0, 5.0), score_step=1.0),
            (),
            [ScoreRecord("fever", float(1 + n % 5)) for n in range(COUNT)],
        ),
        "scores": (
            TaskConfig(kind="scoring", max_length=16, score_range=(-2.0, 5.0)),
            (),
            [ScoreRecord("fever", n / 5) for n in range(COUNT)],
        ),
        "retrieval": (
            TaskConfig(kind="retrieval", max_length=12, passages=tuple(passages.items())),
            (),
            [TextRecord("fever", sorted(passages)[n % 3]) for n in range(COUNT)],
        ),
        "items": (
            TaskConfig(kind="recommendation", items=str(items), max_length=16),
            (),
            [ItemsRecord(("i0", f"i{1 + n % 2}", f"i{3 + n % 3}")) for n in range(COUNT)],
        ),
        "chat": (TaskConfig(kind="causal-lm", max_length=32), (), [chat(n) for n in range(COUNT)]),
    }


NAMES = [
    "sequence",
    "many labels",
    "pairs",
    "labels",
    "tokens",
    "grades",
    "scores",
    "retrieval",
    "items",
    "chat",
]


def both(task: Task, records: Sequence[Record]) -> tuple[Meter, np.ndarray]:
    """The task's meter after random outputs in batches of five, and its tally's sums."""
    meter, tally, sums = task.meter(), tally_of(task), []
    examples = [task.encode(record) for record in records]
    for start in range(0, len(examples), 5):
        batch = task.collate(examples[start : start + 5])
        made = torch.Generator().manual_seed(start)
        if isinstance(meter, ChatMeter):
            losses = torch.rand(batch.target[:, 1:].shape, generator=made)
            outputs = losses * (batch.target[:, 1:] != -100)
            meter.add_losses(outputs, batch)
        else:
            rows, length = batch.input_ids.shape
            wide = len(task.labels)
            shape = (rows, length, wide) if task.record_kind == "tokens" else (rows, wide)
            outputs = torch.randn(shape, generator=made)
            meter.add(outputs, batch)
        sums.append(tally.rows(outputs, batch))
    return meter, np.concatenate(sums)


@pytest.mark.parametrize("name", NAMES)
def test_sums_give_the_scores_of_the_meter(name: str, tmp_path: Path) -> None:
    config, labels, records = cases(tmp_path)[name]
    task = build_task(config, labels, word_tokenizer())
    meter, rows = both(task, records)
    tally = tally_of(task)
    assert rows.shape == (COUNT, len(tally.names))
    assert rows[:, 0].tolist() == [1.0] * COUNT
    expected = {k: v for k, v in meter.result().items() if k not in NOT_SUMS}
    found = tally.scores(rows.sum(axis=0))
    assert {k: float(v) for k, v in found.items()} == pytest.approx(expected, abs=1e-6)
    assert next(iter(found)) == task.primary_metric
    # Of many sets at once, as a bootstrap asks.
    twice = tally.scores(np.stack([rows.sum(axis=0), rows[:5].sum(axis=0)]))
    assert all(float(twice[k][0]) == pytest.approx(float(found[k])) for k in found)
    assert tally.shares <= found.keys()
    report = meter.report()
    for label, values in tally.by_class(rows.sum(axis=0)).items():
        wanted = {k: v for k, v in report.get(label, {}).items() if k not in NOT_SUMS}
        if wanted:
            assert {k: float(v) for k, v in values.items()} == pytest.approx(wanted)


def test_a_record_s_values_do_not_depend_on_its_companions(tmp_path: Path) -> None:
    config, labels, records = cases(tmp_path)["sequence"]
    task = build_task(config, labels, word_tokenizer())
    tally, logits = (
        tally_of(task),
        torch.randn(COUNT, 3, generator=torch.Generator().manual_seed(1)),
    )
    examples = [task.encode(record) for record in records]
    whole = tally.rows(logits, task.collate(examples))
    for place in (0, 5, COUNT - 1):
        alone = tally.rows(logits[place : place + 1], task.collate([examples[place]]))
        assert np.array_equal(alone[0], whole[place])


def test_a_matrix_is_kept_where_it_fits_on_a_page(tmp_path: Path) -> None:
    few, many = (
        build_task(TaskConfig(max_length=16), labels, word_tokenizer()) for labels in (LABELS, MANY)
    )
    assert LabelTally(few).is_matrix
    assert not LabelTally(many).is_matrix
    rows = both(few, texts(LABELS))[1]
    matrix = LabelTally(few).confusion(rows.sum(axis=0))
    assert matrix is not None
    assert matrix.sum() == COUNT
    counts, _, right = LabelTally(few).bins(rows.sum(axis=0))
    assert counts.sum() == COUNT
    assert right.sum() == np.trace(matrix)


PLUGIN = """
from dataclasses import dataclass
import torch.nn.functional as F
from cloister.tasks.text_task import TextTask

@dataclass(frozen=True)
class Mine(TextTask):
    def target(self, record):
        return self.labels.index(record.label)
    def record_losses(self, logits, batch):
        return F.cross_entropy(logits.float(), batch.target, reduction="none")
    def scores(self, logits, batch):
        return {"hit": (logits.argmax(1) == batch.target).float()}

class Own(Mine):
    def meter(self):
        return super().meter()
"""


@pytest.mark.parametrize(("name", "scores"), [("Mine", ["hit", "loss"]), ("Own", ["loss"])])
def test_a_plug_in_has_its_loss_and_the_scores_that_are_means(
    name: str, scores: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloister.tasks.plugins import read_task

    Site(tmp_path / "installed", monkeypatch).module("mine_tally", PLUGIN)
    table = {"kind": f"mine_tally:{name}", "labels": list(LABELS), "max_length": 16}
    problems: list[str] = []
    config = read_task(table, problems, is_whole=False, imports=True)
    assert config is not None, problems
    task = build_task(config, LABELS, word_tokenizer())
    meter, rows = both(task, texts(LABELS))
    found = tally_of_rows(task, rows)
    expected = meter.result()
    assert sorted(found) == scores
    assert found == pytest.approx({key: expected[key] for key in found}, abs=1e-6)


def tally_of_rows(task: Task, rows: np.ndarray) -> dict[str, float]:
    tally = tally_of(task)
    examples = [task.encode(record) for record in texts(LABELS)][:1]
    tally.rows(torch.zeros(1, len(task.labels)), task.collate(examples))  # names its scores
    return {key: float(value) for key, value in tally.scores(rows.sum(axis=0)).items()}
