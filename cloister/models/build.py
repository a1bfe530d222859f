"""Builds a network that is ready to train from a recipe's `[model]`, `[lora]` and task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from cloister.data.records import POOLED, RecordKind
from cloister.errors import RefusedError, UsageError
from cloister.models.apart import TwoTexts
from cloister.models.attach import adapter_trains, attach
from cloister.models.base import load_backbone
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.device import find_device
from cloister.models.freezing import frozen_names
from cloister.models.frozen_products import use_wide_products
from cloister.models.layers import end_after
from cloister.models.lora import factor, is_residual
from cloister.models.network import Network, adapter_name, make_head
from cloister.models.passage_head import PassageHead
from cloister.models.pooling import Pooling, choose_pooling
from cloister.models.word_rows import word_rows
from cloister.tasks.config import Comparison


def build_network(
    folder: Path,
    model: ModelConfig,
    lora: LoraConfig,
    records: RecordKind,
    outputs: int,
    seed: int,
    words: Sequence[Sequence[int]] = (),
    *,
    device: str | None = None,
    attention: str | None = None,
    compares: bool = False,
    apart: Comparison | None = None,
) -> Network:
    """Loads the base, and attaches adapters and a head.

    Args:
        folder: The base's folder (`find_base`).
        model: The `[model]` section.
        lora: The `[lora]` section.
        records: The kind of record that the task reads; decides the head.
        outputs: C, the head's outputs; ignored for a causal LM, and for items, whose vectors the
            network gets later (`models.item_vectors`).
        seed: The study's seed, from which adapters and head get the same initial values at every
            site.
        words: For a head that starts at the labels' words: the token ids of each label.
        device: `machine.device`, the device; None: the GPU if there is one.
        attention: `machine.attention`, the kernel of attention; None: transformers chooses.
        compares: Whether the outputs are cosines with public passages, whose vectors the network
            gets later (`models.passage_head`).
        apart: For two texts that are encoded separately: what the head reads of their vectors.

    Returns:
        The network on the device; the parameters of the section are set to be trained.

    Raises:
        ModelFileError: The base does not load.
        UsageError: The section does not fit the base or the task.
        RefusedError: The device does not exist here, or is not a GPU and the base is quantized.
    """
    place = find_device(device)
    if model.quantization != "none" and device is not None and place.type != "cuda":
        raise RefusedError(
            f"model.quantization: {model.quantization} needs a CUDA GPU, but machine.device is "
            f'{device}; set model.quantization = "none", or another device'
        )
    causal = records == "messages"
    head_kind = lora.head or ("frozen" if causal else "linear")
    if causal and (head_kind != "frozen" or lora.train == "none"):
        raise UsageError(
            "lora.head: a causal LM uses the base's own head, which stays frozen; "
            'leave lora.head out, and set lora.train to "both" or "b"'
        )
    backbone = load_backbone(folder, model, causal=causal)
    if attention is not None:
        backbone.set_attn_implementation(attention)
    if model.layers is not None:
        end_after(backbone, model.layers)
    hidden = int(backbone.config.get_text_config().hidden_size)
    pooling: Pooling | None = None
    if records in POOLED:
        pooling = choose_pooling(folder, backbone, model.pooling, model.normalize)
    rows = None
    if records == "items":  # the head maps a person's vector into the space of items' vectors
        outputs, rows = hidden, torch.eye(hidden)
    if head_kind == "label-words":
        rows = word_rows(backbone, words, lambda: load_backbone(folder, model, causal=True))
    if lora.method == "prompt" and pooling is not None and pooling.mode == "pooler":
        raise UsageError(
            "model.pooling: pooler reads the first state, which belongs to the prompt; set "
            'model.pooling to "mean" or "cls", or choose another lora.method'
        )
    if apart is not None and pooling is not None and pooling.mode == "pooler":
        raise UsageError(
            "model.pooling: pooler reads the row's first token alone, but the second text of "
            'task.encoder = "bi" begins later; set model.pooling to "mean", "cls" or "last"'
        )
    adapted = attach(backbone, lora, seed)
    two = TwoTexts(adapted, apart) if apart is not None else None
    hidden = hidden if two is None else two.width(hidden)
    head: nn.Module | None
    if compares:
        head = PassageHead(head_kind, hidden, outputs, lora.r, seed)
    else:
        head = None if causal else make_head(head_kind, hidden, outputs, lora.r, seed, rows)
    network = Network(adapted, head, pooling, two)
    if model.quantization == "none":
        network.to(place)
    else:
        _follow_base(network)
    network.set_trained(trainable_names(network, lora, head_kind))
    use_wide_products(network.backbone)
    return network


def _follow_base(network: Network) -> None:
    """Moves head and adapters to the device where bitsandbytes placed the base for good."""
    device = network.base.device
    if network.head is not None:
        network.head.to(device)
    for name, parameter in network.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(device)


def trainable_names(network: Network, lora: LoraConfig, head: str) -> frozenset[str]:
    """Returns the names of all parameters that a study may ever train.

    Args:
        network: With adapters and head.
        lora: The `[lora]` section.
        head: `linear`, `lora`, `frozen` or `label-words`.

    Raises:
        UsageError: A pattern of `lora.freeze` matches no trained tensor, or nothing would train.
    """
    trains = adapter_trains(lora)
    names = set()
    for parameter_name, _ in network.named_parameters():
        name = adapter_name(parameter_name)
        if name.startswith("head."):
            if head != "frozen" and not name.startswith("head.start."):
                names.add(name)
        elif trains(name):
            names.add(name)
    return frozenset(names - frozen_names(names, lora.freeze or ()))


def carried_names(network: Network, train: str) -> frozenset[str]:
    """Returns the names of tensors that sites receive but never train: residuals, and a moving A.

    Args:
        network: With adapters and head.
        train: The factors that train; with `b-moving` the coordinator changes A between rounds.
    """
    names = {adapter_name(name) for name, _ in network.named_parameters()}
    moving = {name for name in names if factor(name) == "a" and train == "b-moving"}
    return frozenset(moving | {name for name in names if is_residual(name)})
