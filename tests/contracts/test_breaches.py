"""Breaks each rule of the contract suites once: the suite must notice every breach."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cloister.adapter.tensors import Adapter
from cloister.data.records import TextRecord, TokenRecord
from cloister.errors import UsageError
from cloister.strategies.arithmetic import coordinate_medians, stepped, weighted_mean
from cloister.strategies.strategy import ServerState, Strategy, Traits
from cloister.tasks.task import Batch, Example
from cloister.tasks.text_task import TextTask
from cloister.testing import check_strategy, check_task


class Sound(Strategy):
    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        return stepped(state, weighted_mean(updates, {}))


class First(Sound):
    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        return stepped(state, next(iter(updates.values())))


class Timid(Sound):
    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        return stepped(state, weighted_mean(updates, {}).scale(0.9))


class Drifting(Sound):
    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        moved = super().aggregate(state, updates)
        drift = Adapter({n: np.full(a.shape, 0.1) for n, a in state.adapter.items()})
        return dataclasses.replace(moved, adapter=moved.adapter + drift)


class Remembering(Sound):
    """Keeps on the class what belongs into the state."""

    heads = 0

    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        if state.round < 2:
            return super().aggregate(state, updates)
        type(self).heads += 1  # another result each time that a late round is asked
        mean = weighted_mean(updates, {})
        return stepped(state, mean.scale(1 / type(self).heads))


class Posing(Sound):
    traits = Traits(is_linear=True)

    def step(self, state: ServerState, mean: Adapter) -> ServerState:
        return stepped(state, mean)


class Lying(Sound):
    traits = Traits(fewest=3, survives=1)


class Restless(Sound):
    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        moved = super().aggregate(state, updates)
        if len(updates["a"]) == 1:  # the head alone travelled
            rest = state.adapter.scale(0.5)
            return dataclasses.replace(
                moved, adapter=rest.replace(moved.adapter.select(["head.w"]))
            )
        return moved


class Robust(Sound):
    traits = Traits(fewest=3, survives=1)

    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        return stepped(state, coordinate_medians(updates))


@pytest.mark.parametrize("method", [Sound, Posing, Robust])
def test_a_sound_strategy_passes(method: type[Strategy]) -> None:
    check_strategy(method)


@pytest.mark.parametrize(
    ("method", "word"),
    [
        (First, "order in which updates arrive"),
        (Timid, "learning rate must be 1"),
        (Drifting, "zero updates moved"),
        (Lying, "controlled the result"),
        (Restless, "in which it was not sent"),
        (Remembering, "keep nothing on the object"),
    ],
)
def test_the_error_of_a_broken_strategy_names_the_rule(method: type[Strategy], word: str) -> None:
    with pytest.raises(AssertionError, match=word):
        check_strategy(method)


def test_a_rate_that_is_asked_for_is_no_breach_of_an_adaptive_one() -> None:
    with pytest.raises(AssertionError):
        check_strategy(Timid)
    check_strategy(Timid, adaptive=True)


RECORDS = [
    TextRecord("chest pain", "a"),
    TextRecord("an itchy rash since monday and no fever at all", "b"),
    TextRecord("a swollen knee", "c"),
]


@dataclasses.dataclass(frozen=True)
class Plain(TextTask):
    """One label of several, as the built-in task has it."""

    smoothing: float = 0.0

    def target(self, record: TextRecord) -> int:
        return self.labels.index(record.label)

    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(
            logits.float(),
            batch.target.to(logits.device),
            reduction="none",
            label_smoothing=self.smoothing,
        )


class Shared(Plain):
    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        losses = super().record_losses(logits, batch)
        return losses + 0.5 * losses.mean()


class Centred(Plain):
    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return super().record_losses(logits - logits.mean(dim=0), batch)


class Contrasting(Plain):
    """Takes the other records of a batch for wrong answers, as retrieval models are trained."""

    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        vectors = F.normalize(logits.float(), dim=1)
        own = torch.arange(len(vectors))
        return F.cross_entropy(vectors @ vectors.T.detach(), own, reduction="none")


class Late(Plain):
    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(logits, batch.target, reduction="none").float()


class Dead(Plain):
    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return super().record_losses(logits.detach(), batch)


class Infinite(Plain):
    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        chosen = torch.softmax(logits.float(), dim=1).gather(1, batch.target[:, None])
        return -chosen[:, 0].log()


class Numbering(Plain):
    """Numbers tokens as they come."""

    def encode(self, record: TextRecord) -> Example:  # type: ignore[override]
        known = self.__dict__.setdefault("known", {})
        found = super().encode(record)
        ids = tuple(known.setdefault(token, len(known)) for token in found.input_ids)
        return dataclasses.replace(found, input_ids=ids)


class Averaging(Plain):
    """Adds a running mean of the losses so far."""

    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        found = super().record_losses(logits, batch)
        before = self.__dict__.get("mean", torch.zeros(()))
        self.__dict__["mean"] = (before + found.detach().mean()) / 2
        return found + before


class Unscored(Plain):
    primary_metric = "accuracy"


def test_a_sound_task_passes_with_its_options() -> None:
    check_task(Plain, RECORDS)
    check_task(Plain, RECORDS, smoothing=0.1)
    with pytest.raises(UsageError, match=r"task\.plugin\.options\.smooth: unknown key"):
        check_task(Plain, RECORDS, smooth=0.1)


@pytest.mark.parametrize(
    ("task", "word"),
    [
        (Shared, "changes with its companions"),
        (Centred, "changes with its companions"),
        (Contrasting, "changes with its companions"),
        (Late, "cast them first|losses are"),
        (Dead, "nothing could be learnt"),
        (Infinite, "is not finite"),
        (Numbering, "encoded differently after other records"),
        (Averaging, "another loss after other batches"),
    ],
)
def test_the_error_of_a_broken_task_names_the_rule(task: type, word: str) -> None:
    with pytest.raises(AssertionError, match=word):
        check_task(task, RECORDS)


def test_records_that_cannot_show_a_breach_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 2"):
        check_task(Plain, RECORDS[:1])
    with pytest.raises(AssertionError, match="give records that differ"):
        check_task(Plain, [RECORDS[0], RECORDS[0]], labels=("a", "b"))


def test_a_built_in_task_is_held_by_its_kind() -> None:
    words = [
        TokenRecord(("chest", "pain"), ("B-X", "I-X")),
        TokenRecord(("no", "rash", "at", "all"), ("O", "B-X", "O", "O")),
    ]
    check_task("token-classification", words)
