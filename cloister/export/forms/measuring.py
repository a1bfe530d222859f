"""Measures the size, latency and score of a form on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cloister.export.forms.finished import Finished, Logits, probe_batches
from cloister.tasks.task import Example
from cloister.training.batches import physical_batches
from cloister.training.config import PLAIN_TOKENS
from cloister.training.units import singles

# Number of timed calls (the median is reported), and of calls before them, which fill caches.
CALLS, WARM_UP = 15, 3


@dataclass(frozen=True, kw_only=True)
class FormRow:
    """A form's line in the table.

    Attributes:
        form: Its name.
        bytes: Size of its files on disk.
        milliseconds: Median time of one text on this machine's CPU; None: no library here runs it.
        score: The primary metric on the public test set; None: there is no test set, or no library
            here runs the form.
        difference: Largest difference of a logit from the study's network on built-in sentences,
            divided by the largest logit (or by 1 if all are smaller); None: not computed.
    """

    form: str
    bytes: int
    milliseconds: float | None
    score: float | None
    difference: float | None


def size_of(folder: Path) -> int:
    """Returns the bytes of all files in a folder and its subfolders."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def latency(finished: Finished, logits: Logits) -> float:
    """Returns the median milliseconds for one built-in sentence, as the study's task reads it."""
    batch = probe_batches(finished)[0]
    inputs = {k: v[:1] for k, v in finished.network.inputs(batch).items()}
    length = int(inputs["attention_mask"].sum())
    inputs = {name: tensor[:, :length] for name, tensor in inputs.items()}
    seconds = []
    for call in range(WARM_UP + CALLS):
        begun = time.perf_counter()
        logits(inputs)
        if call >= WARM_UP:
            seconds.append(time.perf_counter() - begun)
    return 1000 * statistics.median(seconds)


def score(finished: Finished, logits: Logits, examples: Sequence[Example]) -> float:
    """Returns the task's primary metric on public examples."""
    task = finished.task
    meter = task.meter()
    for group in physical_batches(singles(examples), PLAIN_TOKENS):
        batch = task.collate([example for (example,) in group])
        meter.add(logits(finished.network.inputs(batch)).float(), batch)
    return float(meter.result()[task.primary_metric])


def difference(finished: Finished, expected: Sequence[Tensor], logits: Logits) -> float:
    """Returns the largest difference of a form's logits from the study's on built-in sentences.

    It is divided by the largest logit, or by 1 if that is smaller. Padding is not compared.

    Args:
        finished: The study's result.
        expected: The study's logits for each batch of `probe_batches`.
        logits: The form's function.
    """
    worst, largest = 0.0, 1.0
    for batch, own in zip(probe_batches(finished), expected, strict=True):
        inputs = finished.network.inputs(batch)
        gap = (logits(inputs) - own).abs()
        if gap.dim() == 3:  # logits at padding have no meaning
            gap = gap * inputs["attention_mask"].unsqueeze(-1)
        worst = max(worst, float(gap.max()))
        largest = max(largest, float(own.abs().max()))
    return worst / largest
