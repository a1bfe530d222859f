"""What the head reads is cached while nothing before it trains; this changes time, never a bit."""

from pathlib import Path

import pytest
import torch

from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.handed_states import taking_any
from cloister.models.head_inputs import HeadInputs
from cloister.models.kept_states import ANY_LENGTH, ENTRY_BYTES, KeptStates
from cloister.models.layers import layer_list
from cloister.tasks.config import TaskConfig
from cloister.tasks.task import BatchShape, Example
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks
from cloister.training.shapes import candidates
from cloister.training.units import singles
from cloister.training.workspace import Workspace, open_workspace
from tests.training.test_gradients import TEXTS, moved

LONGEST = 32
HEAD = frozenset({"head.weight", "head.bias"})
# Room for what the head reads of one record: 16 hidden units in float32, and the record's tokens.
ROOM_FOR_ONE = (16 * 4 + 4 * LONGEST + ENTRY_BYTES) / 2**30


def workspace(
    folder: Path, *, cache: float, train: str = "both", top_layers: int = 1, kind: str = ""
) -> Workspace:
    opened = open_workspace(
        ModelConfig(base=str(folder)),
        LoraConfig(train=train, top_layers=top_layers),  # type: ignore[arg-type]
        TaskConfig(kind=kind or "sequence-classification", max_length=LONGEST),  # type: ignore[arg-type]
        ("a", "b"),
        0,
        frozen_cache_gib=cache,
    )
    opened.train_names(HEAD)
    return moved(opened)


def examples_of(kind: str, opened: Workspace) -> list[Example]:
    if kind != "token-classification":
        return opened.encode(TEXTS)
    lengths = (3, 9, 17, 31)
    return [Example(tuple(range(5, 5 + n)), tuple(i % 2 for i in range(n))) for n in lengths]


def summed(opened: Workspace, examples: list[Example]) -> tuple[torch.Tensor, ...]:
    with per_record_hooks(opened.network):
        return clipped_gradient_sum(
            opened.network, opened.task, singles(examples), 1.0, candidates(LONGEST, 128), None
        ).tensors


def passes_of(opened: Workspace) -> list[int]:
    """Counts the passes through the last layer from here on."""
    passes: list[int] = []
    found = layer_list(opened.network.base, 2)
    assert found is not None
    found[1][-1].register_forward_hook(lambda *_: passes.append(1))
    return passes


