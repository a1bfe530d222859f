"""Writes a chat's base with its adapter merged as one GGUF file for llama.cpp: `model.gguf`.

Weights stay float32; llama.cpp's `llama-quantize` makes the file smaller. The query and key
projections of the Llama family are permuted as `export.gguf_adapter` explains; the norms of Gemma 3
are stored as 1 + weight, which is what they multiply by. Afterwards transformers reads the file
back, and the export is refused if logits or tokens differ.
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
GEMMA = "gemma3_text"
# By transformers' `model_type`: families that transformers can read back from a GGUF, so that the
# file can be checked. SmolLM 3's layers without positions are stored in another way, which this
# file does not write, and neither are Gemma 1 and 2.
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", GEMMA)
# Gemma 3 in llama.cpp (src/models/gemma3.cpp and llama-model.cpp): of six layers, five have a
# sliding window; their rotary base is 10,000.
_GEMMA_PATTERN, _GEMMA_LOCAL_BASE = 6, 10_000.0
# Gemma's norms multiply by 1 + weight; llama.cpp's multiply by the weight.
_NORM_OFFSET = 1
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
    ropes = _ropes(config)
    if kinds := {kind for one in ropes.values() if (kind := _kind(one)) != "default"}:
        scaled = ", ".join(sorted(kinds))
        return f"its positions are scaled ({scaled}), which Cloister cannot write into a GGUF"
    if config.model_type == GEMMA:
        unlike = _gemma_problem(config, ropes)
        return unlike or tokenizer_problem(finished.workspace.tokenizer)
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


def _ropes(config: Any) -> Mapping[str, Mapping[str, Any]]:
    """Returns the rotary settings by kind of layer; of one kind alone they are `full_attention`."""
    found = dict(getattr(config, "rope_parameters", None) or {})
    is_by_kind = found and all(isinstance(one, Mapping) for one in found.values())
    return found if is_by_kind else {"full_attention": found}


def _kind(rope: Mapping[str, Any]) -> str:
    return str(rope.get("rope_type", "default"))


def _gemma_problem(config: Any, ropes: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Returns what llama.cpp computes in another way for this Gemma 3; None: nothing."""
    number = range(1, int(config.num_hidden_layers) + 1)
    kinds = ["sliding_attention" if n % _GEMMA_PATTERN else "full_attention" for n in number]
    local = ropes.get("sliding_attention", {}).get("rope_theta", _GEMMA_LOCAL_BASE)
    fixed = {
        "layer_types": (list(config.layer_types), kinds),
        "query_pre_attn_scalar": (config.query_pre_attn_scalar, config.head_dim),
        "rope_theta of sliding layers": (local, _GEMMA_LOCAL_BASE),
        "hidden_activation": (config.hidden_activation, "gelu_pytorch_tanh"),
        "attention_bias": (config.attention_bias, False),
        "attn_logit_softcapping": (config.attn_logit_softcapping, None),
        "final_logit_softcapping": (config.final_logit_softcapping, None),
        "use_bidirectional_attention": (
            bool(getattr(config, "use_bidirectional_attention", False)),
            False,
        ),
    }
    unlike = [name for name, (own, theirs) in fixed.items() if own != theirs]
    if unlike:
        return f"llama.cpp computes a Gemma 3 with another {', '.join(unlike)}"
    return None


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
    writer.add_rope_freq_base(float(_ropes(config)["full_attention"]["rope_theta"]))
    if config.model_type == GEMMA:
        writer.add_sliding_window(int(config.sliding_window))
    writer.add_layer_norm_rms_eps(float(config.rms_norm_eps))
    writer.add_vocab_size(int(config.vocab_size))


def _add_tokenizer(writer: Any, finished: Finished) -> None:
    task, tokenizer = finished.task, finished.workspace.tokenizer
    assert isinstance(task, CausalChat)
    converted = gguf_tokenizer(tokenizer, int(finished.network.base.config.vocab_size))
    writer.add_tokenizer_model(converted.model)
    writer.add_tokenizer_pre(converted.pre)
    writer.add_token_list(converted.tokens)
    writer.add_token_types(converted.kinds)
    if converted.scores:
        writer.add_token_scores(converted.scores)
        writer.add_add_space_prefix(False)
    else:
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
    """Yields the merged base's tensors as llama.cpp has them, without a tied head."""
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
        elif config.model_type == GEMMA and name.endswith("norm.weight"):
            array = array + _NORM_OFFSET
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
