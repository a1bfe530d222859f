"""Keeping the frozen layers' states changes time, never the result."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cloister.adapter.tensors import Adapter
from cloister.errors import PreflightError
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.kept_states import ENTRY_BYTES, Filled, KeptStates
from cloister.models.layers import layer_list
from cloister.models.network import trained_parameters
from cloister.models.state import write_adapter
from cloister.tasks.config import TaskConfig
from cloister.tasks.task import BatchShape
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks
from cloister.training.preflight import preflight
from cloister.training.shapes import candidates
from cloister.training.units import singles
from cloister.training.workspace import Workspace, open_workspace
from tests.training.test_gradients import CHATS, TEXTS, moved, values

# 32 tokens of the tiny models' 16 hidden units: some of the records fit, not all.
ROOM_FOR_ONE = 32 * 16 * 4 / 2**30


def workspace(folder: Path, kind: str, *, cache: float, residual: int = 0) -> Workspace:
    labels = () if kind == "causal-lm" else ("a", "b")
    return moved(
        open_workspace(
            ModelConfig(base=str(folder)),
            LoraConfig(train="both", top_layers=1, residual=residual),
            TaskConfig(kind=kind, max_length=32),  # type: ignore[arg-type]
            labels,
            0,
            frozen_cache_gib=cache,
        )
    )


CASES = [
    ("bert", "sequence-classification"),
    ("gpt2", "sequence-classification"),
    ("gpt2", "causal-lm"),
    ("llama", "causal-lm"),
]


@pytest.mark.parametrize(("base", "kind"), CASES)
@pytest.mark.parametrize("residual", [0, 2])
def test_gradients_with_and_without_are_the_same(
    base: str, kind: str, residual: int, request: pytest.FixtureRequest
) -> None:
    """A residual sits in adapted layers, above what is kept."""
    sums = []
    for cache in (0.0, ROOM_FOR_ONE, 4.0):
        opened = workspace(request.getfixturevalue(base), kind, cache=cache, residual=residual)
        rng = np.random.default_rng(0)
        values_of_residual = {n: rng.normal(size=a.shape) for n, a in opened.carried.items()}
        write_adapter(opened.network, Adapter(values_of_residual))
        examples = opened.encode(CHATS if kind == "causal-lm" else TEXTS)
        preflight(opened.network, opened.task, examples)
        with per_record_hooks(opened.network):
            for max_tokens in (16, 4096):  # the second pass takes what the first kept
                sums.append(
                    clipped_gradient_sum(
                        opened.network,
                        opened.task,
                        singles(examples),
                        1.0,
                        candidates(32, max_tokens),
                    )
                )
    for other in sums[1:]:
        for one, two in zip(values(sums[0]), values(other), strict=True):
            assert torch.allclose(one, two, atol=1e-5)


def test_kept_records_are_not_computed_again(bert: Path) -> None:
    opened = workspace(bert, "sequence-classification", cache=4.0)
    batch = opened.task.collate(opened.encode(TEXTS))
    lowest = opened.network.backbone.base_model.model.encoder.layer[0]
    passes = []
    lowest.register_forward_hook(lambda *_: passes.append(1))
    first = opened.network.logits(batch)
    second = opened.network.logits(batch)
    assert len(passes) == 1
    assert torch.equal(first, second)


@pytest.mark.parametrize("base", ["bert", "gpt2", "llama"])
def test_where_the_head_alone_trains_no_layer_is_computed_again(
    base: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(base)

    def probe(cache: float) -> Workspace:
        model, task = ModelConfig(base=str(folder)), TaskConfig(max_length=32)
        lora = LoraConfig(train="none")
        return moved(open_workspace(model, lora, task, ("a", "b"), 0, frozen_cache_gib=cache))

    kept, plain = probe(4.0), probe(0.0)
    assert kept.network.prefix is not None
    examples = plain.encode(TEXTS)
    preflight(kept.network, kept.task, examples)
    passes = []
    found = layer_list(kept.network.base, 2)
    assert found is not None
    for layer in found[1]:
        layer.register_forward_hook(lambda *_: passes.append(1))
    batch = plain.task.collate(examples)
    with torch.no_grad():
        with kept.network.prefix.apart():
            first, second = kept.network.logits(batch), kept.network.logits(batch)
        assert len(passes) == 2
        assert torch.equal(first, second)
        assert torch.allclose(first, plain.network.logits(batch), atol=1e-5)


def test_no_more_is_kept_than_there_is_room_for() -> None:
    kept = KeptStates()
    records = [((number,), ()) for number in (1, 2, 3)]
    for record in (*records, records[0]):
        kept.add(record, torch.ones(1, 4), max_bytes=2 * (16 + 4 + ENTRY_BYTES))
    assert [kept.get(record) is not None for record in records] == [True, True, False]


def test_two_caches_of_one_limit_share_it_and_what_is_forgotten_is_free() -> None:
    filled = Filled()
    one, other = KeptStates(filled), KeptStates(filled)
    records, room = [((number,), ()) for number in (1, 2)], 20.0 + ENTRY_BYTES
    one.add(records[0], torch.ones(1, 4), max_bytes=room)
    other.add(records[1], torch.ones(1, 4), max_bytes=room)
    assert (filled.bytes, other.get(records[1])) == (room, None)
    one.forget(b"others")
    other.add(records[1], torch.ones(1, 4), max_bytes=room)
    assert (filled.bytes, one.get(records[0]), one.made_with) == (room, None, b"others")
    assert other.get(records[1]) is not None


def test_the_record_s_tokens_count() -> None:
    """A vector of 16 values is 64 bytes; a record of 512 tokens that names it is 2,048."""
    kept = KeptStates()
    record = (tuple(range(512)), ())
    kept.add(record, torch.ones(16), max_bytes=64 + 2048 + ENTRY_BYTES - 1)
    assert kept.get(record) is None
    kept.add(record, torch.ones(16), max_bytes=64 + 2048 + ENTRY_BYTES)
    assert kept.get(record) is not None


def test_states_are_used_with_the_row_counts_that_they_were_computed_with_alone(
    bert: Path,
) -> None:
    """As where one study of a process isolates its units and the next does not."""
    opened = workspace(bert, "sequence-classification", cache=4.0)
    assert opened.network.prefix is not None
    opened.network.prefix._kept = KeptStates()
    examples = opened.encode(TEXTS)[:2]

    def logits(*counts: int) -> torch.Tensor:
        batch = opened.task.collate(examples, BatchShape(counts[-1], 32, counts))
        return opened.network.logits(batch)

    expected = logits(2, 4)
    for states in opened.network.prefix._kept._states.values():
        states.fill_(torch.nan)  # as other counts would have it
    assert torch.equal(logits(4), expected)


def test_the_network_is_whole_again_afterwards(bert: Path) -> None:
    opened = workspace(bert, "sequence-classification", cache=4.0)
    names = [name for name, _ in opened.network.named_parameters()]
    trained = [name for name, _ in trained_parameters(opened.network)]
    opened.network.logits(opened.task.collate(opened.encode(TEXTS)))
    assert [name for name, _ in opened.network.named_parameters()] == names
    assert [name for name, _ in trained_parameters(opened.network)] == trained


def test_a_prefix_that_is_wrong_is_caught_by_the_preflight(bert: Path) -> None:
    opened = workspace(bert, "sequence-classification", cache=4.0)
    assert opened.network.prefix is not None
    examples = opened.encode(TEXTS)
    opened.network.logits(opened.task.collate(examples[:2]))
    for kept in opened.network.prefix._kept._states.values():
        kept.add_(torch.randn_like(kept))
    with pytest.raises(PreflightError, match="frozen_cache_gib = 0"):
        preflight(opened.network, opened.task, examples)
