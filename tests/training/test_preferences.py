"""A pair's gradient is that of its loss, by a slow twin, and depends on the pair only."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer

from cloister.data.records import ChatRecord, Message
from cloister.errors import MisfitError, UsageError
from cloister.models.adapters_off import adapters_off
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.network import Network
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.entropy import OsEntropy
from cloister.privacy.noise import add_noise
from cloister.tasks.chat import CausalChat
from cloister.tasks.config import TaskConfig
from cloister.tasks.task import IGNORE, Batch, Example
from cloister.training import trials
from cloister.training.config import TrainingConfig
from cloister.training.gradients import (
    clipped_gradient_sum,
    per_record_hooks,
    plain_gradient_sum,
)
from cloister.training.preferences import weighted_units
from cloister.training.proof import Proof, prove
from cloister.training.shapes import candidates
from cloister.training.units import UnitExamples, singles
from cloister.training.workspace import Workspace, open_workspace
from tests.support.isolation import PLAN

BETA = 0.5
SHAPES = candidates(32, 64)
PAIRS = [
    ("chest pain", "severe rash", "no"),
    ("fever since monday", "no fever", "itchy rash and a severe headache"),
    ("knee swollen", "rest", "cough cough"),
    ("a mild cough", "acute pain at rest", "headache"),
    ("rash", "itchy", "mild fever"),
]


def pair(asked: str, chosen: str, rejected: str) -> ChatRecord:
    def turns(reply: str) -> tuple[Message, ...]:
        return (Message("user", asked), Message("assistant", reply))

    return ChatRecord(turns(chosen), rejected=turns(rejected))


@pytest.fixture(scope="module")
def workspace(llama: Path) -> Workspace:
    task = TaskConfig(kind="causal-lm", max_length=32, loss="dpo", dpo_beta=BETA)
    lora = LoraConfig(r=2, train="both", top_layers=0)
    opened = open_workspace(ModelConfig(base=str(llama)), lora, task, (), 0)
    torch.manual_seed(1)
    for parameter in opened.network.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    return opened


def log_probability(network: Network, example: Example) -> torch.Tensor:
    ids = torch.tensor([example.input_ids])
    logits = network(ids, torch.ones_like(ids))[0, :-1].log_softmax(1)
    assert isinstance(example.target, tuple)
    following = enumerate(example.target[1:])
    return sum((logits[at, word] for at, word in following if word != IGNORE), torch.zeros(()))


def loss(network: Network, example: Example) -> torch.Tensor:
    """The paper's equation 7, of one pair, as it is written."""
    assert example.rejected is not None
    ratios = []
    for one in (replace(example, rejected=None), example.rejected):
        own = log_probability(network, one)
        with adapters_off(network), torch.no_grad():
            base = log_probability(network, one)
        ratios.append(own - base)
    return -F.logsigmoid(BETA * (ratios[0] - ratios[1]))


def slow(workspace: Workspace, example: Example) -> list[torch.Tensor]:
    trained = [p for _, p in sorted(workspace.network.named_parameters()) if p.requires_grad]
    return list(torch.autograd.grad(loss(workspace.network, example), trained))


def summed(workspace: Workspace, units: list[tuple[Example, ...]]) -> list[torch.Tensor]:
    with per_record_hooks(workspace.network):
        total = clipped_gradient_sum(workspace.network, workspace.task, units, 1e3, SHAPES)
    return list(add_noise(total, 0.0, OsEntropy()).tensors)


def test_each_pair_s_gradient_is_the_slow_twin_s(workspace: Workspace) -> None:
    for example in workspace.encode([pair(*texts) for texts in PAIRS]):
        expected = slow(workspace, example)
        size = sum(float(g.square().sum()) for g in expected) ** 0.5
        plain = plain_gradient_sum(workspace.network, workspace.task, [(example,)], 64)
        for found in (summed(workspace, [(example,)]), plain):
            for mine, theirs in zip(found, expected, strict=True):
                assert float((mine - theirs).norm()) <= 1e-4 * size


def test_a_batch_is_the_sum_of_its_pairs_to_the_last_bit(workspace: Workspace) -> None:
    examples = workspace.encode([pair(*texts) for texts in PAIRS])
    together = summed(workspace, singles(examples))
    alone = [summed(workspace, [(example,)]) for example in examples]
    for place, found in enumerate(together):
        # Sums of whole numbers of one grid are exact.
        assert torch.equal(found.double(), sum(one[place].double() for one in alone))


def test_a_person_s_pairs_are_averaged(workspace: Workspace) -> None:
    one, two = workspace.encode([pair(*texts) for texts in PAIRS[:2]])
    both = summed(workspace, [(one, two)])
    for found, a, b in zip(both, slow(workspace, one), slow(workspace, two), strict=True):
        assert torch.allclose(found, (a + b) / 2, atol=1e-3)


def test_what_both_replies_share_cancels(workspace: Workspace) -> None:
    (example,) = workspace.encode([pair("fever", "rest", "rest")])
    assert all(float(g.abs().max()) < 1e-5 for g in summed(workspace, [(example,)]))


def test_the_weights_fall_as_the_pair_is_told_apart(workspace: Workspace) -> None:
    network, task = workspace.network, workspace.task
    (example,) = workspace.encode([pair(*PAIRS[0])])
    with adapters_off(network):  # where the network is its own reference, σ(0) = 1/2
        ((chosen, rejected),) = weighted_units(network, task, [(example,)], SHAPES)
    assert chosen.weight == pytest.approx(BETA)
    assert rejected.weight == pytest.approx(-BETA)


