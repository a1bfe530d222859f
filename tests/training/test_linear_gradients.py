"""The batched products of linear layers against Opacus' hooks, and gradients kept as factors."""

from pathlib import Path

import pytest
import torch
from torch import nn

from cloister.data.records import TextRecord
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.network import trained_parameters
from cloister.privacy.clipping import clip_and_sum, contributions
from cloister.privacy.products import Gradient, Products, whole
from cloister.tasks.config import TaskConfig
from cloister.training import linear_gradients
from cloister.training.gradients import (
    clipped_gradient_sum,
    opacus_hooks,
    per_record_hooks,
    record_gradients,
)
from cloister.training.layer_gradients import known_layers
from cloister.training.linear_gradients import per_record, products
from cloister.training.passes import passes
from cloister.training.shapes import candidates
from cloister.training.units import singles
from cloister.training.workspace import Workspace, open_workspace

TEXTS = [
    TextRecord("chest pain at rest", "a"),
    TextRecord("the patient has a mild rash and severe headache since monday", "b"),
    TextRecord("no fever and no cough", "b"),
]


def opened(folder: Path, head: str = "linear") -> Workspace:
    lora = LoraConfig(train="both", top_layers=0, head=head)  # type: ignore[arg-type]
    workspace = open_workspace(
        ModelConfig(base=str(folder)), lora, TaskConfig(max_length=32), ("a", "b"), 0
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for _, parameter in trained_parameters(workspace.network):
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return workspace


def gradients_of(workspace: Workspace, *, by_opacus: bool) -> list[torch.Tensor]:
    network, task = workspace.network, workspace.task
    parameters = [p for _, p in trained_parameters(network)]
    units = singles(workspace.encode(TEXTS))
    found: list[torch.Tensor] = []
    with (opacus_hooks if by_opacus else per_record_hooks)(network):
        for group in passes(units, candidates(32, 512)):
            found += [whole(g) for g in record_gradients(network, task, group, parameters)]
    assert all(parameter.grad is None for parameter in parameters)
    return found


@pytest.mark.parametrize("head", ["linear", "lora"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_products_are_opacus_gradients_bit_for_bit(
    request: pytest.FixtureRequest, family: str, head: str
) -> None:
    workspace = opened(request.getfixturevalue(family), head)
    assert known_layers(workspace.network) is not None
    mine = gradients_of(workspace, by_opacus=False)
    others = gradients_of(workspace, by_opacus=True)
    for one, other in zip(mine, others, strict=True):
        assert torch.equal(one, other)


def test_what_is_no_linear_layer_goes_through_opacus(bert: Path) -> None:
    network = opened(bert).network
    norm = next(m for m in network.modules() if isinstance(m, nn.LayerNorm))
    norm.weight.requires_grad_(True)
    assert known_layers(network) is None


def test_layers_are_as_they_were_afterwards() -> None:
    layer = nn.Linear(3, 2)
    with per_record([layer]):
        assert "forward" in vars(layer)
    assert "forward" not in vars(layer)
    layer(torch.ones(4, 3)).sum().backward()
    assert layer.weight.grad is not None


def test_a_layer_s_gradients_are_those_of_each_record_alone() -> None:
    """Of a pass that calls it twice too, and with nothing left of the whole batch."""
    torch.manual_seed(0)
    layer, inputs = nn.Linear(5, 4), torch.randn(6, 3, 5, requires_grad=True)

    def losses(rows: torch.Tensor) -> torch.Tensor:
        return (layer(rows).tanh() + layer(rows * 2).sin()).flatten(1).sum(1)

    with per_record([layer]):
        losses(inputs).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad is None
    through = inputs.grad
    for row in range(len(inputs)):
        alone = inputs[row : row + 1].detach().requires_grad_()
        layer.zero_grad(set_to_none=True)
        losses(alone).sum().backward()
        for parameter in (layer.weight, layer.bias):
            assert torch.allclose(parameter.grad_sample[row], parameter.grad, atol=1e-5)  # type: ignore[attr-defined, arg-type]
        assert through is not None
        assert torch.allclose(through[row], alone.grad[0], atol=1e-5)  # type: ignore[index]


def wide(units: int = 9) -> list[Gradient]:
    """Factors of two layers, and a gradient that is there."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return [
        Products(normal(units, 5, 100), normal(units, 5, 401)),
        normal(units, 7, 3),
        Products(normal(units, 2, 401), normal(units, 2, 100)),
    ]


@pytest.mark.parametrize("bound", [0.1, pytest.param(1e5, marks=pytest.mark.nightly)])
def test_factors_are_clipped_as_what_they_make_bit_for_bit(bound: float) -> None:
    kept = wide()
    made = [whole(gradient) for gradient in kept]
    total, expected = clip_and_sum(kept, bound), clip_and_sum(made, bound)
    assert all(torch.equal(a, b) for a, b in zip(total.tensors, expected.tensors, strict=True))
    parts = contributions(kept, bound)
    for part, other, tensor in zip(parts, contributions(made, bound), total.tensors, strict=True):
        assert torch.equal(part, other)
        assert torch.equal(part.double().sum(0).long(), tensor)
    for unit in range(9):
        alone = clip_and_sum([g[unit : unit + 1] for g in kept], bound)
        assert sum(int(v) ** 2 for t in alone.tensors for v in t.flatten()) <= (
            (bound / alone.grid) ** 2
        )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e25])
def test_a_unit_whose_factors_are_not_finite_contributes_zero(value: float) -> None:
    kept = wide()
    rest = clip_and_sum([g[[0, 1, 2, 4, 5, 6, 7, 8]] for g in kept], 1.0)
    first = kept[0]
    assert isinstance(first, Products)
    first.left[3, 0, 0] = value
    first.right[3] *= 1e20
    total = clip_and_sum(kept, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(total.tensors, rest.tensors, strict=True))


def test_only_large_parts_of_few_tokens_are_kept_as_factors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few, many = torch.ones(2, 4, 200), torch.ones(2, 300, 200)
    assert isinstance(products(few, few), Products)
    assert isinstance(products(many, many), torch.Tensor)
    assert isinstance(products(few.bfloat16(), few.bfloat16()), torch.Tensor)
    monkeypatch.setattr(linear_gradients, "LEAST_PART", 200**2 + 1)
    assert torch.equal(whole(products(few, few)), torch.full((2, 200, 200), 4.0))


@pytest.mark.parametrize("persons", [False, True])
def test_a_study_s_sum_is_the_same_from_factors(
    bert: Path, monkeypatch: pytest.MonkeyPatch, persons: bool
) -> None:
    """Forced on a small base."""

    def factors(gradient: torch.Tensor, inputs: torch.Tensor) -> Gradient:
        if gradient.dim() == 2:
            return products(gradient, inputs)
        return Products(gradient.detach(), inputs.detach())

    workspace = opened(bert)
    examples = workspace.encode(TEXTS)
    units = [tuple(examples[:2]), (examples[2],)] if persons else singles(examples)
    sums = []
    for made in (products, factors):
        monkeypatch.setattr(linear_gradients, "products", made)
        with per_record_hooks(workspace.network):
            sums.append(
                clipped_gradient_sum(
                    workspace.network, workspace.task, units, 0.5, candidates(32, 512)
                )
            )
    for one, other in zip(sums[0].tensors, sums[1].tensors, strict=True):
        # Products of other shapes may be summed in another order: 2⁻²³ of the bound of 2³⁰ steps.
        assert int((one - other).abs().max()) <= 2**9


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's, about its own functions
def test_torch_compile_cannot_trace_a_layer_that_leaves_its_records_gradients() -> None:
    """What `machine.compile` is refused for: should this fail, it can be tried again."""
    layer = nn.Linear(3, 2)
    with per_record([layer]):
        compiled = torch.compile(layer.forward, backend="aot_eager", fullgraph=True)
        with pytest.raises(torch._dynamo.exc.Unsupported, match=r"autograd\.Function"):
            compiled(torch.ones(4, 3))
    torch._dynamo.reset()
