"""Losses by rows are those of whole logits, and no row depends on another."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from cloister.data.records import ChatRecord, Message
from cloister.models import token_head
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.network import Network
from cloister.models.token_head import ROWS
from cloister.tasks.config import TaskConfig
from cloister.tasks.losses import token_losses
from cloister.tasks.task import IGNORE, Batch, BatchShape, Example
from cloister.training.gradients import per_record_hooks
from cloister.training.record_losses import record_losses
from cloister.training.workspace import Workspace, open_workspace
from tests.support.architectures import LLAMA
from tests.support.models import VOCABULARY, word_tokenizer

LORA = LoraConfig(r=2, train="both", top_layers=0)
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Gemma2": {"final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    "Granite": {"logits_scaling": 3.0},
    "Cohere": {"logit_scale": 0.25},
}


@pytest.fixture(scope="module", params=[*FAMILIES, "GPT2"])
def workspace(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Workspace:
    folder = tmp_path_factory.mktemp(request.param)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if request.param == "GPT2":
            from tests.support.models import tiny_gpt2

            tiny_gpt2(folder)
        else:
            config = getattr(transformers, f"{request.param}Config")
            kind = getattr(transformers, f"{request.param}ForCausalLM")
            kind(config(**LLAMA, **FAMILIES[request.param])).save_pretrained(folder)
            word_tokenizer(frame=False).save_pretrained(folder)
    return opened(folder)


def opened(folder: Path, lora: LoraConfig = LORA) -> Workspace:
    task = TaskConfig(kind="causal-lm", max_length=32)
    workspace = open_workspace(ModelConfig(base=str(folder)), lora, task, (), 0)
    torch.manual_seed(1)
    for parameter in workspace.network.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    return workspace


def examples(count: int, seed: int = 0) -> list[Example]:
    draw = torch.Generator().manual_seed(seed)
    found = []
    for number in range(count):
        ids = torch.randint(VOCABULARY, (5 + 3 * number % 24,), generator=draw).tolist()
        first = len(ids) // 2
        found.append(Example(tuple(ids), (IGNORE,) * first + tuple(ids[first:])))
    return found


def whole(network: Network, batch: Batch) -> Tensor:
    """The slow twin: logits of every token."""
    logits = network(batch.input_ids, batch.attention_mask)
    return token_losses(logits[:, :-1], batch.target[:, 1:])


@pytest.fixture(params=[2**28, 0], ids=["kept", "computed again"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(token_head, "KEPT_BYTES", request.param)
    return None


@pytest.mark.usefixtures("kept")
def test_losses_and_gradients_are_those_of_whole_logits(workspace: Workspace) -> None:
    network, task = workspace.network, workspace.task
    assert network.token_head is not None
    batch = task.collate(examples(12))  # 100 learnt tokens: two products
    parameters = [p for p in network.parameters() if p.requires_grad]
    found, slow = network.token_losses(batch), whole(network, batch)
    assert torch.allclose(found, slow, atol=1e-5)
    assert torch.equal(found == 0, slow == 0)
    means = record_losses(network, task, batch)
    logits = network(batch.input_ids, batch.attention_mask)
    assert torch.allclose(means, task.record_losses(logits, batch), atol=1e-5)
    weights = torch.linspace(-1, 1, len(means))
    mine = torch.autograd.grad((means * weights).sum(), parameters)
    theirs = torch.autograd.grad((task.record_losses(logits, batch) * weights).sum(), parameters)
    for one, other in zip(mine, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-5 * max(1.0, float(other.abs().max())))


def test_a_product_has_as_many_rows_whatever_is_learnt(workspace: Workspace) -> None:
    network = workspace.network
    head = network.token_head
    assert head is not None
    rows = []
    handle = head.embedding.register_forward_hook(lambda _, given, out: rows.append(len(out)))
    try:
        for count in (1, 3, 12):
            network.token_losses(workspace.task.collate(examples(count)))
    finally:
        handle.remove()
    assert rows == [ROWS] * 4


@pytest.mark.usefixtures("kept")
def test_no_bit_of_a_record_s_gradient_depends_on_its_companions(workspace: Workspace) -> None:
    network, task = workspace.network, workspace.task
    probe, *others = examples(8, seed=3)
    shape = BatchShape(8, 32, (4, 8))

    def gradient(rows: list[Example], place: int) -> list[Tensor]:
        with per_record_hooks(network):
            batch = task.collate(rows, shape)
            record_losses(network, task, batch)[: len(rows)].sum().backward()
            return [
                p.grad_sample[place].clone()  # type: ignore[attr-defined]
                for p in network.parameters()
                if p.requires_grad
            ]

    alone = gradient([probe], 0)
    nothing = Example((5, 6, 7), (IGNORE,) * 3)
    for rows in ([*others[:5], probe], [nothing, probe, *others], [probe, nothing]):
        found = gradient(rows, rows.index(probe))
        assert all(torch.equal(a, b) for a, b in zip(alone, found, strict=True))


def test_a_record_that_is_no_number_spoils_no_other(llama: Path) -> None:
    workspace = opened(llama)
    network, task = workspace.network, workspace.task
    one, two = examples(2)
    batch = task.collate([one, two], BatchShape(2, 32, (2,)))
    head = network.token_head
    assert head is not None
    hidden = torch.randn(2, 32, 16)
    spoilt = hidden.clone()
    spoilt[0] = torch.nan
    fine, found = head.losses(hidden, batch.target), head.losses(spoilt, batch.target)
    assert torch.equal(found[1], fine[1])
    assert found[0].isnan().any()


def test_where_nothing_is_learnt_the_gradient_is_zero(llama: Path) -> None:
    workspace = opened(llama)
    batch = workspace.task.collate([Example((5, 6), (IGNORE, IGNORE))])
    losses = record_losses(workspace.network, workspace.task, batch)
    losses.sum().backward()
    assert losses.tolist() == [0.0]
    grads = [p.grad for p in workspace.network.parameters() if p.requires_grad]
    assert all(g is not None and not g.any() for g in grads)


def test_an_adapted_output_embedding_takes_the_whole_batch(llama: Path) -> None:
    lora = replace(LORA, target_modules=("q_proj", "lm_head"))
    workspace = opened(llama, lora)
    assert workspace.network.token_head is None
    batch = workspace.task.collate(examples(3))
    found = workspace.network.token_losses(batch)
    assert torch.equal(found, whole(workspace.network, batch))


def test_scores_ship_no_logits(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloister.training.evaluation import evaluate

    workspace = opened(llama)
    turns = (Message("user", "rash"), Message("assistant", "severe rash since monday"))
    rows = workspace.encode([ChatRecord(turns)] * 3)
    logits = workspace.network.logits(workspace.task.collate(rows))
    meter = workspace.task.meter()
    meter.add(logits, workspace.task.collate(rows))
    scores = evaluate(workspace.network, workspace.task, rows, 64)
    assert scores.metrics == pytest.approx(meter.result(), rel=1e-5)
    assert workspace.network.token_head is not None
    widest = []
    handle = workspace.network.token_head.embedding.register_forward_hook(
        lambda _, given, out: widest.append(out.numel())
    )
    evaluate(workspace.network, workspace.task, rows * 40, 4096)
    handle.remove()
    assert max(widest) == ROWS * VOCABULARY