def test_adapters_off_is_the_base_and_changes_nothing(workspace: Workspace, llama: Path) -> None:
    network = workspace.network
    ids = torch.tensor([[5, 6, 7]])
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    before = network(ids, torch.ones_like(ids))
    with adapters_off(network), network.backbone.disable_adapter():
        base = network(ids, torch.ones_like(ids))
    workspace.train_names(frozenset(workspace.start))
    with adapters_off(network):
        off = network(ids, torch.ones_like(ids))
    assert torch.equal(off, base)
    assert not torch.equal(off, before)
    assert torch.equal(network(ids, torch.ones_like(ids)), before)
    assert {name for name, p in network.named_parameters() if p.requires_grad} == trained


def test_a_record_without_its_other_reply_is_a_misfit(workspace: Workspace) -> None:
    with pytest.raises(MisfitError, match="not a pair of a chosen and a rejected reply"):
        workspace.encode([ChatRecord(pair(*PAIRS[0]).messages)])


def test_without_the_loss_of_a_pair_the_chosen_reply_is_learnt(workspace: Workspace) -> None:
    record = pair(*PAIRS[0])
    assert isinstance(workspace.task, CausalChat)
    plain = replace(workspace.task, dpo_beta=None)
    assert plain.encode(record) == plain.encode(ChatRecord(record.messages))


def test_fields_that_contradict_are_refused() -> None:
    with pytest.raises(UsageError, match="loss: dpo given; only causal-lm has it"):
        TaskConfig(loss="dpo")
    with pytest.raises(UsageError, match="dpo_beta: given without"):
        TaskConfig(kind="causal-lm", dpo_beta=0.1)


def test_a_pair_whose_margin_cannot_be_computed_contributes_nothing_and_ends_no_round(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = [workspace.task.encode(pair(*words)) for words in PAIRS]
    units = singles(encoded)
    poison = encoded[1].input_ids
    sound = Network.token_losses

    def fails(network: Network, batch: Batch) -> torch.Tensor:
        if any(tuple(row[: len(poison)].tolist()) == poison for row in batch.input_ids):
            raise RuntimeError("this record")
        return sound(network, batch)

    def summed(of: list[UnitExamples]) -> ClippedSum:
        with per_record_hooks(workspace.network):
            return clipped_gradient_sum(workspace.network, workspace.task, of, 1.0, SHAPES)

    expected = summed([units[0], *units[2:]])
    monkeypatch.setattr(Network, "token_losses", fails)
    found = summed(list(units))
    for one, other in zip(found.tensors, expected.tensors, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError, RuntimeError])
def test_a_lack_that_passes_costs_no_pair_its_part(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """The pass of all, and the first one of a sequence alone, lack memory; the second does not."""
    units = list(singles([workspace.task.encode(pair(*words)) for words in PAIRS]))
    expected, own = summed(workspace, units), units[1][0].input_ids
    sound, failed = Network.token_losses, list[int]()

    def fails(network: Network, batch: Batch) -> torch.Tensor:
        rows = [tuple(row[: len(own)].tolist()) for row in batch.input_ids]
        if own in rows and len(failed) < 2:
            failed.append(len(rows))
            raise error("not now")
        return sound(network, batch)

    monkeypatch.setattr(Network, "token_losses", fails)
    found = summed(workspace, units)
    assert len(failed) == 2
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_a_device_that_is_gone_ends_the_round_and_is_no_pair_s_failure(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = singles([workspace.task.encode(pair(*words)) for words in PAIRS])

    def gone(network: Network, batch: Batch) -> torch.Tensor:
        raise RuntimeError("gone")

    monkeypatch.setattr(Network, "token_losses", gone)
    with pytest.raises(RuntimeError, match="gone"):
        weighted_units(workspace.network, workspace.task, units, SHAPES)


TRAINING = TrainingConfig(physical_batch_tokens=64)


def test_a_proof_demands_equal_log_ratios_and_so_runs_the_pass_without_adapters(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not prove(workspace, PLAN, TRAINING).one_by_one
    sound = Network.token_losses

    def leaking(network: Network, batch: Batch) -> torch.Tensor:
        """Companions move what the base says by a rounding, and never what its adapters say."""
        losses = sound(network, batch)
        layers = [m for m in network.modules() if isinstance(m, LoraLayer)]
        is_off = any(scale == 0 for layer in layers for scale in layer.scaling.values())
        return losses * (1 + 1e-6 * losses.mean().detach()) if is_off else losses

    monkeypatch.setattr(Network, "token_losses", leaking)
    assert prove(workspace, PLAN, TRAINING).one_by_one
    chat = replace(workspace, task=replace(workspace.task, dpo_beta=None))  # type: ignore[type-var]
    assert not prove(chat, PLAN, TRAINING).one_by_one
    keys = {Proof.key_of(one, PLAN, TRAINING) for one in (workspace, chat)}
    assert len(keys) == 2


def test_a_proof_s_times_count_the_forwards_of_the_log_ratios(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that counts forwards: one a pass, and with pairs two more."""
    forwards = [0]
    sound = Network.token_losses

    def counted(network: Network, batch: Batch) -> torch.Tensor:
        forwards[0] += 1
        return sound(network, batch)

    monkeypatch.setattr(Network, "token_losses", counted)
    monkeypatch.setattr(trials.time, "perf_counter", lambda: float(forwards[0]))
    assert {seconds for *_, seconds in prove(workspace, PLAN, TRAINING).seconds} == {3.0}
    chat = replace(workspace, task=replace(workspace.task, dpo_beta=None))  # type: ignore[type-var]
    assert {seconds for *_, seconds in prove(chat, PLAN, TRAINING).seconds} == {1.0}