def equal(one: tuple[torch.Tensor, ...], other: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", ["sequence-classification", "token-classification"])
@pytest.mark.parametrize(("train", "top_layers"), [("none", 0), ("both", 1), ("both", 0)])
def test_sums_have_equal_bits_with_and_without_the_cache(
    kind: str, train: str, top_layers: int, bert: Path
) -> None:
    """A probe, a probe before one adapted layer, and one before adapters in all layers."""
    slow = workspace(bert, cache=0.0, train=train, top_layers=top_layers, kind=kind)
    fast = workspace(bert, cache=4.0, train=train, top_layers=top_layers, kind=kind)
    assert slow.network.head_inputs is None
    examples = examples_of(kind, fast)
    expected = summed(slow, examples)
    assert any(bool(tensor.any()) for tensor in expected)
    # First half of the records alone, so that the whole batch then finds some of them.
    summed(fast, examples[::2])
    passes = passes_of(fast)
    assert equal(summed(fast, examples), expected)
    assert passes
    passes.clear()
    assert equal(summed(fast, examples), expected)
    assert not passes


def test_a_changed_adapter_empties_the_cache(bert: Path) -> None:
    """As where a round begins with another adapter than the one before."""
    slow, fast = (workspace(bert, cache=cache) for cache in (0.0, 4.0))
    examples = examples_of("", fast)
    before = summed(fast, examples)
    for opened in (slow, fast):
        named = dict(opened.network.named_parameters())
        with torch.no_grad():
            for name, parameter in named.items():
                if "lora_" in name:
                    parameter.add_(0.25)
    after = summed(fast, examples)
    assert not equal(after, before)
    assert equal(after, summed(slow, examples))


def test_nothing_is_used_while_something_before_the_head_trains(bert: Path) -> None:
    opened = workspace(bert, cache=4.0)
    cache = opened.network.head_inputs
    assert cache is not None
    assert cache.can_serve()
    opened.train_names(frozenset(opened.start))
    assert not cache.can_serve()


def test_vectors_are_used_in_the_shape_that_they_were_computed_in_alone(bert: Path) -> None:
    """Others may differ in the last bits, and below float32 none but those of a fixed shape are."""
    opened = workspace(bert, cache=4.0, train="none", top_layers=0)
    network, cache = opened.network, opened.network.head_inputs
    assert cache is not None
    cache._kept = KeptStates()
    cache._kept.made_with = cache._made_with
    examples = examples_of("", opened)[:2]

    def logits(*counts: int) -> torch.Tensor:
        shape = BatchShape(counts[-1], LONGEST, counts) if counts else None
        return network.logits(opened.task.collate(examples, shape))

    expected, free = logits(2, 4), logits()
    assert {fixed for _, _, fixed in cache._kept._states} == {ANY_LENGTH, (LONGEST, (2, 4))}
    for states in cache._kept._states.values():
        states.fill_(torch.nan)
    assert torch.equal(logits(4), expected)
    assert logits().isnan().all()
    network.is_float32 = False
    assert torch.allclose(logits(), free)


def test_a_batch_of_which_the_longest_record_alone_is_cached(bert: Path) -> None:
    """The others are computed together, and stay as wide as the batch."""
    opened = workspace(bert, cache=4.0)
    network, cache = opened.network, opened.network.head_inputs
    assert cache is not None
    examples = sorted(opened.encode(TEXTS), key=lambda example: len(example.input_ids))
    assert len(examples[-1].input_ids) > len(examples[-2].input_ids)
    with torch.no_grad(), network.apart(keeping=False):
        expected = network.logits(opened.task.collate(examples))
    with torch.no_grad(), network.apart():
        network.logits(opened.task.collate(examples[-1:]))
        assert torch.allclose(network.logits(opened.task.collate(examples)), expected, atol=1e-6)


@pytest.mark.parametrize("alone", [True, False])
def test_training_without_privacy_takes_what_private_passes_left_and_scores_do_not(
    bert: Path, alone: bool
) -> None:
    """A public text that is also a private record would show in the last bits of its score."""
    opened = workspace(bert, cache=4.0)
    if not alone:  # adapters train too: the states below the last layer are cached
        opened.train_names(frozenset(opened.start))
    network, cache = opened.network, opened.network.head_inputs
    prefix = network.prefix
    assert cache is not None
    assert prefix is not None
    cache._kept, prefix._kept = KeptStates(), KeptStates()
    cache._kept.made_with = cache._made_with
    examples = examples_of("", opened)[:2]
    with torch.no_grad():
        private = network.logits(opened.task.collate(examples, BatchShape(4, LONGEST, (2, 4))))
        used = (cache if alone else prefix)._kept
        for states in used._states.values():
            states.add_(1.0)  # to tell what is taken; rounding would hardly show
        free = opened.task.collate(examples)
        scored = network.logits(free)
        for states in used._states.values():
            states.add_(1.0)
        with taking_any(network):
            taken = network.logits(free)
            again = network.logits(opened.task.collate(examples, BatchShape(4, LONGEST, (2, 4))))
    assert torch.allclose(scored, private[:2], atol=1e-5)
    assert not torch.allclose(taken, scored, atol=1e-3)
    assert torch.allclose(taken, again[:2], atol=1e-5)  # the states of the fixed shape
    with torch.no_grad():
        after = network.logits(free)
    assert not torch.allclose(after, taken, atol=1e-3)  # the context has ended


def test_what_does_not_fit_is_computed_each_time(bert: Path) -> None:
    slow = workspace(bert, cache=0.0, train="none", top_layers=0)
    fast = workspace(bert, cache=ROOM_FOR_ONE, train="none", top_layers=0)
    examples = examples_of("", fast)
    expected = summed(slow, examples)
    for _ in range(2):
        passes = passes_of(fast)
        assert equal(summed(fast, examples), expected)
        assert passes


def test_apart_sees_nothing_and_leaves_nothing(bert: Path) -> None:
    opened = workspace(bert, cache=4.0, train="none", top_layers=0)
    examples = examples_of("", opened)
    with opened.network.apart():
        assert opened.network.is_apart
        summed(opened, examples)
    assert not opened.network.is_apart
    passes = passes_of(opened)
    summed(opened, examples)
    assert passes
    passes.clear()
    with opened.network.apart(keeping=False):
        for _ in range(2):
            summed(opened, examples)
            assert passes
            passes.clear()


def test_networks_share_a_probes_vectors_and_no_others(bert: Path) -> None:
    """The next seed's adapters may start elsewhere; a probe's vectors are the base's alone."""
    for train, is_shared in (("none", True), ("both", False)):
        top = 0 if train == "none" else 1
        first = workspace(bert, cache=4.0, train=train, top_layers=top)
        examples = examples_of("", first)
        summed(first, examples)
        second = workspace(bert, cache=4.0, train=train, top_layers=top)
        passes = passes_of(second)
        summed(second, examples)
        assert bool(passes) is not is_shared


def test_the_digest_is_of_what_changed(bert: Path) -> None:
    """Writing equal values keeps the cache, so that each round need not fill it again."""
    opened = workspace(bert, cache=4.0)
    cache = opened.network.head_inputs
    assert isinstance(cache, HeadInputs)
    adapters = [p for n, p in opened.network.named_parameters() if "lora_" in n]

    def rewrite() -> None:
        with torch.no_grad():
            for parameter in adapters:
                parameter.copy_(parameter.clone())

    rewrite()
    examples = examples_of("", opened)
    summed(opened, examples)
    passes = passes_of(opened)
    rewrite()
    summed(opened, examples)
    assert not passes
