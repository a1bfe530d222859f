"""Writes a chat's base with its adapter merged as one GGUF file for llama.cpp: `model.gguf`.

Weights stay float32; llama.cpp's `llama-quantize` makes the file smaller. The query and key
projections of the Llama family are permuted as `export.gguf_adapter` explains. Afterwards
transformers reads the file back, and the export is refused if logits or tokens differ.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from cloister.errors import UsageError
from cloister.export.forms.classifier_head import plain_state
from cloister.export.forms.finished import Finished, Logits
from cloister.export.forms.merged import unmergeable
from cloister.export.gguf_adapter import ARCHITECTURES, turned
from cloister.export.gguf_tokenizer import gguf_tokenizer, tokenizer_problem
from cloister.models.center_texts import CHINESE, ENGLISH
from cloister.models.gguf_header import read_header
from cloister.models.pretrained import from_folder, quiet
from cloister.models.splitting import mend_splitting
from cloister.tasks.chat import CausalChat
from cloister.training.generation import reply_ends

FILE = "model.gguf"
# By transformers' `model_type`: families that transformers can read back from a GGUF, so that the
# file can be checked. Gemma's norms and SmolLM 3's layers without positions are stored in other
# ways, which this file does not write.
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
# More texts whose tokens are compared: digits, blanks, lines, contractions and symbols.
_AWKWARD = (
    "12345 67,890.12",
    "two  blanks   three\n\nlines\r\n\ttab ",
    "don't WE'LL it's",
    "€5 × 3 – naïve café 😀 (a_b)=[c]",
    " begins with a blank",
)


def problem(finished: Finished) -> str | None:
    """Returns the reason why a study's result cannot be written in this form; None: it can."""
    if not finished.can_merge:
        return unmergeable(finished)
    if finished.network.head is not None:
        return "it has its own head, which a GGUF of a language model cannot hold"
    config: Any = finished.network.base.config
    if config.model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        return f"Cloister cannot write the GGUF of a whole {config.model_type}, only of {known}"
    if (kind := _rope(config).get("rope_type", "default")) != "default":
        return f"its positions are scaled ({kind}), which Cloister cannot write into a GGUF"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return "its attention has a sliding window, which llama.cpp does not support for it"
    return tokenizer_problem(finished.workspace.tokenizer)


def write(finished: Finished, folder: Path) -> None:
    """Writes the merged model and its tokenizer into `model.gguf`.

    Raises:
        UsageError: gguf is not installed, a tensor has no place in the file, or the tokenizer that
            is read back cuts texts differently.
    """
    try:
        import gguf
    except ImportError as error:
        raise UsageError(
            "the package gguf, which writes GGUF files, is not installed; run "
            'pip install "cloister[llm]"'
        ) from error
    finished.merge()
    config: Any = finished.network.base.config
    architecture = ARCHITECTURES[config.model_type]
    writer = gguf.GGUFWriter(folder / FILE, architecture.name)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _add_sizes(writer, config)
    _add_tokenizer(writer, finished)
    number = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[architecture.name]
    names = gguf.get_tensor_name_map(number, int(config.num_hidden_layers))
    for name, tensor in _tensors(finished):
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if known is None:
            raise UsageError(
                f"--format gguf-merged: llama.cpp's {architecture.name} has no place for {name}; "
                "choose another format"
            )
        writer.add_tensor(known, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _check_tokens(finished, folder)


def _rope(config: Any) -> Mapping[str, Any]:
    return dict(getattr(config, "rope_parameters", None) or {})


def _add_sizes(writer: Any, config: Any) -> None:
    heads = int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    writer.add_context_length(int(config.max_position_embeddings))
    writer.add_embedding_length(int(config.hidden_size))
    writer.add_block_count(int(config.num_hidden_layers))
    writer.add_feed_forward_length(int(config.intermediate_size))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.num_key_value_heads))
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float(_rope(config)["rope_theta"]))
    writer.add_layer_norm_rms_eps(float(config.rms_norm_eps))
    writer.add_vocab_size(int(config.vocab_size))


def _add_tokenizer(writer: Any, finished: Finished) -> None:
    task, tokenizer = finished.task, finished.workspace.tokenizer
    assert isinstance(task, CausalChat)
    converted = gguf_tokenizer(tokenizer, int(finished.network.base.config.vocab_size))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(converted.pre)
    writer.add_token_list(converted.tokens)
    writer.add_token_types(converted.kinds)
    writer.add_token_merges(converted.merges)
    ends, _ = reply_ends(finished.network, task)
    end = tokenizer.eos_token_id
    for add, token in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, end if end is not None else next(iter(ends), None)),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, finished.workspace.pad_id),
        # The token that ends a turn, if the study trained another one than the base's end of text.
        (writer.add_eot_token_id, next((one for one in ends if one != end), None)),
    ):
        if token is not None:
            add(int(token))
    first = tokenizer("a")["input_ids"][0]
    writer.add_add_bos_token(first == tokenizer.bos_token_id)
    writer.add_chat_template(task.template.text)


def _tensors(finished: Finished) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yields the merged base's tensors with llama.cpp's order of rows, without a tied head."""
    config: Any = finished.network.base.config
    is_turned = ARCHITECTURES[config.model_type].is_turned
    for name, tensor in plain_state(finished.network.base).items():
        if name.startswith("lm_head.") and config.tie_word_embeddings:
            continue
        array = tensor.detach().numpy().astype(np.float32)
        if is_turned and ".q_proj." in name:
            array = turned(array, int(config.num_attention_heads))
        elif is_turned and ".k_proj." in name:
            array = turned(array, int(config.num_key_value_heads))
        yield name, np.ascontiguousarray(array)


def _check_tokens(finished: Finished, folder: Path) -> None:
    """Compares the file's tokenizer with the base's on built-in texts."""
    own = finished.workspace.tokenizer
    with _silent():
        read = from_folder(AutoTokenizer, folder, gguf_file=FILE)
    mend_splitting(read, read_header(folder / FILE))
    for text in (*ENGLISH, *CHINESE, *_AWKWARD, *map(str, own.all_special_tokens)):
        found, expected = (
            list(one(text, add_special_tokens=False)["input_ids"]) for one in (read, own)
        )
        if found != expected:
            raise UsageError(
                "--format gguf-merged: the file's tokenizer cuts texts differently from the base's "
                f"({text!r}), so the file is not written; choose another format"
            )


def read(finished: Finished, folder: Path) -> Logits:
    """Returns the function from inputs to logits that transformers loads from the file."""
    from transformers import GgufConfig

    try:
        with _silent():
            model: Any = from_folder(
                AutoModelForCausalLM,
                folder,
                gguf_file=FILE,
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
            ).eval()
    except Exception as error:  # the reader may raise any error
        kind = finished.network.base.config.model_type
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"--format gguf-merged: transformers cannot read the file of this {kind} "
            f"({first}), so the file is not written; choose another format"
        ) from error

    def logits(inputs: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            found: Tensor = model(**inputs).logits
        return found

    return logits


@contextmanager
def _silent() -> Iterator[None]:
    """Silences the reader's progress bar, which ignores transformers' settings."""
    with quiet(), redirect_stderr(io.StringIO()):
        yield
