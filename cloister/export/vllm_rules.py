"""Checks whether vLLM can load an adapter's folder.

vLLM has its own reader of `adapter_config.json` (`vllm/lora/peft_helper.py`), which supports a
small part of what PEFT can save.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from cloister.errors import BadFileError
from cloister.files import open_file
from cloister.json_text import read_json

# Longest adapter_config.json that is read, in bytes: it lists modules by name, a line each.
MOST_CONFIG = 2**22
# The largest value of vLLM's `--max-lora-rank`.
MOST_RANK = 512


def vllm_problems(folder: Path) -> list[str]:
    """Returns the reasons why vLLM would not load an adapter; empty: it loads it.

    Args:
        folder: An adapter's folder.

    Raises:
        BadFileError: The folder's PEFT files are missing or damaged.
    """
    try:
        with open_file(folder / "adapter_config.json") as file:
            settings = read_json(file.read(MOST_CONFIG + 1), most_bytes=MOST_CONFIG)
        with safe_open(folder / "adapter_model.safetensors", "np") as tensors:
            names = list(tensors.keys())
        if (kind := settings.get("peft_type", "LORA")) != "LORA":
            return [f"peft_type: {kind} is not supported, only LORA"]
        ranks = [int(settings["r"]), *map(int, (settings.get("rank_pattern") or {}).values())]
        targets, base = settings["target_modules"], settings["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise BadFileError(f"{folder}: its PEFT files are missing or damaged ({error})") from error
    found = []
    if (folder / "head.safetensors").exists():
        found.append(
            "head.safetensors: the adapter has its own head, which vLLM does not load; use "
            "cloister predict or the card's script"
        )
    if not base:
        found.append("base_model_name_or_path: is empty; the base's name is needed")
    if not targets:
        found.append("target_modules: is empty; at least one module is needed")
    if max(ranks) > MOST_RANK:
        found.append(f"r: {max(ranks)} is not supported, at most {MOST_RANK}")
    if settings.get("bias", "none") != "none":
        found.append('bias: only "none" is supported')
    if settings.get("modules_to_save"):
        found.append("modules_to_save: is not supported")
    if settings.get("use_dora"):
        found.append("use_dora: DoRA is not supported")
    others = [name for name in names if not name.endswith((".lora_A.weight", ".lora_B.weight"))]
    if others:
        found.append(f"adapter_model.safetensors: {others[0]} is not a LoRA factor")
    return found
