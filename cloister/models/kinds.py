"""Which transformers class reads a base, or by name why none of them does.

A base must read token ids and nothing else. Of a wrapper of several networks (text beside images or
sound) the text's network alone is read; encoders that wait for a decoder's input are told apart by
their configuration, before any weight is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForTextEncoding

from cloister.errors import ModelFileError
from cloister.models.pretrained import from_folder

# How wrappers name their text network's weights, and how it names them alone (transformers 5 and
# the formats before it: Llava, Gemma 3, Mistral 3; Idefics 3 and SmolVLM).
TEXT_NAMES = {
    r"^language_model\.model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
    r"^model\.language_model\.": "model.",
    r"^model\.text_model\.": "model.",
}


def read_config(folder: Path) -> Any:
    """A base's configuration; of a wrapper, that of the network that reads text.

    Args:
        folder: What `find_base` returned.

    Raises:
        ModelFileError: The folder has no readable `config.json`, or it is of several networks of
            which none reads text alone.
    """
    config = _whole(folder)
    if config.is_encoder_decoder:
        return config
    try:
        text = config.get_text_config()
    except ValueError:  # several texts' networks, of which transformers would have to guess one
        text = None
    if text is config:
        return config
    if text is None or type(text) not in AutoModel._model_mapping:
        parts = [n for n in type(config).sub_configs if getattr(config, n, None) is not None]
        raise ModelFileError(
            f"model.base: {folder} is a {config.model_type}, a wrapper of several networks "
            f"({', '.join(parts)}) of which none reads text alone; choose a base that does"
        )
    # What the wrapper says of its head, the text network may not repeat.
    if getattr(config, "tie_word_embeddings", False) and not _has_head(folder):
        text.tie_word_embeddings = True
    return text


def text_part(folder: Path) -> dict[str, Any]:
    """What `from_pretrained` needs to read the text network of a wrapper; empty for other bases."""
    config, whole = read_config(folder), _whole(folder)
    if whole.is_encoder_decoder or type(config) is type(whole):
        return {}
    return {"config": config, "key_mapping": TEXT_NAMES}


def _whole(folder: Path) -> Any:
    try:
        return from_folder(AutoConfig, folder)
    except (OSError, ValueError, KeyError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelFileError(f"model.base: {folder} does not load: no model ({first})") from error


def _has_head(folder: Path) -> bool:
    """Whether the weights hold an output head of their own."""
    for file in folder.glob("*.safetensors"):
        try:
            with safe_open(file, framework="pt") as weights:
                if any(name.endswith("lm_head.weight") for name in weights.keys()):  # noqa: SIM118
                    return True
        except SafetensorError:  # which loading says better
            continue
    return False


def network_class(folder: Path, config: Any, *, causal: bool) -> Any:
    """Returns the transformers Auto class that loads a base for a task.

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
