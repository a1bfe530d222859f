"""Checks a plug-in's task: an exception or a wrong result becomes an error that names it.

No error quotes the plug-in's own message, which may contain a record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import index
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from cloister.data.records import Record, RecordKind
from cloister.errors import PluginError
from cloister.tasks.config import TaskPlugin
from cloister.tasks.task import Batch, BatchShape, Example, Meter
from cloister.tasks.text_task import TextTask

Given = TypeVar("Given")


class GuardedTask:
    """A plug-in's task with every call checked.

    Attributes:
        kind: The plug-in's name.
        record_kind: As the recipe states it.
        origin: Package, version and options: what a machine's proof of it depends on.
    """

    def __init__(self, kind: str, made: Any, plugin: TaskPlugin) -> None:
        self.kind = kind
        self.record_kind: RecordKind = plugin.records
        self.origin = (plugin.distribution, plugin.version, plugin.options)
        self._made = made
        self.labels = self._call("labels", lambda: tuple(str(name) for name in made.labels))
        self.max_length = self._call("max_length", lambda: int(made.max_length))
        self.primary_metric = self._call("primary_metric", lambda: str(made.primary_metric))
        if not self.labels:
            self._fail("labels", "none given; at least one is needed")

    def encode(self, record: Record) -> Example:
        """Turns a record into tokens.

        Raises:
            TypeError: The plug-in did not return token ids and a class (or a class per token), or
                it asked Python to exit. The record then counts as unusable, as after any other
                exception of the plug-in.
        """
        try:
            example = self._made.encode(record)
        except SystemExit:  # not an Exception: one record could end the site's process
            raise TypeError("SystemExit") from None
        if not isinstance(example, Example) or not 0 < len(example.input_ids) <= self.max_length:
            raise TypeError("not an Example of 1 to max_length tokens")
        target = example.target  # NumPy's and torch's integers become Python's
        return replace(
            example,
            input_ids=tuple(map(index, example.input_ids)),
            target=tuple(map(index, target)) if isinstance(target, tuple) else index(target),
        )

    def collate(self, examples: Sequence[Example], shape: BatchShape | None = None) -> Batch:
        """Pads examples into a batch."""
        batch = self._call("collate", lambda: self._made.collate(examples, shape))
        if not isinstance(batch, Batch):
            self._fail("collate", f"{type(batch).__name__} returned; a Batch is needed")
        rows = len(examples) if shape is None else shape.rows
        if len(batch.input_ids) != rows or batch.input_ids.shape != batch.attention_mask.shape:
            self._fail("collate", f"a batch of other than {rows} rows returned")
        return batch

    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """One float32 loss per row, [B]."""
        losses = self._call("record_losses", lambda: self._made.record_losses(logits, batch))
        if not isinstance(losses, Tensor) or losses.shape != (len(logits),):
            shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            self._fail("record_losses", f"{shape} returned; one loss a row is needed")
        if losses.dtype != torch.float32:
            self._fail("record_losses", f"{losses.dtype} returned; float32 is needed")
        return losses

    @property
    def has_mean_scores(self) -> bool:
        """Whether all of its scores are means over records, as `TextTask` computes them."""
        kind = type(self._made)
        return issubclass(kind, TextTask) and kind.meter is TextTask.meter

    def record_scores(self, logits: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Returns its scores besides the loss, float32 [B] each; of means over records only."""
        if not self.has_mean_scores:
            return {}
        found = self._call(
            "scores",
            lambda: {str(n): v.float() for n, v in self._made.scores(logits, batch).items()},
        )
        for name, values in found.items():
            if values.shape != (len(logits),):
                self._fail("scores", f"{tuple(values.shape)} returned as {name}; [B] is needed")
        return found

    def meter(self) -> Meter:
        """Returns the plug-in's new meter, whose calls are checked too."""
        return _GuardedMeter(self, self._call("meter", self._made.meter))

    def _call(self, what: str, call: Callable[[], Given]) -> Given:
        try:
            return call()
        except PluginError:
            raise
        except (Exception, SystemExit) as error:
            self._fail(what, type(error).__name__, error)

    def _fail(self, what: str, why: str, cause: BaseException | None = None) -> NoReturn:
        raise PluginError(
            f"task.kind: {self.kind} failed in {what}: {why}; correct the plug-in, and test it "
            "with cloister.testing.check_task"
        ) from cause


class _GuardedMeter:
    """A plug-in's meter, whose scores are numbers by name."""

    def __init__(self, task: GuardedTask, made: Any) -> None:
        self._task, self._made = task, made

    def add(self, logits: Tensor, batch: Batch) -> None:
        """Adds one batch to the scores."""
        self._task._call("meter.add", lambda: self._made.add(logits, batch))

    def result(self) -> dict[str, float]:
        """Scores of everything added, by name."""
        task = self._task
        found = task._call(
            "meter.result", lambda: {str(k): float(v) for k, v in self._made.result().items()}
        )
        for needed in (task.primary_metric, "loss"):
            if needed not in found:
                task._fail("meter.result", f"no {needed} among its scores")
        return found

    def report(self) -> Mapping[str, Mapping[str, float]]:
        """Scores per class, where the task has them."""
        found = self._task._call("meter.report", lambda: dict(self._made.report()))
        self._task._call("meter.report", lambda: json.dumps(found))
        return found
