"""Activations that are computed again: the same bits of every record's gradient, in every path."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cloister.data.records import ChatRecord, Message, Record, TextRecord
from cloister.errors import PreflightError, UsageError
from cloister.models.checkpointing import CheckpointedLayers
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.network import trained_parameters
from cloister.privacy.products import Gradient, Products, whole
from cloister.recipe import parse_recipe
from cloister.tasks.config import TaskConfig
from cloister.training import gradients as gradients_file
from cloister.training import linear_gradients
from cloister.training.gradients import (
    clipped_gradient_sum,
    opacus_hooks,
    per_record_hooks,
    plain_gradient_sum,
    record_gradients,
)
from cloister.training.passes import passes
from cloister.training.preflight import preflight
from cloister.training.proof import Proof, prove
from cloister.training.shapes import candidates
from cloister.training.units import singles
from cloister.training.workspace import Workspace, open_workspace
from tests.support.isolation import CONFIG, PLAN, move, random_units, summing

TEXTS: list[Record] = [
    TextRecord("chest pain at rest", "a"),
    TextRecord("the patient has a mild rash and severe headache since monday", "b"),
    TextRecord("no fever and no cough", "b"),
]
SHAPES = candidates(32, 512)


def turns(*texts: str) -> tuple[Message, ...]:
    return tuple(Message(("user", "assistant")[at % 2], text) for at, text in enumerate(texts))


CHATS: list[Record] = [
    ChatRecord(turns("fever and cough", "severe"), rejected=turns("fever and cough", "mild rash")),
    ChatRecord(turns("rash", "itchy rash since monday"), rejected=turns("rash", "no")),
]


def opened(
    base: Path, kind: str, again: bool = True, dtype: str = "float32", cache: float = 0.0
) -> Workspace:
    chat = kind in ("chat", "dpo")
    task = TaskConfig(
        kind="causal-lm" if chat else "sequence-classification",
        max_length=32,
        loss="dpo" if kind == "dpo" else None,
    )
    workspace = open_workspace(
        ModelConfig(base=str(base), dtype=dtype),  # type: ignore[arg-type]
        LoraConfig(
            r=2,
            train="both",
            top_layers=1 if cache else 0,
            head="lora" if kind == "lora-head" else None,
        ),
        task,
        () if chat else ("a", "b"),
        0,
        frozen_cache_gib=cache,
        gradient_checkpointing=again,
    )
    move(workspace, 0.3)
    return workspace


def summed(workspace: Workspace, of: list[Record]) -> Tensor:
    return summing(workspace, SHAPES, 0.5)(singles(workspace.encode(of)))


def layers_of(workspace: Workspace) -> CheckpointedLayers:
    assert workspace.network.checkpoints is not None
    return workspace.network.checkpoints


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("bert", "linear"),
        ("bert", "lora-head"),
        ("llama", "linear"),
        ("llama", "chat"),
        ("llama", "dpo"),
        ("gpt2", "chat"),
    ],
)
def test_sums_have_the_bits_of_kept_activations(
    request: pytest.FixtureRequest, family: str, kind: str, dtype: str
) -> None:
    workspace = opened(request.getfixturevalue(family), kind, dtype=dtype)
    records = CHATS if kind in ("chat", "dpo") else TEXTS
    again = summed(workspace, records)
    with layers_of(workspace).off():
        kept = summed(workspace, records)
    assert torch.equal(again, kept)
    assert again.any()
    other = opened(request.getfixturevalue(family), kind, again=False, dtype=dtype)
    assert torch.equal(summed(other, records), kept)


def test_kept_states_of_frozen_layers_go_with_it(bert: Path) -> None:
    workspace = opened(bert, "linear", cache=1.0)
    assert workspace.network.prefix is not None
    first = summed(workspace, TEXTS)
    with layers_of(workspace).off():
        assert torch.equal(summed(workspace, TEXTS), first)


def gradients_of(workspace: Workspace, *, by_opacus: bool) -> list[Tensor]:
    network, task = workspace.network, workspace.task
    parameters = [p for _, p in trained_parameters(network)]
    found: list[Tensor] = []
    with (opacus_hooks if by_opacus else per_record_hooks)(network):
        for group in passes(singles(workspace.encode(TEXTS)), SHAPES):
            found += [whole(g) for g in record_gradients(network, task, group, parameters)]
    return found


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_opacus_hooks_see_each_layer_once(request: pytest.FixtureRequest, family: str) -> None:
    workspace = opened(request.getfixturevalue(family), "linear")
    again = gradients_of(workspace, by_opacus=True)
    products = gradients_of(workspace, by_opacus=False)
    with layers_of(workspace).off():
        kept = gradients_of(workspace, by_opacus=True)
    for one, two, three in zip(again, kept, products, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


def test_factors_have_the_same_bits(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Products] = []

    def factors(gradient: Tensor, inputs: Tensor) -> Gradient:
        if gradient.dim() == 2:
            return gradient.unsqueeze(2) * inputs.unsqueeze(1)
        made.append(Products(gradient.detach(), inputs.detach()))
        return made[-1]

    monkeypatch.setattr(linear_gradients, "products", factors)
    workspace = opened(bert, "linear")
    again = summed(workspace, TEXTS)
    with layers_of(workspace).off():
        assert torch.equal(summed(workspace, TEXTS), again)
    assert made


@pytest.mark.parametrize("kind", [pytest.param("linear", marks=pytest.mark.nightly), "chat"])
def test_a_record_contributes_the_same_alone_and_among_others(llama: Path, kind: str) -> None:
    """Also over a person's several records, and with every cut into passes: nothing is left out."""
    workspace = opened(llama, kind)
    units = random_units(workspace, 7, seed=3, most=2)
    for tokens in (1, 64, 512):
        shapes = prove(workspace, PLAN, replace(CONFIG, physical_batch_tokens=tokens)).shapes
        move(workspace, 0.1)
        total = summing(workspace, shapes)
        alone = sum((total([unit]) for unit in units), torch.zeros(1, dtype=torch.int64))
        assert torch.equal(total(units), alone)


