"""Finds the frozen base model on disk, checks it against its hash, and loads it."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from cloister.errors import ModelFileError, RefusedError
from cloister.models.config import ModelConfig, base_problem, is_gguf
from cloister.models.kinds import network_class, read_config, text_part
from cloister.models.packaged import PACKAGED, packaged
from cloister.models.pretrained import from_folder, quiet
from cloister.models.unpacked import unpacked, unpacked_sha256

# The files of a model folder that are fetched; weights in pickle formats never are.
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


def find_base(base: str) -> Path:
    """Returns the folder of a base model on this machine.

    Args:
        base: A local folder, a GGUF file (unpacked once, `models.unpacked`) or a hub id. A hub id
            is looked up on the hub, then in the hub's local cache, then among installed packages
            that carry it.

    Raises:
        ModelFileError: It is in none of these places, or the file cannot be read.
    """
    folder = Path(base).expanduser()
    if folder.is_dir():
        return folder
    if is_gguf(base):
        return unpacked(folder)
    problem = base_problem(base)
    if problem is not None:
        raise ModelFileError(problem)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(base, allow_patterns=HUB_FILES))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        carried = packaged(base)
        if carried is not None:
            return carried
        remedy = (
            PACKAGED[base].remedy
            if base in PACKAGED
            else "download it on a machine that can, and set model.base to its folder here"
        )
        raise ModelFileError(
            f"model.base: {base} could not be downloaded from the hub "
            f"({str(error).splitlines()[0]}); {remedy}"
        ) from error


def base_at_hand(base: str) -> Path:
    """Returns the folder of a hub model that is already on this machine; the hub is not asked.

    Args:
        base: A hub id, which another party may have chosen.

    Raises:
        ModelFileError: It is not a hub id, or neither the hub's local cache nor a package has it.
    """
    if base.count("/") != 1 or base.startswith(("/", ".", "~")):
        raise ModelFileError(
            f"model.base: {base} is not a hub id (owner/name), and a folder of the coordinator's "
            "machine is not on this one; set site.model in site.toml to your folder"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(base, allow_patterns=HUB_FILES, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError) as error:
        carried = packaged(base)
        if carried is not None:
            return carried
        raise ModelFileError(
            f"model.base: {base} is not on this machine, and a site never downloads what a study "
            "names; download it yourself and set site.model in site.toml to its folder"
        ) from error


def weights_sha256(folder: Path) -> str:
    """Returns the SHA-256 of a model's weights, in hex.

    One `.safetensors` file: its own hash. Several shards: the hash of their hashes' hex digits,
    in order of file name. Unpacked from a GGUF: the hash of that file.

    Raises:
        ModelFileError: The folder has no `.safetensors` file, or changed after it was unpacked.
    """
    if (packed := unpacked_sha256(folder)) is not None:
        return packed
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelFileError(
            f"model.base: {folder} has no .safetensors file; weights in pickle formats are not "
            "read: convert them first"
        )
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def check_base(folder: Path, expected: str | None) -> str:
    """Hashes a base's weights and compares the hash with the expected one.

    Raises:
        ModelFileError: The hash is not the expected one.
    """
    found = weights_sha256(folder)
    if expected is not None and found != expected:
        raise ModelFileError(
            f"model.sha256: the weights in {folder} have {found}, the study needs {expected}; "
            "get the right weights, or correct the recipe if it is wrong"
        )
    return found


def with_base_sha256(model: ModelConfig) -> ModelConfig:
    """Returns a study's base with its hash: sites accept a base by it, before they look for it.

    Raises:
        ModelFileError: The base cannot be found, or is damaged.
    """
    if model.sha256 is not None:
        return model
    return replace(model, sha256=check_base(find_base(model.base), None))


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Loads the base's tokenizer, set to truncate and pad at the end of a text.

    The side that the folder names is ignored: a text longer than `task.max_length` is cut at its
    end, and the adapter's card says so.

    Args:
        folder: The base's folder, from `find_base`.

    Raises:
        ModelFileError: It cannot be read, or only with code of the folder itself.
    """
    try:
        tokenizer = from_folder(AutoTokenizer, folder)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelFileError(f"model.base: no tokenizer in {folder}: {_first(error)}") from error
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    tokenizer.truncation_side = tokenizer.padding_side = "right"
    return tokenizer


def load_backbone(folder: Path, config: ModelConfig, *, causal: bool) -> PreTrainedModel:
    """Loads the base's network, frozen, in evaluation mode (dropout stays off in training too).

    Args:
        folder: The base's folder, from `find_base`.
        config: Type and quantization of the weights.
        causal: Whether to load its language-modelling head; else it gives hidden states only.

    Raises:
        ModelFileError: It cannot be read.
        RefusedError: Quantization without a GPU or without bitsandbytes.
    """
    kind = network_class(folder, read_config(folder), causal=causal)
    options: dict[str, Any] = {"dtype": getattr(torch, config.dtype), **text_part(folder)}
    if config.quantization != "none":
        options["quantization_config"] = _quantization(config)
    try:
        with quiet():
            loaded: Any = from_folder(
                kind, folder, use_safetensors=True, output_loading_info=True, **options
            )
    except (
        OSError,
        ValueError,
        KeyError,
        RuntimeError,
        AttributeError,
        ImportError,
        SafetensorError,
    ) as error:
        raise ModelFileError(f"model.base: {folder} does not load: {_first(error)}") from error
    model, info = loaded
    assert isinstance(model, PreTrainedModel)
    # A pooler without weights in the files is random; `choose_pooling` never uses it.
    missing = sorted(name for name in info["missing_keys"] if "pooler." not in name)
    if missing:
        raise ModelFileError(
            f"model.base: {folder} lacks {missing[0]} and {len(missing) - 1} more weights, which "
            "would start at random and differently at each site; get a complete base"
        )
    model.requires_grad_(False)
    model.eval()
    return model


def has_pooler(folder: Path) -> bool:
    """Returns whether the weights include a trained pooler."""
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            if any("pooler." in name for name in weights.keys()):  # noqa: SIM118
                return True
    return False


def _quantization(config: ModelConfig) -> BitsAndBytesConfig:
    if not torch.cuda.is_available():
        raise RefusedError(
            f"model.quantization: {config.quantization} needs a CUDA GPU and there is none here; "
            'set model.quantization = "none" (and model.dtype = "bfloat16" to save memory)'
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise RefusedError(
            f"model.quantization: {config.quantization} needs bitsandbytes; "
            "install cloister with the extra `quantization`"
        )
    four = config.quantization == "4bit"
    return BitsAndBytesConfig(
        load_in_4bit=four,
        load_in_8bit=not four,
        bnb_4bit_quant_type="nf4",  # QLoRA (Dettmers et al. 2023, arXiv:2305.14314), section 3
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
