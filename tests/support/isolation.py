"""Bases wide enough for real matrix kernels, and the exact influence of a unit on a clipped sum."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.network import trained_parameters
from cloister.privacy.plan import Plan
from cloister.tasks.config import TaskConfig
from cloister.tasks.task import Example
from cloister.training.config import TrainingConfig
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks
from cloister.training.shapes import BatchShapes
from cloister.training.synthetic_batches import SyntheticBatches
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace, open_workspace
from tests.support.models import VOCABULARY, word_tokenizer

LONGEST = 40  # tokens: five edges
BOUND = 1e-3  # far below these gradients' norms: every unit contributes at full length
PLAN = Plan(
    public_records=600,
    expected_batch_size=300,
    local_steps=1,
    num_rounds=2,
    noise_multiplier=1.0,
    max_grad_norm=BOUND,
    max_update_norm=1.0,
    delta=1e-5,
)
CONFIG = TrainingConfig(expected_batch_size=300, physical_batch_tokens=256)


def wide_base(folder: Path, family: str, hidden: int = 96) -> Path:
    """A two-layer base of 96 units: six vectors of 16 float32, and products of real size."""
    about = {
        "hidden_size": hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": 128,
        "vocab_size": VOCABULARY,
    }
    ends = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if family == "bert":
            model = BertModel(BertConfig(**about))
        elif family == "llama":
            model = LlamaForCausalLM(LlamaConfig(**about, **ends, num_key_value_heads=2))
        else:
            model = GPT2LMHeadModel(
                GPT2Config(
                    vocab_size=VOCABULARY,
                    n_embd=hidden,
                    n_layer=2,
                    n_head=4,
                    n_positions=128,
                    **ends,
                )
            )
    model.save_pretrained(folder)
    word_tokenizer(frame=family == "bert").save_pretrained(folder)
    return folder


def wide_workspace(
    base: Path, kind: str, *, dtype: str = "float32", cache: float = 0.0, **lora: object
) -> Workspace:
    """A workspace whose adapters are away from their start."""
    labels = {
        "causal-lm": (),
        "sequence-classification": tuple("abcde"),
        "token-classification": ("X",),
        "retrieval": (),
    }[kind]
    passages = (("a", "chest pain"), ("b", "no fever"), ("c", "knee swollen"))
    opened = open_workspace(
        ModelConfig(base=str(base), dtype=dtype),  # type: ignore[arg-type]
        replace(LoraConfig(train="both", top_layers=0), **lora),  # type: ignore[arg-type]
        TaskConfig(
            kind=kind,  # type: ignore[arg-type]
            max_length=LONGEST,
            passages=passages if kind == "retrieval" else None,
        ),
        labels,
        0,
        frozen_cache_gib=cache,
    )
    move(opened, 0.3)
    return opened


def move(workspace: Workspace, size: float) -> None:
    """Adds normal values to what trains, from the study's start."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in trained_parameters(workspace.network):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_((noise * size).to(parameter))


def random_units(
    workspace: Workspace, count: int, seed: int, most: int = 1, full: bool = True
) -> list[UnitExamples]:
    """Units of 1 … `most` records; lengths are skewed as texts' are, some have no padding."""
    draw = random.Random(seed)
    batches = SyntheticBatches(workspace.task, workspace.network.vocabulary, seed)

    def example() -> Example:
        length = min(1 + int(draw.lognormvariate(2.5, 0.8)), LONGEST)
        if full and draw.random() < 0.2:
            length = draw.choice((8, 16, 24, LONGEST))
        return batches.example(length)

    return [tuple(example() for _ in range(draw.randint(1, most))) for _ in range(count)]


Summed = Callable[[Sequence[UnitExamples]], torch.Tensor]


def summing(workspace: Workspace, shapes: BatchShapes, bound: float = BOUND) -> Summed:
    """The clipped sum of a batch as one vector of integers."""

    def summed(units: Sequence[UnitExamples]) -> torch.Tensor:
        with per_record_hooks(workspace.network):
            total = clipped_gradient_sum(workspace.network, workspace.task, units, bound, shapes)
        return torch.cat([t.flatten() for t in total.tensors])

    return summed


def movement(
    summed: Summed, units: Sequence[UnitExamples], removed: Sequence[int]
) -> tuple[int, float]:
    """How removing a unit moves a sum, in grid steps, at its worst.

    Returns:
        The largest coordinate by which the sum over the *others* moves, and the largest norm by
        which the whole sum moves.
    """
    whole, others, most = summed(units), 0, 0.0
    for index in removed:
        without = summed([*units[:index], *units[index + 1 :]])
        alone = summed([units[index]])
        others = max(others, int((whole - without - alone).abs().max()))
        most = max(most, float((whole - without).double().norm()))
    return others, most
