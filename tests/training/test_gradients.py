"""The clipped sum against its slow twin, on every family of models."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cloister.data.records import ChatRecord, Message, Record, TextRecord
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.network import trained_parameters
from cloister.privacy.clipping import MARGIN, ClippedSum, clip_and_sum
from cloister.privacy.entropy import OsEntropy
from cloister.privacy.noise import add_noise
from cloister.tasks.config import TaskConfig
from cloister.training import gradients
from cloister.training.gradients import (
    clipped_gradient_sum,
    per_record_hooks,
    plain_gradient_sum,
)
from cloister.training.shapes import candidates
from cloister.training.units import UnitExamples, singles
from cloister.training.workspace import Workspace, open_workspace
from tests.reference.dp_sgd import clipped_sum

TEXTS: list[Record] = [
    TextRecord("chest pain at rest", "a"),
    TextRecord("the patient has a mild rash and severe headache since monday", "b"),
    TextRecord("fever", "a"),
    TextRecord("no fever and no cough", "b"),
]
BOTH = LoraConfig(train="both", top_layers=0)
SHAPES = candidates(32, 512)
CHATS: list[Record] = [
    ChatRecord((Message("user", "fever and cough"), Message("assistant", "severe"))),
    ChatRecord(
        (
            Message("user", "rash"),
            Message("assistant", "itchy rash since monday"),
            Message("user", "no"),
            Message("assistant", "the patient has a mild rash"),
        )
    ),
    ChatRecord((Message("user", "knee"), Message("assistant", "knee swollen"))),
]


def moved(workspace: Workspace) -> Workspace:
    """Away from B = 0, where A's gradients vanish."""
    torch.manual_seed(0)
    with torch.no_grad():
        for _, parameter in trained_parameters(workspace.network):
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return workspace


@pytest.fixture(params=["bert-linear", "bert-lora-head", "gpt2-chat", "llama-chat", "llama-linear"])
def case(
    request: pytest.FixtureRequest, bert: Path, gpt2: Path, llama: Path
) -> tuple[Workspace, list[Record]]:
    base, kind = request.param.split("-", 1)
    folder = {"bert": bert, "gpt2": gpt2, "llama": llama}[base]
    chat = kind == "chat"
    lora = replace(BOTH, head="lora") if kind == "lora-head" else BOTH
    task = TaskConfig(kind="causal-lm" if chat else "sequence-classification", max_length=32)
    labels = () if chat else ("a", "b")
    workspace = open_workspace(ModelConfig(base=str(folder)), lora, task, labels, 0)
    return moved(workspace), CHATS if chat else TEXTS


def values(total: ClippedSum) -> tuple[torch.Tensor, ...]:
    """A sum's floats, as they would be released without noise."""
    return add_noise(total, 0.0, OsEntropy()).tensors


# Bounds under, among and over the records' gradient norms.
@pytest.mark.parametrize("bound", [0.01, 0.5, 100.0])
def test_the_clipped_sum_equals_one_record_at_a_time(
    case: tuple[Workspace, list[Record]], bound: float
) -> None:
    workspace, records = case
    examples = workspace.encode(records)
    aimed = bound * (1 - MARGIN)
    expected, norms = clipped_sum(workspace.network, workspace.task, examples, aimed)
    units = singles(examples)
    with per_record_hooks(workspace.network):
        found = clipped_gradient_sum(workspace.network, workspace.task, units, bound, SHAPES)
    for mine, slow in zip(values(found), expected, strict=True):
        # float32 against float64 over sums of a few hundred products, relative to what was summed
        # (the summands may cancel): about 1e-6.
        assert float((mine.double() - slow).norm()) <= 1e-5 * norms


