"""A private step of Cloister beside the same step of other libraries: the same records, in turns.

    python -m benchmarks.peer_steps [--texts FILE.jsonl] [--records 64] [--fastdp FOLDER]

Each side trains rank-8 adapters on queries and values of all layers and a new head, on one batch of
records: a forward and a backward pass, each record's gradient clipped, noise, and a step of SGD.
Others pad as their examples do: every record to 128 tokens, or to the longest of its batch. Ours
keeps a record's gradient independent of the other records in its batch, bit for bit; theirs do not
promise that. Stock PEFT is the same step without privacy.

CPU time of one thread is the figure; the wall time is beside it. fastDP is measured from a checkout
of its public source (github.com/awslabs/fast-differential-privacy), if one is given.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.figure import Figure
from benchmarks.peft_steps import ATTENTION
from benchmarks.turns import Taken, in_turns
from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.data.records import Record, TextRecord
from cloister.models.base import find_base
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.network import trained_parameters
from cloister.privacy.entropy import OsEntropy
from cloister.privacy.noise import add_noise
from cloister.tasks.build import labels_of
from cloister.tasks.config import TaskConfig
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks
from cloister.training.shapes import candidates
from cloister.training.units import singles
from cloister.training.workspace import open_workspace

# Longest record, and what "padded to the maximum" pads to: the setting of the goal in README.md.
LONGEST = 128
# Tokens of a pass on a CPU; clip bound, noise and rate change no time.
TOKENS, BOUND, NOISE, RATE = 2048, 1.0, 1.0, 1e-3
RANK = 8
OURS, STOCK = "Cloister", "stock PEFT, to longest, no privacy"
# Peers and the least ratio to ours, by the goals of README.md.
OPACUS: Mapping[str, tuple[str, str, float]] = {
    "Opacus, to 128, hooks": ("max_length", "hooks", 5.0),
    "Opacus, to longest, hooks": ("longest", "hooks", 1.9),
    "Opacus, to 128, ghost": ("max_length", "ghost", 5.0),
    "Opacus, to longest, ghost": ("longest", "ghost", 1.9),
}
FASTDP = {"fastDP, to 128": ("max_length", 5.0), "fastDP, to longest": ("longest", 1.9)}
GOALS = {name: goal for name, (_, _, goal) in OPACUS.items()} | {
    name: goal for name, (_, goal) in FASTDP.items()
}

Step = Callable[[], None]


@dataclass(frozen=True)
class Absent:
    """A peer that is not measured, and why, in words."""

    why: str


@dataclass(frozen=True)
class Work:
    """One batch of texts, with a label each.

    Attributes:
        texts: The texts.
        labels: Their labels' numbers, [B].
        classes: All labels.
        records: The same as records.
    """

    texts: tuple[str, ...]
    labels: Tensor
    classes: tuple[str, ...]
    records: tuple[Record, ...]


def work_of(texts: str, count: int) -> Work:
    """Takes `count` records at equal distances from a file with text and label."""
    found = load(texts, "train", "text", DataConfig(test=None))
    records = [one for one in found if isinstance(one, TextRecord)]
    classes = tuple(labels_of(found, "text"))
    chosen = records[:: max(len(records) // count, 1)][:count]
    labels = torch.tensor([classes.index(str(one.label)) for one in chosen])
    return Work(tuple(one.text for one in chosen), labels, classes, tuple(chosen))


def ours(work: Work) -> Step:
    """Returns Cloister's step, with the row counts of a machine whose proof keeps all."""
    lora = LoraConfig(r=RANK, target_modules=ATTENTION, train="both", top_layers=0)
    opened = open_workspace(ModelConfig(), lora, TaskConfig(max_length=LONGEST), work.classes, 0)
    units = singles(opened.encode(work.records))
    shapes, entropy = candidates(LONGEST, TOKENS), OsEntropy()
    parameters = [parameter for _, parameter in trained_parameters(opened.network)]
    optimizer = torch.optim.SGD(parameters, lr=RATE)

    def step() -> None:
        with per_record_hooks(opened.network):
            total = clipped_gradient_sum(opened.network, opened.task, units, BOUND, shapes)
        for parameter, tensor in zip(
            parameters, add_noise(total, NOISE, entropy).tensors, strict=True
        ):
            parameter.grad = tensor / len(units)
        optimizer.step()
        optimizer.zero_grad()

    return step


def peft_model(classes: Sequence[str]) -> torch.nn.Module:
    """The base with adapters and a new head, as scripts around transformers and PEFT make it."""
    from peft import LoraConfig as PeftConfig
    from peft import TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification

    folder = find_base(ModelConfig().base)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(classes))
    config = PeftConfig(
        task_type=TaskType.SEQ_CLS, r=RANK, lora_alpha=16, target_modules=list(ATTENTION)
    )
    adapted: torch.nn.Module = get_peft_model(model, config)
    return adapted.train()


