"""Small GGUF files with random weights, as llama.cpp's converter writes them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quantize
from transformers import LlamaConfig, LlamaForCausalLM

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} {{ message['content'] }}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)
HEADS = 2


def byte_tokens() -> list[str]:
    """Every byte, a few digraphs, and the special tokens of a chat; 3 ends a text."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    spelt = bytes_to_unicode()
    marks = ["<|endoftext|>", "<|im_start|>", "[PAD]", "<|im_end|>"]
    return [*marks, *(spelt[byte] for byte in range(256)), "he", "re", "Ġt", "Ġthe", "Ġthere"]


def llama(hidden: int = 32, vocabulary: int = 0) -> LlamaForCausalLM:
    """The network that `write_llama` writes."""
    config = LlamaConfig(
        vocab_size=vocabulary or len(byte_tokens()),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=1,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=3,
        pad_token_id=2,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


# Names of a layer's tensors, there and here.
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _for_rotary(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows in the order in which llama.cpp rotates them: pairs side by side."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def llama_tensors(model: LlamaForCausalLM) -> dict[str, np.ndarray]:
    """A Llama's weights under llama.cpp's names."""
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    found = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
    }
    for layer in range(model.config.num_hidden_layers):
        for there, here in _LAYER.items():
            weight = state[f"model.layers.{layer}.{here}.weight"]
            if there in ("attn_q", "attn_k"):
                weight = _for_rotary(weight, HEADS if there == "attn_q" else 1)
            found[f"blk.{layer}.{there}.weight"] = np.ascontiguousarray(weight)
    return found


def write_llama(
    file: Path,
    *,
    quantized: bool = False,
    without: str = "",
    more: dict[str, np.ndarray] | None = None,
    pre: str | None = "smollm",
    **changed: Any,
) -> LlamaForCausalLM:
    """Writes a tiny Llama with a byte-level tokenizer.

    Args:
        file: Where.
        quantized: Matrices in Q8_0, else all in float32.
        without: A tensor that is left out.
        more: Further tensors.
        pre: How the tokenizer splits.
        changed: Values that are other than they should be, dots of their keys as `__`.

    Returns:
        The network, as it is before it is quantized.
    """
    model = llama()
    config = model.config
    writer = GGUFWriter(file, "llama")
    values: dict[str, Any] = {
        "llama.context_length": config.max_position_embeddings,
        "llama.block_count": config.num_hidden_layers,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.embedding_length": config.hidden_size,
        "llama.rope.dimension_count": config.hidden_size // HEADS,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": 1,
        "llama.vocab_size": config.vocab_size,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 3,
        "tokenizer.ggml.padding_token_id": 2,
    }
    values.update({key.replace("__", "."): value for key, value in changed.items()})
    writer.add_string("general.name", "tiny")
    for key, value in values.items():
        writer.add_uint32(key, value)
    writer.add_float32("llama.rope.freq_base", 10_000.0)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    writer.add_string("tokenizer.ggml.model", "gpt2")
    if pre is not None:
        writer.add_string("tokenizer.ggml.pre", pre)
    tokens = byte_tokens()
    writer.add_array("tokenizer.ggml.tokens", tokens)
    writer.add_array("tokenizer.ggml.token_type", [3] * 4 + [1] * (len(tokens) - 4))
    writer.add_array("tokenizer.ggml.merges", ["h e", "r e", "Ġ t", "Ġt he", "Ġthe re"])
    writer.add_string("tokenizer.chat_template", TEMPLATE)
    for name, weight in {**llama_tensors(model), **(more or {})}.items():
        if name == without:
            continue
        if quantized and weight.ndim == 2:
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(name, quantize(weight, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model
