"""Which transformers class reads a base, or by name why none of them does.

A base must read token ids and nothing else. Wrappers of several networks (text beside images or
sound) and encoders that wait for a decoder's input are told apart by their configuration, before
any weight is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForTextEncoding

from cloister.errors import ModelFileError
from cloister.models.pretrained import from_folder


def read_config(folder: Path) -> Any:
    """A base's configuration, of a network that reads text alone.

    Args:
        folder: What `find_base` returned.

    Raises:
        ModelFileError: The folder has no readable `config.json`, or it is of several networks.
    """
    try:
        config = from_folder(AutoConfig, folder)
    except (OSError, ValueError, KeyError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelFileError(f"model.base: {folder} does not load: no model ({first})") from error
    _refuse_wrappers(folder, config)
    return config


def _refuse_wrappers(folder: Path, config: Any) -> None:
    """Refuses a configuration that is made of others, as those of multimodal models are."""
    try:
        is_whole = config.get_text_config() is config
    except ValueError:  # several texts' networks, of which transformers would have to guess one
        is_whole = False
    if is_whole:
        return
    parts = [name for name in type(config).sub_configs if getattr(config, name, None) is not None]
    raise ModelFileError(
        f"model.base: {folder} is a {config.model_type}, a wrapper of several networks "
        f"({', '.join(parts)}), which are not supported; choose a base that reads text alone, or "
        "load it with transformers, save its language model alone (model.language_model, or its "
        "ForCausalLM class) with its tokenizer, and give that folder"
    )


def network_class(folder: Path, config: Any, *, causal: bool) -> Any:
    """The Auto class that loads a base for a task.

    Args:
        folder: Of the base, for messages.
        config: What `read_config` returned.
        causal: With its language-modelling head; else hidden states only.

    Returns:
        Of an encoder with a decoder, where transformers has the encoder alone (T5), that.

    Raises:
        ModelFileError: transformers has no such class for the architecture.
    """
    kind: Any = AutoModelForCausalLM if causal else AutoModel
    if config.is_encoder_decoder:
        if causal or type(config) not in AutoModelForTextEncoding._model_mapping:
            raise ModelFileError(
                f"model.base: {folder} is a {config.model_type}, an encoder with a decoder, which "
                "is not supported"
                + (" for this task.kind" if causal else "")
                + "; choose a decoder (Llama, GPT-2, …)"
                + ("" if causal else " or an encoder (BERT, …)")
            )
        kind = AutoModelForTextEncoding
    if causal and type(config) in kind._model_mapping and not is_decoder(config.model_type):
        raise ModelFileError(
            f"model.base: {folder} is a {config.model_type}, an encoder, in which every token "
            "reads the whole text, so that it would learn a reply by reading it; choose a decoder "
            "(Llama, GPT-2, …) for this task.kind"
        )
    if type(config) not in kind._model_mapping:
        needed = "language-modelling head" if causal else "network of hidden states"
        raise ModelFileError(
            f"model.base: {folder} is a {config.model_type}, of which transformers has no {needed}"
            f" ({kind.__name__}); choose "
            + ("a decoder (Llama, GPT-2, …)" if causal else "another base")
            + " for this task.kind"
        )
    return kind


def is_decoder(model_type: str) -> bool:
    """Whether transformers knows the architecture as a causal language model and not as a masked
    one."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    return (
        model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        and model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )
