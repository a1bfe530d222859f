"""Finds the transformers class that loads a base, or says why none can.

A base must read token ids and nothing else. If a model has several networks (text beside images or
sound), only its text network is loaded; encoders that need a decoder's input are recognised by
their configuration, before any weight is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForTextEncoding

from cloister.errors import ModelFileError
from cloister.models.pretrained import from_folder

# Names of the text network's weights in a wrapper, and its own names for them (transformers 5 and
# earlier formats: Llava, Gemma 3, Mistral 3; Idefics 3 and SmolVLM).
TEXT_NAMES = {
    r"^language_model\.model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
    r"^model\.language_model\.": "model.",
    r"^model\.text_model\.": "model.",
}


def read_config(folder: Path) -> Any:
    """Returns a base's configuration; for a wrapper, that of the network that reads text.

    Args:
        folder: The base's folder, from `find_base`.

    Raises:
        ModelFileError: The folder has no readable `config.json`, or has several networks of which
            none reads only text.
    """
    config = _whole(folder)
    if config.is_encoder_decoder:
        return config
    try:
        text = config.get_text_config()
    except ValueError:  # several text networks: transformers cannot choose one
        text = None
    if text is config:
        return config
    if text is None or type(text) not in AutoModel._model_mapping:
        parts = [n for n in type(config).sub_configs if getattr(config, n, None) is not None]
        raise ModelFileError(
            f"model.base: {folder} is a {config.model_type}, a wrapper of several networks "
            f"({', '.join(parts)}) of which none reads only text; choose a base that does"
        )
    # The wrapper states whether the head is tied; the text network's own part may not repeat it.
    if getattr(config, "tie_word_embeddings", False) and not _has_head(folder):
        text.tie_word_embeddings = True
    return text


def text_part(folder: Path) -> dict[str, Any]:
    """Returns the arguments of `from_pretrained` for a wrapper's text network; else {}."""
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
    """Returns whether the weights include an output head."""
    for file in folder.glob("*.safetensors"):
        try:
            with safe_open(file, framework="pt") as weights:
                if any(name.endswith("lm_head.weight") for name in weights.keys()):  # noqa: SIM118
                    return True
        except SafetensorError:  # loading gives a better message
            continue
    return False


def network_class(folder: Path, config: Any, *, causal: bool) -> Any:
    """Returns the transformers Auto class that loads a base for a task.

    Args:
        folder: The base's folder, for messages.
        config: The configuration, from `read_config`.
        causal: Whether its language-modelling head is needed; else hidden states only.

    Returns:
        The class. For an encoder with a decoder it is that of the encoder alone, if transformers
        has one (T5).

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
            f"model.base: {folder} is a {config.model_type}, an encoder: each of its tokens reads "
            "the whole text, so it would copy the reply and not learn it; choose a decoder "
            "(Llama, GPT-2, …) for this task.kind"
        )
    if type(config) not in kind._model_mapping:
        needed = "language-modelling head" if causal else "network of hidden states"
        raise ModelFileError(
            f"model.base: {folder} is a {config.model_type}, for which transformers has no {needed}"
            f" ({kind.__name__}); choose "
            + ("a decoder (Llama, GPT-2, …)" if causal else "another base")
            + " for this task.kind"
        )
    return kind


def is_decoder(model_type: str) -> bool:
    """Returns whether transformers has the architecture as a causal LM and not as a masked one."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    return (
        model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        and model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )
