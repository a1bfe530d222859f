"""A Llama of random weights in memory, with adapters on all linear modules: speed needs no more."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cloister.models.attach import attach
from cloister.models.config import LoraConfig
from cloister.models.limits import limits_of
from cloister.models.network import Network
from cloister.models.state import read_adapter
from cloister.tasks.build import build_task
from cloister.tasks.config import TaskConfig
from cloister.training.synthetic_batches import SyntheticBatches
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace
from tests.support.models import word_tokenizer

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Size:
    """A Llama's sizes, a batch and how adapters are.

    Attributes:
        name: As the table has it.
        hidden: Hidden units.
        layers: Layers.
        heads: Attention's heads.
        groups: Heads of keys and values.
        inner: Units of the MLP.
        vocabulary: Token ids.
        records: Of a batch.
        tokens: Of each record.
        rank: Of the adapters.
    """

    name: str
    hidden: int
    layers: int
    heads: int
    groups: int
    inner: int
    vocabulary: int
    records: int
    tokens: int
    rank: int


# The sizes of Llama 3.2 1B and Llama 2 7B, by their public configurations.
ONE_B = Size("1B", 2048, 16, 32, 8, 8192, 128_256, 16, 512, 16)
SEVEN_B = Size("7B", 4096, 32, 32, 32, 11_008, 32_000, 16, 512, 16)
# What is tried for bit equality: kernels of real width, few layers: all shapes fit the time.
TRIED = Size("4 layers of 1B", 2048, 4, 32, 8, 8192, 32_000, 16, 128, 16)
TINY = Size("tiny", 64, 2, 4, 2, 128, 256, 4, 32, 4)


def workspace_of(size: Size, device: str, dtype: torch.dtype) -> Workspace:
    """A chat study on such a base; every call draws the same weights.

    Raises:
        torch.OutOfMemoryError: It does not fit the device.
    """
    config = LlamaConfig(
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.groups,
        intermediate_size=size.inner,
        vocab_size=size.vocabulary,
        max_position_embeddings=2 * size.tokens,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(0)
            base = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    base.requires_grad_(False).eval()
    lora = LoraConfig(r=size.rank, target_modules=LINEAR, train="both", top_layers=0)
    network = Network(attach(base, lora, 0), None, None).to(device)
    names = {n.replace(".default.", ".") for n, _ in network.named_parameters() if "lora_" in n}
    network.set_trained(frozenset(names))
    tokenizer = word_tokenizer(frame=False)
    task = build_task(TaskConfig(kind="causal-lm", max_length=size.tokens), (), tokenizer)
    return Workspace(
        folder=Path(),
        base_sha256=f"random {size.name}",
        tokenizer=tokenizer,
        task=task,
        network=network,
        limits=limits_of(network.base),
        start=read_adapter(network),
    )


def units_of(workspace: Workspace, size: Size) -> list[UnitExamples]:
    """A batch of records of full length."""
    batches = SyntheticBatches(workspace.task, size.vocabulary)
    return [(batches.example(size.tokens),) for _ in range(size.records)]
