"""From a recipe's `[model]`, `[lora]` and task to a network that is ready to train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from cloister.data.records import POOLED, RecordKind
from cloister.errors import RefusedError, UsageError
from cloister.models.attach import adapter_trains, attach
from cloister.models.base import load_backbone
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.device import find_device
from cloister.models.freezing import frozen_names
from cloister.models.layers import end_after
from cloister.models.lora import factor, is_residual
from cloister.models.network import Network, adapter_name, make_head
from cloister.models.passage_head import PassageHead
from cloister.models.pooling import Pooling, choose_pooling
from cloister.models.word_rows import word_rows


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
) -> Network:
    """Loads the base, attaches adapters and a head.

    Args:
        folder: The base's folder (`find_base`).
        model: The `[model]` section.
        lora: The `[lora]` section.
        records: What the task reads; decides the head.
        outputs: C, the head's outputs; ignored for a causal LM.
        seed: The study's seed: adapters and head start from it, the same at every site.
        words: Of a head that starts at the labels' words, the token ids of each label.
        device: `machine.device`, what it computes on; None: the GPU where there is one.
        attention: `machine.attention`, how it is computed; None: as transformers chooses.
        compares: Whether the outputs are cosines with public passages, whose vectors the caller
            sets (`models.passage_head`).

    Returns:
        The network on the device, with everything trained that the section says.

    Raises:
        ModelFileError: The base does not load.
        UsageError: The section does not fit the base or the task.
        RefusedError: The device is not here, or a quantized base is to go to another than a GPU.
    """
    place = find_device(device)
    if model.quantization != "none" and device is not None and place.type != "cuda":
        raise RefusedError(
            f"model.quantization: {model.quantization} needs a CUDA GPU, and machine.device is "
            f'{device}; set model.quantization = "none", or another device'
        )
    causal = records == "messages"
    head_kind = lora.head or ("frozen" if causal else "linear")
    if causal and (head_kind != "frozen" or lora.train == "none"):
        raise UsageError(
            "lora.head: a causal LM's head is the base's own and stays frozen; "
            'leave lora.head out, and train "both" or "b"'
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
    if head_kind == "label-words":
        rows = word_rows(backbone, words, lambda: load_backbone(folder, model, causal=True))
    head: nn.Module | None
    if compares:
        head = PassageHead(head_kind, hidden, outputs, lora.r, seed)
    else:
        head = None if causal else make_head(head_kind, hidden, outputs, lora.r, seed, rows)
    if lora.method == "prompt" and pooling is not None and pooling.mode == "pooler":
        raise UsageError(
            "model.pooling: pooler reads the first state, which is a prompt's own; set "
            'model.pooling to "mean" or "cls", or lora.method to another'
        )
    network = Network(attach(backbone, lora, seed), head, pooling)
    if model.quantization == "none":
        network.to(place)
    else:
        _follow_base(network)
    network.set_trained(trainable_names(network, lora, head_kind))
    return network


def _follow_base(network: Network) -> None:
    """Moves head and adapters to where bitsandbytes put the base, which cannot be moved itself."""
    device = network.base.device
    if network.head is not None:
        network.head.to(device)
    for name, parameter in network.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(device)


def trainable_names(network: Network, lora: LoraConfig, head: str) -> frozenset[str]:
    """Names of everything that a study may ever train.

    Args:
        network: With adapters and head.
        lora: The `[lora]` section.
        head: `linear`, `lora`, `frozen` or `label-words`.

    Raises:
        UsageError: A pattern of `lora.freeze` fits nothing that would train, or all of it.
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
    """Names of what travels down and never trains: residuals, and A where the coordinator moves it.

    Args:
        network: With adapters and head.
        train: Which factors train.
    """
    names = {adapter_name(name) for name, _ in network.named_parameters()}
    moving = {name for name in names if factor(name) == "a" and train == "b-moving"}
    return frozenset(moving | {name for name in names if is_residual(name)})