def tokens_of(work: Work, padding: str) -> Mapping[str, Tensor]:
    """The batch's token ids and mask, padded to `max_length` (128) or to the `longest`."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(find_base(ModelConfig().base))
    found = tokenizer(
        list(work.texts),
        padding=padding,
        truncation=True,
        max_length=LONGEST,
        return_tensors="pt",
    )
    return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}


def stock(work: Work) -> Step:
    """Returns stock PEFT's step, without privacy."""
    model, batch = peft_model(work.classes), tokens_of(work, "longest")
    optimizer = torch.optim.SGD(_trained(model), lr=RATE)

    def step() -> None:
        loss = torch.nn.functional.cross_entropy(model(**batch).logits, work.labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def opacus(work: Work, padding: str, mode: str) -> Step:
    """Returns the step that `PrivacyEngine.make_private` makes.

    Args:
        work: The batch.
        padding: `max_length` or `longest`.
        mode: `hooks` or `ghost`.
    """
    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    model, batch = peft_model(work.classes), tokens_of(work, padding)
    criterion: Any = torch.nn.CrossEntropyLoss()
    made = PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(_trained(model), lr=RATE),
        data_loader=DataLoader(TensorDataset(work.labels), batch_size=len(work.texts)),
        criterion=criterion,
        noise_multiplier=NOISE,
        max_grad_norm=BOUND,
        poisson_sampling=False,
        grad_sample_mode=mode,
    )
    private, optimizer = made[0], made[1]
    if mode == "ghost":
        criterion = made[2]

    def step() -> None:
        criterion(private(**batch).logits, work.labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def fastdp(work: Work, padding: str, checkout: Path | None) -> Step | Absent:
    """Returns fastDP's step, from a checkout of its source; why not, if it cannot be had.

    Args:
        work: The batch.
        padding: `max_length` or `longest`.
        checkout: The folder that has its package `fastDP`; None: not given.
    """
    engine = fastdp_engine(checkout)
    if isinstance(engine, Absent):
        return engine
    try:
        step = _fastdp_step(engine, work, padding)
        step()
    except Exception as error:  # it swaps parts of transformers, of whichever version
        return Absent(f"its step fails with these libraries ({type(error).__name__}: {error})")
    return step


def _fastdp_step(engine: Callable[..., Any], work: Work, padding: str) -> Step:
    model, batch = peft_model(work.classes), tokens_of(work, padding)
    optimizer = torch.optim.SGD(_trained(model), lr=RATE)
    engine(
        model,
        batch_size=len(work.texts),
        sample_size=len(work.texts),
        epochs=1,
        noise_multiplier=NOISE,
        max_grad_norm=BOUND,
        clipping_fn="Abadi",
    ).attach(optimizer)

    def step() -> None:
        torch.nn.functional.cross_entropy(model(**batch).logits, work.labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def fastdp_engine(checkout: Path | None) -> Callable[..., Any] | Absent:
    """Returns fastDP's `PrivacyEngine`, or why it cannot be had."""
    if checkout is None:
        return Absent("no checkout of its source was given (--fastdp FOLDER)")
    if not (checkout / "fastDP" / "__init__.py").is_file():
        return Absent(f"{checkout}: has no package fastDP; give the root of a checkout")
    sys.path.insert(0, str(checkout))
    try:
        engine: Callable[..., Any] = importlib.import_module("fastDP").PrivacyEngine
    except Exception as error:  # of its own dependencies, too
        return Absent(f"its checkout cannot be imported ({type(error).__name__}: {error})")
    finally:
        sys.path.remove(str(checkout))
    return engine


def _trained(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def contenders(work: Work, checkout: Path | None) -> dict[str, Step | Absent]:
    """Returns every side's step by its name, ours first."""
    made: dict[str, Step | Absent] = {OURS: ours(work), STOCK: stock(work)}
    made |= {name: opacus(work, padding, mode) for name, (padding, mode, _) in OPACUS.items()}
    return made | {name: fastdp(work, padding, checkout) for name, (padding, _) in FASTDP.items()}


def measured(
    texts: str, count: int, turns: int, checkout: Path | None
) -> tuple[dict[str, Taken], dict[str, str]]:
    """Measures all sides in turns.

    Returns:
        CPU and wall seconds by name, and by name why a side was not measured.
    """
    import transformers

    transformers.logging.set_verbosity_error()  # that the head is new, for each model
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Opacus': its noise is not cryptographic; hooks on a leaf
        made = contenders(work_of(texts, count), checkout)
        steps = {name: one for name, one in made.items() if not isinstance(one, Absent)}
        absent = {name: one.why for name, one in made.items() if isinstance(one, Absent)}
        return in_turns(steps, turns), absent


def figures(texts: str, count: int, taken: Mapping[str, Taken]) -> Iterator[Figure]:
    """Yields each peer's CPU time over ours.

    Args:
        texts: What the batch was taken from; its name is part of the figures'.
        count: Records of the batch.
        taken: By name, as `measured` returns it.
    """
    about = f"{Path(texts).parent.name or texts}, B = {count}"
    for name, goal in GOALS.items():
        if name in taken:
            yield Figure(f"{name} ÷ ours, {about}", taken[name] / taken[OURS], goal, "at least")


def main() -> None:
    """Measures, and prints each side's CPU and wall time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", default="synthetic:hospitals", help="records with text, label")
    parser.add_argument("--records", type=int, default=64, help="records of the batch")
    parser.add_argument("--turns", type=int, default=5, help="how often each side runs")
    parser.add_argument("--fastdp", type=Path, help="root of a checkout of fastDP's source")
    asked = parser.parse_args()
    taken, absent = measured(asked.texts, asked.records, asked.turns, asked.fastdp)
    print(f"load {os.getloadavg()}")
    for name, one in taken.items():
        print(f"{name:<36} {one.cpu:8.3f} CPU s {one.wall:8.3f} s")
    for name, why in absent.items():
        print(f"{name:<36} not run: {why}")
    for figure in figures(asked.texts, asked.records, taken):
        print(figure)


if __name__ == "__main__":
    main()