@pytest.mark.parametrize("max_tokens", [1, 8, 20, 4096])
def test_the_cut_into_passes_does_not_matter(bert: Path, max_tokens: int) -> None:
    workspace = moved(
        open_workspace(ModelConfig(base=str(bert)), BOTH, TaskConfig(max_length=32), ("a", "b"), 0)
    )
    units = singles(workspace.encode(TEXTS))
    with per_record_hooks(workspace.network):
        whole = clipped_gradient_sum(workspace.network, workspace.task, units, 0.5, SHAPES)
        shapes = candidates(32, max_tokens)
        cut = clipped_gradient_sum(workspace.network, workspace.task, units, 0.5, shapes)
    for one, other in zip(values(whole), values(cut), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_passes_that_are_clipped_together_keep_every_bit(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All passes alone, a few together, and all together."""
    workspace = moved(
        open_workspace(ModelConfig(base=str(bert)), BOTH, TaskConfig(max_length=32), ("a", "b"), 0)
    )
    units = singles(workspace.encode(TEXTS))
    calls: list[int] = []

    def counted(rows: list[torch.Tensor], bound: float, grid: float | None) -> ClippedSum:
        calls.append(len(rows[0]))
        return clip_and_sum(rows, bound, grid)

    monkeypatch.setattr(gradients, "clip_and_sum", counted)
    sums, made = [], []
    for most in (1, 3 * workspace.start.size, 2**40):
        monkeypatch.setattr(gradients, "CLIPPED_TOGETHER", most)
        calls.clear()
        with per_record_hooks(workspace.network):
            sums.append(
                clipped_gradient_sum(
                    workspace.network, workspace.task, units, 0.5, candidates(32, 8)
                )
            )
        made.append(len(calls))
        assert sum(calls) == len(units)
    assert made[0] > made[1] > made[2] == 1
    for found in sums[1:]:
        assert all(map(torch.equal, sums[0].tensors, found.tensors))


def test_without_clipping_both_sums_are_alike(bert: Path) -> None:
    workspace = moved(
        open_workspace(ModelConfig(base=str(bert)), BOTH, TaskConfig(max_length=32), ("a", "b"), 0)
    )
    units = singles(workspace.encode(TEXTS))
    with per_record_hooks(workspace.network):
        clipped = clipped_gradient_sum(workspace.network, workspace.task, units, 100.0, SHAPES)
    plain = plain_gradient_sum(workspace.network, workspace.task, units, 64)
    for one, other in zip(values(clipped), plain, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_an_empty_batch_sums_to_zero(bert: Path) -> None:
    workspace = open_workspace(
        ModelConfig(base=str(bert)), BOTH, TaskConfig(max_length=32), ("a", "b"), 0
    )
    with per_record_hooks(workspace.network):
        total = clipped_gradient_sum(workspace.network, workspace.task, [], 1.0, SHAPES)
    assert all(not t.any() for t in total.tensors)
    assert all(not t.any() for t in plain_gradient_sum(workspace.network, workspace.task, [], 64))


def test_a_person_s_records_are_averaged_and_clipped_together(
    case: tuple[Workspace, list[Record]],
) -> None:
    workspace, records = case
    one, *rest = workspace.encode(records)
    bound = 1e-5  # below every norm: each unit contributes exactly so much
    with per_record_hooks(workspace.network):

        def summed(units: list[UnitExamples]) -> tuple[torch.Tensor, ...]:
            return values(
                clipped_gradient_sum(workspace.network, workspace.task, units, bound, SHAPES)
            )

        alone, thrice, pair = summed([(one,)]), summed([(one, one, one)]), summed([(one, *rest)])
    for single, repeated in zip(alone, thrice, strict=True):
        assert torch.allclose(single, repeated, atol=1e-6 * bound + 1e-8)
    assert sum(float(t.square().sum()) for t in pair) ** 0.5 <= bound
    mean = [torch.zeros_like(t) for t in alone]
    for example in (one, *rest):
        plain = plain_gradient_sum(workspace.network, workspace.task, [(example,)], 64)
        mean = [m + p / (1 + len(rest)) for m, p in zip(mean, plain, strict=True)]
    norm = sum(float(m.square().sum()) for m in mean) ** 0.5
    for found, expected in zip(pair, mean, strict=True):
        assert torch.allclose(found, expected * (bound * (1 - MARGIN) / norm), atol=1e-4 * bound)


def test_rows_of_a_unit_are_averaged_and_not_summed(case: tuple[Workspace, list[Record]]) -> None:
    """Under a bound that nothing reaches, where a sum would be so many times as long."""
    workspace, records = case
    one, other, *_ = workspace.encode(records)
    bound = 1e3

    def private(unit: UnitExamples) -> tuple[torch.Tensor, ...]:
        with per_record_hooks(workspace.network):
            total = clipped_gradient_sum(workspace.network, workspace.task, [unit], bound, SHAPES)
        return values(total)

    def plain(unit: UnitExamples) -> tuple[torch.Tensor, ...]:
        return plain_gradient_sum(workspace.network, workspace.task, [unit], 64)

    mean = [(a + b) / 2 for a, b in zip(plain((one,)), plain((other,)), strict=True)]
    # The grid of so large a bound is a millionth; the rest is float32 of another order.
    for found in (private((one, other)), plain((one, other)), private((one, other) * 3)):
        for tensor, expected in zip(found, mean, strict=True):
            assert torch.allclose(tensor, expected, rtol=1e-3, atol=1e-5)
    assert max(float(tensor.abs().max()) for tensor in mean) > 1e-3