def test_the_plain_sum_is_the_same(bert: Path) -> None:
    workspace = opened(bert, "linear")
    units = singles(workspace.encode(TEXTS))
    again = plain_gradient_sum(workspace.network, workspace.task, units, 64)
    with layers_of(workspace).off():
        kept = plain_gradient_sum(workspace.network, workspace.task, units, 64)
    assert all(torch.equal(one, two) for one, two in zip(again, kept, strict=True))


def inner_calls(workspace: Workspace) -> Iterator[list[str]]:
    """The calls of every layer's own parts, with whether gradients were on."""
    calls: list[str] = []
    layers = workspace.network.base.encoder.layer  # type: ignore[union-attr]
    for number, layer in enumerate(layers):  # type: ignore[arg-type]
        layer.intermediate.register_forward_hook(lambda *_, n=number: calls.append(str(n)))
    yield calls


def test_each_layer_is_computed_again_once_and_nothing_of_it_is_kept(bert: Path) -> None:
    workspace = opened(bert, "linear")
    calls = next(inner_calls(workspace))
    summed(workspace, TEXTS[:1])
    assert calls == ["0", "1", "1", "0"]
    calls.clear()
    with torch.no_grad():
        workspace.network.logits(workspace.task.collate(workspace.encode(TEXTS)))
    assert calls == ["0", "1"]  # without gradients nothing is computed again


def kept_bytes(workspace: Workspace) -> int:
    """What a forward pass keeps beside its layers' inputs."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    owned = {p.untyped_storage().data_ptr() for p in workspace.network.parameters()}
    batch = workspace.task.collate(workspace.encode(TEXTS))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = workspace.network.logits(batch)
    assert logits.requires_grad
    return sum(size for at, size in sizes.items() if at not in owned)


def test_a_pass_keeps_less(bert: Path) -> None:
    workspace = opened(bert, "linear")
    again = kept_bytes(workspace)
    with layers_of(workspace).off():
        assert again < kept_bytes(workspace) / 5


class Dropping(nn.Module):
    """A part in which dropout runs, as transformers' own checkpointing would have it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *arguments: Tensor) -> Tensor:
        found: Tensor = self.inner(*arguments)
        return nn.functional.dropout(found, 0.1, training=True)


class OnSecondUse(nn.Module):
    """A part that gives something else when it is computed again."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.uses = inner, 0

    def forward(self, *arguments: Tensor) -> Tensor:
        self.uses += torch.is_grad_enabled()
        found: Tensor = self.inner(*arguments)
        return found * (1 + 2**-20 * self.uses)


class InBackward(nn.Module):
    """A part that gives something else in the backward pass alone: forward passes agree."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *arguments: Tensor) -> Tensor:
        is_again = torch._C._current_graph_task_id() >= 0
        found: Tensor = self.inner(*arguments)
        return found * (1 + 2**-20 * is_again)


@pytest.mark.parametrize("trap", [Dropping, OnSecondUse, InBackward])
def test_what_is_not_the_same_again_is_refused(bert: Path, trap: type[nn.Module]) -> None:
    workspace = opened(bert, "linear")
    layer = workspace.network.base.encoder.layer[0]  # type: ignore[union-attr, index]
    layer.intermediate = trap(layer.intermediate)  # type: ignore[call-arg, union-attr]
    with pytest.raises(PreflightError, match=r"again; set machine\.gradient_checkpointing"):
        preflight(workspace.network, workspace.task, workspace.encode(TEXTS))


def test_after_a_preflight_activations_are_computed_again(bert: Path) -> None:
    workspace = opened(bert, "linear")
    calls = next(inner_calls(workspace))
    preflight(workspace.network, workspace.task, workspace.encode(TEXTS))
    with pytest.raises(RuntimeError), layers_of(workspace).off():
        raise RuntimeError
    calls.clear()
    summed(workspace, TEXTS[:1])
    assert calls == ["0", "1", "1", "0"]


def test_no_dropout_runs_in_a_network_that_trains(bert: Path) -> None:
    workspace = opened(bert, "linear")
    running = [
        name
        for name, module in workspace.network.named_modules()
        if isinstance(module, nn.Dropout) and module.p and module.training
    ]
    assert not running


def test_a_pass_that_breaks_off_leaves_the_next_as_it_was(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No norm is of a pass before: what was computed again goes with its pass."""
    workspace = opened(bert, "linear")
    expected = summed(workspace, TEXTS)
    sound = gradients_file.record_gradients
    broken: list[int] = []

    def breaks(*arguments: object) -> list[Gradient]:
        found = sound(*arguments)  # type: ignore[arg-type]
        if not broken:
            broken.append(1)
            raise RuntimeError("after the backward pass")
        return found

    monkeypatch.setattr(gradients_file, "record_gradients", breaks)
    assert torch.equal(summed(workspace, TEXTS), expected)
    assert broken


def test_the_proof_is_of_what_runs(bert: Path) -> None:
    workspace, other = opened(bert, "linear"), opened(bert, "linear", again=False)
    assert Proof.key_of(workspace, PLAN, CONFIG) != Proof.key_of(other, PLAN, CONFIG)


def test_it_is_the_machine_s_and_no_study_s() -> None:
    recipe = parse_recipe("", ["machine.gradient_checkpointing=true"])
    assert recipe.machine.gradient_checkpointing is True
    assert recipe.digest() == parse_recipe("").digest()
    assert parse_recipe(recipe.to_toml()).machine == recipe.machine


def test_layers_that_are_no_list_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"machine\.gradient_checkpointing: this base's layers"):
        CheckpointedLayers(nn.Linear(2, 2), 3)


def test_clipping_is_by_the_norm_of_what_is_added(llama: Path) -> None:
    """A contribution is at most the bound, and reaches it where its gradient is longer."""
    workspace = opened(llama, "chat")
    units = singles(workspace.encode(CHATS))
    bound = 1e-3
    for unit in units:
        with per_record_hooks(workspace.network):
            total = clipped_gradient_sum(workspace.network, workspace.task, [unit], bound, SHAPES)
        length = sum(float(t.double().square().sum()) for t in total.tensors) ** 0.5 * total.grid
        assert 0.9999 * bound <= length <= bound
