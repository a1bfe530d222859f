"""Writes a chat adapter as one GGUF file, which llama.cpp and its users load beside a base.

    llama-cli -m base.gguf --lora adapter.gguf

When llama.cpp converts a base of the Llama family, it permutes the rows of the query and key
projections within each head: its rotary embedding pairs neighbouring rows, that of transformers row
i with row i + d/2. An adapter's B needs the same permutation P, because (P B) A = P (B A).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from cloister.errors import BadFileError, UsageError
from cloister.files import open_file
from cloister.json_text import read_json

# Longest adapter_config.json that is read, in bytes: it lists modules by name, a line each.
MOST_CONFIG = 2**22
PREFIX = "base_model.model."


@dataclass(frozen=True)
class Architecture:
    """The names that llama.cpp uses for a family of bases.

    Attributes:
        name: Its name in GGUF files (`general.architecture`).
        is_turned: Whether the rows of its query and key projections are permuted.
    """

    name: str
    is_turned: bool = False


# By transformers' `model_type`, as llama.cpp's converters register them.
ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", is_turned=True),
    "mistral": Architecture("llama", is_turned=True),
    "smollm3": Architecture("smollm3", is_turned=True),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
    "gemma": Architecture("gemma"),
    "gemma2": Architecture("gemma2"),
    "gemma3_text": Architecture("gemma3"),
}


def write_gguf(folder: Path, base: Any, target: Path) -> int:
    """Writes an adapter's folder as a GGUF file.

    Args:
        folder: An adapter's folder, as PEFT saves it.
        base: The base's configuration, as transformers reads it.
        target: The file; an existing one is overwritten.

    Returns:
        The number of modules that the adapter changes.

    Raises:
        UsageError: gguf is not installed, or llama.cpp has no way to load such an adapter.
        BadFileError: The folder's files are missing, damaged or do not fit the base.
    """
    try:
        import gguf
    except ImportError as error:
        raise UsageError(
            "the package gguf, which writes GGUF files, is not installed; run "
            'pip install "cloister[llm]"'
        ) from error
    architecture = ARCHITECTURES.get(base.model_type)
    if architecture is None:
        raise UsageError(
            f"cannot write a GGUF adapter for a base of type {base.model_type}, only for "
            f"{known()}; try convert_lora_to_gguf.py of llama.cpp"
        )
    if (folder / "head.safetensors").exists():
        raise UsageError(
            f"{folder}: the adapter has its own head (head.safetensors), which a GGUF adapter "
            "cannot hold; use cloister predict or the card's script"
        )
    settings, tensors = read_folder(folder)
    alpha = float(settings["lora_alpha"])
    number = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[architecture.name]
    names = gguf.get_tensor_name_map(number, int(base.num_hidden_layers))
    writer = gguf.GGUFWriter(target, architecture.name)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    count = 0
    for module, a, b in pairs(folder, tensors):
        name = names.get_name(f"{module}.weight", try_suffixes=(".weight",))
        if name is None:
            raise UsageError(
                f"{module}: llama.cpp cannot load an adapter of this module; use cloister predict "
                "or the card's script"
            )
        if architecture.is_turned and module.endswith((".q_proj", ".k_proj")):
            is_query = module.endswith(".q_proj")
            heads = base.num_attention_heads if is_query else base.num_key_value_heads
            b = turned(b, int(heads))
        rank = a.shape[0]
        # llama.cpp scales by alpha / rank; where PEFT uses another factor, B is multiplied by the
        # quotient of the two.
        difference = scale(settings, module, rank) * rank / alpha
        writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(a, np.float32))
        writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(b * difference, np.float32))
        count += 1
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return count


def known() -> str:
    """Returns the families of bases whose adapters can be written, for messages."""
    return ", ".join(ARCHITECTURES)


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """Reads an adapter's settings and tensors.

    Raises:
        UsageError: The adapter is of a kind that a GGUF file cannot hold.
        BadFileError: A file is missing or damaged.
    """
    try:
        with open_file(folder / "adapter_config.json") as file:
            settings = read_json(file.read(MOST_CONFIG + 1), most_bytes=MOST_CONFIG)
        tensors = load_file(folder / "adapter_model.safetensors")
        kind = str(settings.get("peft_type", "LORA"))
        if kind != "LORA" or settings.get("lora_bias"):
            raise UsageError(
                f"{folder}: the adapter is {kind if kind != 'LORA' else 'biases (BitFit)'}, but "
                "llama.cpp loads LoRA only; use cloister predict or the card's script"
            )
        float(settings["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BadFileError(f"{folder}: its PEFT files are missing or damaged ({error})") from error
    if settings.get("use_dora"):
        raise UsageError(
            f"{folder}: the adapter uses DoRA, which a GGUF file cannot hold; use cloister predict "
            "or the card's script"
        )
    return settings, {name: tensor.float().numpy() for name, tensor in tensors.items()}


def pairs(
    folder: Path, tensors: Mapping[str, NDArray[np.float32]]
) -> Iterator[tuple[str, NDArray[np.float32], NDArray[np.float32]]]:
    """Returns A [r, inputs] and B [outputs, r] of each adapted module, by its name in the base.

    Raises:
        BadFileError: A tensor is not a LoRA factor, a module lacks one, or the two do not fit.
    """
    a_end, b_end = ".lora_A.weight", ".lora_B.weight"
    modules = sorted({name.removesuffix(a_end).removesuffix(b_end) for name in tensors})
    for module in modules:
        a, b = tensors.get(module + a_end), tensors.get(module + b_end)
        if a is None or b is None or a.ndim != 2 or b.ndim != 2 or len(a) != b.shape[1]:
            raise BadFileError(
                f"{folder}: {module}: the factors A and B are missing or do not fit together; copy "
                "the whole folder again"
            )
        yield module.removeprefix(PREFIX), a, b


def turned(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Interleaves the two halves of each head's rows [heads × d, …]: row 0, row d/2, row 1, …"""
    shape = rows.shape
    halves = rows.reshape(heads, 2, shape[0] // heads // 2, *shape[1:])
    return halves.swapaxes(1, 2).reshape(shape)


def scale(settings: Mapping[str, Any], module: str, rank: int) -> float:
    """Returns the factor by which PEFT multiplies a module's product B·A."""
    alpha = float(settings["lora_alpha"])
    for pattern, value in (settings.get("alpha_pattern") or {}).items():
        if module == pattern or module.endswith(f".{pattern}"):
            alpha = float(value)
    return float(alpha / (rank**0.5 if settings.get("use_rslora") else rank))
