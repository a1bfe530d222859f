"""The network's trained parameters, their first values, and their form in messages."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from cloister.adapter.factor_pairs import find_pairs
from cloister.adapter.tensors import Adapter
from cloister.data.records import RecordKind
from cloister.errors import UsageError
from cloister.models import build
from cloister.models.base import load_backbone
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.state import read_adapter, write_adapter
from tests.support.studies import small_workspace


def names(base: Path, **lora: object) -> set[str]:
    return set(small_workspace(base, **lora).start)


def test_every_process_starts_from_the_same_adapter(bert: Path) -> None:
    torch.manual_seed(1)
    one = small_workspace(bert).start
    torch.manual_seed(2)
    other = small_workspace(bert).start
    assert (one - other).norm() == 0.0


def test_b_starts_at_zero_and_a_does_not(bert: Path) -> None:
    for name, array in small_workspace(bert).start.items():
        if "lora_A" in name:
            # Uniform within 1/√16 of zero.
            assert 0.1 < float(np.abs(array).max()) <= 0.25
        if "lora_B" in name:
            assert not array.any()


def test_both_factors_and_the_head_train_by_default(bert: Path) -> None:
    found = names(bert)
    # Query and value of two layers, A and B each, and the head's weight and bias.
    assert len(found) == 2 * 2 * 2 + 2
    assert {"head.weight", "head.bias"} <= found


def test_b_alone_leaves_a_out(bert: Path) -> None:
    assert not any("lora_A" in name for name in names(bert, train="b"))
    assert any("lora_B" in name for name in names(bert, train="b"))


def test_a_probe_trains_the_head_alone(bert: Path) -> None:
    assert names(bert, train="none") == {"head.weight", "head.bias"}


def test_one_factor_is_half_of_what_both_send(bert: Path) -> None:
    """Within 1 %, heads left out: query and value have as many inputs as outputs."""

    def size(**lora: object) -> int:
        sent = small_workspace(bert, **lora).sent
        return sum(array.size for name, array in sent.items() if not name.startswith("head."))

    both = size(train="both")
    for train in ("b", "b-moving", "b-kept"):
        assert size(train=train) == pytest.approx(0.5 * both, rel=0.01)


def test_a_residual_travels_and_never_trains(bert: Path) -> None:
    plain, opened = small_workspace(bert), small_workspace(bert, residual=3)
    assert opened.start.shapes == plain.start.shapes
    assert set(opened.carried.shapes.values()) == {(3, 16), (16, 3)}
    assert not any(array.any() for array in opened.carried.values())
    assert opened.whole.size == opened.start.size + 2 * 2 * 2 * 3 * 16
    opened.train_names(frozenset(opened.start))
    assert read_adapter(opened.network).shapes == opened.start.shapes


def test_a_residual_adds_to_its_module_as_the_adapter_does(bert: Path) -> None:
    """A product in the residual gives the logits that it gives in the adapter."""
    opened, rng = small_workspace(bert, r=3, residual=3), np.random.default_rng(0)
    ids, mask = torch.tensor([[2, 5, 6, 3]]), torch.ones(1, 4, dtype=torch.long)
    pairs = find_pairs(opened.start)
    head = {"head.weight": rng.normal(size=(3, 16))}
    values = {name: rng.normal(size=opened.start[name].shape) for pair in pairs for name in pair}
    logits = []
    for left, right in (("adapter", "residual"), ("residual", "adapter")):
        tensors = dict(head)
        for pair in pairs:
            places = {"adapter": pair, "residual": pair.residual}
            tensors |= dict(zip(places[left], (values[name] for name in pair), strict=True))
            tensors |= {
                name: np.zeros_like(values[one])
                for name, one in zip(places[right], pair, strict=True)
            }
        write_adapter(opened.network, Adapter(tensors))
        with torch.no_grad():
            logits.append(opened.network(ids, mask))
    assert torch.allclose(logits[0], logits[1], atol=1e-5)
    assert logits[0].abs().max() > 0.1


def test_a_that_is_moved_travels_and_does_not_train(bert: Path) -> None:
    opened = small_workspace(bert, train="b-moving")
    assert set(opened.start) == names(bert, train="b")
    assert set(opened.whole) == names(bert, train="both")
    assert (opened.whole - small_workspace(bert).start).norm() == 0.0
    assert not opened.frozen_factors
    assert set(small_workspace(bert, train="b").frozen_factors) == set(opened.carried)


@pytest.mark.parametrize("field", ["r", "residual"])
def test_ranks_beyond_the_base_are_refused(bert: Path, field: str) -> None:
    assert small_workspace(bert, **{field: 16}).start
    with pytest.raises(UsageError, match=rf"lora\.{field}: 17 given; .* rank of at most 16"):
        small_workspace(bert, **{field: 17})


def test_a_frozen_head_stays_out(bert: Path) -> None:
    assert not any(name.startswith("head.") for name in names(bert, head="frozen"))


def test_a_low_rank_head_trains_its_step_only(bert: Path) -> None:
    head = {name for name in names(bert, head="lora") if name.startswith("head.")}
    assert head == {"head.down.weight", "head.up.weight"}


@pytest.mark.parametrize("base", ["bert", "gpt2", "llama"])
def test_top_layers_adapt_the_last_layers_only(base: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(base)
    found = {n for n in names(folder, top_layers=1) if "lora_" in n}
    assert found
    assert all(".1." in name for name in found)
    assert {n for n in names(folder, top_layers=2) if "lora_" in n} > found


def test_more_layers_than_there_are_is_refused(bert: Path) -> None:
    with pytest.raises(UsageError, match=r"top_layers: 3 given; the base has 2"):
        names(bert, top_layers=3)


def test_a_target_that_does_not_exist_lists_those_that_do(bert: Path) -> None:
    with pytest.raises(UsageError, match=r"nope not in bert; its linear modules are .*query"):
        names(bert, target_modules=("nope",))


def test_an_adapter_read_is_the_adapter_written(bert: Path) -> None:
    workspace = small_workspace(bert)
    rng = np.random.default_rng(0)
    values = Adapter({n: rng.normal(size=a.shape) for n, a in workspace.start.items()})
    write_adapter(workspace.network, values)
    assert (read_adapter(workspace.network) - values).norm() == 0.0


def test_an_adapter_of_other_names_or_shapes_is_refused(bert: Path) -> None:
    network = small_workspace(bert).network
    with pytest.raises(KeyError):
        write_adapter(network, Adapter({"nope": np.zeros(1)}))
    with pytest.raises(ValueError, match="shape"):
        write_adapter(network, Adapter({"head.bias": np.zeros(7)}))


def test_modules_are_listed_as_torch_lists_them(bert: Path) -> None:
    network = small_workspace(bert).network
    network.register_module("again", network.backbone)
    for more in ({}, {"prefix": "outer"}, {"remove_duplicate": False}):
        own = list(network.named_modules(**more))  # type: ignore[arg-type]
        assert own == list(nn.Module.named_modules(network, **more))  # type: ignore[arg-type]
    assert [n for n, _ in network.named_parameters()] == [
        n for n, _ in nn.Module.named_parameters(network)
    ]


def test_nothing_random_runs_in_a_forward_pass(bert: Path) -> None:
    workspace = small_workspace(bert)
    ids, mask = torch.tensor([[2, 5, 6, 3]]), torch.ones(1, 4, dtype=torch.long)
    assert torch.equal(workspace.network(ids, mask), workspace.network(ids, mask))


@pytest.mark.parametrize("records", ["text", "tokens", "messages"])
def test_head_and_adapters_are_where_a_quantized_base_is(
    llama: Path, monkeypatch: pytest.MonkeyPatch, records: RecordKind
) -> None:
    """bitsandbytes puts a base on a GPU as it loads it; here it is on a device without memory."""

    def elsewhere(folder: Path, config: ModelConfig, *, causal: bool) -> PreTrainedModel:
        plain = dataclasses.replace(config, quantization="none")
        return load_backbone(folder, plain, causal=causal).to("meta")

    monkeypatch.setattr(build, "load_backbone", elsewhere)
    model = ModelConfig(base=str(llama), quantization="4bit")
    network = build.build_network(llama, model, LoraConfig(), records, 2, 0)
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
