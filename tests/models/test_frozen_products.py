"""Frozen layers give what `nn.Linear` gives, and only where it pays, by another library."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cloister.models import frozen_products
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.frozen_products import FrozenLinear, mkl_is_narrow, use_wide_products
from cloister.tasks.config import TaskConfig
from cloister.training.workspace import Workspace, open_workspace

has_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN"
)
# Sums of 24 products of normal numbers in float32: 2⁻²⁴ · 24 · a few standard deviations.
CLOSE = 1e-5


@pytest.fixture(autouse=True)
def processor_is_asked_again() -> Iterator[None]:
    mkl_is_narrow.cache_clear()
    yield
    mkl_is_narrow.cache_clear()


def frozen(bias: bool = True) -> FrozenLinear:
    torch.manual_seed(0)
    return FrozenLinear(24, 40, bias=bias).requires_grad_(False)


def as_linear(layer: nn.Linear) -> nn.Linear:
    plain = copy.deepcopy(layer)
    plain.__class__ = nn.Linear
    return plain


def results(layer: nn.Linear, given: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs, and the gradient of a sum of their squares with respect to the inputs."""
    inputs = given.clone().requires_grad_(True)
    outputs = layer(inputs)
    outputs.square().sum().backward()
    assert inputs.grad is not None
    return outputs.detach(), inputs.grad


@has_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 24), (3, 5, 24)])
def test_outputs_and_gradients_are_those_of_a_linear_layer(
    bias: bool, shape: tuple[int, ...]
) -> None:
    layer = frozen(bias)
    given = torch.randn(shape)
    for ours, theirs in zip(results(layer, given), results(as_linear(layer), given), strict=True):
        assert ours.shape == theirs.shape
        assert torch.allclose(ours, theirs, rtol=CLOSE, atol=CLOSE * float(theirs.abs().max()))


@has_onednn
def test_an_expanded_gradient_and_turned_inputs_are_read_right() -> None:
    """`sum` sends back one number for all outputs, and attention turns its states around."""
    layer = frozen()
    given = torch.randn(24, 6).t().requires_grad_(True)
    layer(given).sum().backward()
    assert given.grad is not None
    assert torch.allclose(given.grad, layer.weight.sum(0).expand(6, 24), atol=CLOSE * 40)


def test_what_it_does_not_serve_is_the_linear_layer_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> Tensor:
        raise AssertionError("oneDNN was called")

    monkeypatch.setattr(frozen_products, "_product", refused)
    layer, given = frozen(), torch.randn(3, 24)
    trained = copy.deepcopy(layer).requires_grad_(True)
    assert torch.equal(trained(given), as_linear(trained)(given))
    double = copy.deepcopy(layer).double()
    assert torch.equal(double(given.double()), as_linear(double)(given.double()))
    assert layer(given[:0]).shape == (0, 40)
    with pytest.raises(AssertionError, match="oneDNN was called"):
        layer(given)
    monkeypatch.setattr("torch.jit.is_tracing", lambda: True)  # as ONNX's exporter sets it
    assert torch.equal(layer(given), as_linear(layer)(given))


def opened(bert: Path, lora: LoraConfig) -> Workspace:
    return open_workspace(
        ModelConfig(base=str(bert)), lora, TaskConfig(max_length=32), ("a", "b"), 0
    )


def test_on_a_processor_that_gains_the_base_s_layers_are_replaced_and_no_other(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_products, "mkl_is_narrow", lambda: True)
    network = opened(bert, LoraConfig(train="both")).network
    kinds = {name: type(module) for name, module in network.named_modules()}
    linear = {name: kind for name, kind in kinds.items() if issubclass(kind, nn.Linear)}
    adapters = {name for name in linear if "lora_" in name or name == "head"}
    assert {linear[name] for name in adapters} == {nn.Linear}
    assert {kind for name, kind in linear.items() if name not in adapters} == {FrozenLinear}
    assert len(adapters) > 1


def test_a_layer_with_a_trained_bias_stays_as_it_is(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_products, "mkl_is_narrow", lambda: True)
    network = opened(bert, LoraConfig(method="bitfit")).network
    trained = [m for m in network.modules() if any(p.requires_grad for p in m.parameters(False))]
    assert trained
    assert not any(isinstance(module, FrozenLinear) for module in trained)


@pytest.mark.parametrize(
    ("maker", "vectors", "gains"),
    [
        ("AuthenticAMD", "AVX512", True),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
        ("", "AVX512", False),
    ],
)
def test_only_where_mkl_leaves_wide_vectors_unused(
    maker: str, vectors: str, gains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_products, "_maker", lambda: maker)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: vectors)
    assert mkl_is_narrow() is (gains and torch.backends.mkldnn.is_available())
    base = nn.Sequential(nn.Linear(2, 2)).requires_grad_(False)
    use_wide_products(base)
    assert isinstance(base[0], FrozenLinear) is mkl_is_narrow()
