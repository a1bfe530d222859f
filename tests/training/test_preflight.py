"""The preflight passes sound models untouched, and refuses broken ones by name."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cloister.data.records import ChatRecord, Message, TextRecord
from cloister.errors import PreflightError
from cloister.models.config import LoraConfig, ModelConfig
from cloister.tasks.config import TaskConfig
from cloister.tasks.sequence import SequenceClassification
from cloister.tasks.task import Batch
from cloister.training.preflight import preflight
from cloister.training.workspace import Workspace, open_workspace

RECORDS = [
    TextRecord("the patient has a mild rash and a severe headache since monday", "a"),
    TextRecord("chest pain", "b"),
]


def workspace(base: Path, dtype: str = "float32", **lora: object) -> Workspace:
    return open_workspace(
        ModelConfig(base=str(base), dtype=dtype),  # type: ignore[arg-type]
        LoraConfig(**({"train": "both", "top_layers": 0} | lora)),  # type: ignore[arg-type]
        TaskConfig(max_length=32),
        ("a", "b"),
        0,
    )


def run(opened: Workspace) -> None:
    preflight(opened.network, opened.task, opened.encode(RECORDS))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "lora", [{}, {"train": "b"}, {"train": "none"}, {"head": "lora"}, {"head": "frozen"}]
)
def test_sound_models_pass_and_stay_as_they_were(
    bert: Path, dtype: str, lora: dict[str, object]
) -> None:
    opened = workspace(bert, dtype, **lora)
    before = {name: p.clone() for name, p in opened.network.named_parameters()}
    run(opened)
    for name, parameter in opened.network.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None


def test_a_chat_just_opened_passes(llama: Path) -> None:
    """Looking for its token head runs the network, which no count of calls may see."""
    lora = LoraConfig(train="both", top_layers=0)
    task = TaskConfig(kind="causal-lm", max_length=32)
    opened = open_workspace(ModelConfig(base=str(llama)), lora, task, (), 0)
    turns = (Message("user", "rash"), Message("assistant", "severe rash since monday"))
    preflight(opened.network, opened.task, opened.encode([ChatRecord(turns)] * 2))
    assert opened.network.token_head is not None


def test_dora_is_refused_by_name(bert: Path) -> None:
    with pytest.raises(PreflightError, match=r"lora_magnitude_vector.*use_dora = false"):
        run(workspace(bert, use_dora=True))


def test_lora_on_embeddings_is_refused_by_name(bert: Path) -> None:
    with pytest.raises(PreflightError, match=r"word_embeddings.*target_modules"):
        run(workspace(bert, target_modules=("word_embeddings", "query")))


def test_batch_normalisation_is_refused_by_name(bert: Path) -> None:
    opened = workspace(bert)
    opened.network.add_module("norm", nn.BatchNorm1d(3))
    with pytest.raises(PreflightError, match="norm is a batch normalisation"):
        run(opened)


class MeanOverBatch(SequenceClassification):
    """The trap: each record's loss depends on how many others there are."""

    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return super().record_losses(logits, batch) / len(batch.examples)


def test_a_loss_averaged_over_the_batch_is_caught(bert: Path) -> None:
    opened = workspace(bert)
    task = opened.task
    assert isinstance(task, SequenceClassification)
    broken = MeanOverBatch(task.labels, task.tokenizer, task.max_length, task.pad_id)
    with pytest.raises(PreflightError, match="among others is off"):
        preflight(opened.network, broken, opened.encode(RECORDS))


class Coupled(nn.Module):
    """A head whose output for one record mixes in the others."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.inner(features)
        return scores - scores.mean(dim=0, keepdim=True).roll(1, dims=1)


def test_records_that_see_each_other_are_caught(bert: Path) -> None:
    opened = workspace(bert)
    assert opened.network.head is not None
    opened.network.head = Coupled(opened.network.head)
    with pytest.raises(PreflightError, match="among others is off"):
        run(opened)


class Detached(nn.Module):
    """A head that cuts the way back to the adapters."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.inner(features.detach())
        return scores


def test_a_trained_parameter_without_gradient_is_caught(bert: Path) -> None:
    opened = workspace(bert)
    assert opened.network.head is not None
    opened.network.head = Detached(opened.network.head)
    with pytest.raises(PreflightError, match="gets no gradient"):
        run(opened)
