"""Tiny bases of many architectures, with random weights: transformers' real classes."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedTokenizerFast

from tests.support.models import VOCABULARY, word_tokenizer

PLAIN: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
BERT = {**PLAIN, "intermediate_size": 32, "max_position_embeddings": 64}
LLAMA = {**BERT, "num_key_value_heads": 1, "head_dim": 8}
DEBERTA = {
    **BERT,
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": ["p2c", "c2p"],
}

# Configuration and its values, and the class that a folder of it is saved from.
ENCODERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "bert": ("BertConfig", BERT, "BertModel"),
    "roberta": ("RobertaConfig", {**BERT, "pad_token_id": 0}, "RobertaModel"),
    "distilbert": (
        "DistilBertConfig",
        {
            "vocab_size": VOCABULARY,
            "dim": 16,
            "n_layers": 2,
            "n_heads": 2,
            "hidden_dim": 32,
            "max_position_embeddings": 64,
            "pad_token_id": 0,
        },
        "DistilBertModel",
    ),
    "electra": ("ElectraConfig", {**BERT, "embedding_size": 16}, "ElectraModel"),
    "albert": ("AlbertConfig", {**BERT, "embedding_size": 16}, "AlbertModel"),
    "mpnet": ("MPNetConfig", {**BERT, "pad_token_id": 1}, "MPNetModel"),
    "xlm-roberta": ("XLMRobertaConfig", BERT, "XLMRobertaModel"),
    "deberta": ("DebertaConfig", DEBERTA, "DebertaModel"),
    "deberta-v2": ("DebertaV2Config", DEBERTA, "DebertaV2Model"),
    "deberta-v3": (
        "DebertaV2Config",
        {
            **DEBERTA,
            "share_att_key": True,
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "pos_att_type": ["p2c", "c2p"],
            "legacy": True,
        },
        "DebertaV2Model",
    ),
    "modernbert": (
        "ModernBertConfig",
        {**BERT, "cls_token_id": 2, "sep_token_id": 3, "global_attn_every_n_layers": 2},
        "ModernBertModel",
    ),
    "t5": (
        "T5Config",
        {
            "vocab_size": VOCABULARY,
            "d_model": 16,
            "d_kv": 8,
            "d_ff": 32,
            "num_layers": 2,
            "num_heads": 2,
            "pad_token_id": 0,
            "eos_token_id": 3,
            "decoder_start_token_id": 0,
        },
        "T5ForConditionalGeneration",
    ),
}
DECODERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "gpt2": (
        "GPT2Config",
        {
            "vocab_size": VOCABULARY,
            "n_embd": 16,
            "n_layer": 2,
            "n_head": 2,
            "n_positions": 64,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "pad_token_id": 0,
        },
        "GPT2LMHeadModel",
    ),
    "gpt-neox": ("GPTNeoXConfig", BERT, "GPTNeoXForCausalLM"),
    "opt": (
        "OPTConfig",
        {**PLAIN, "ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": 64},
        "OPTForCausalLM",
    ),
    "llama": ("LlamaConfig", LLAMA, "LlamaForCausalLM"),
    "mistral": ("MistralConfig", {**LLAMA, "sliding_window": 8}, "MistralForCausalLM"),
    "qwen2": ("Qwen2Config", LLAMA, "Qwen2ForCausalLM"),
    "qwen3": ("Qwen3Config", LLAMA, "Qwen3ForCausalLM"),
    "gemma": ("GemmaConfig", LLAMA, "GemmaForCausalLM"),
    "gemma3-text": ("Gemma3TextConfig", {**LLAMA, "sliding_window": 8}, "Gemma3ForCausalLM"),
    "bloom": (
        "BloomConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 16,
            "n_layer": 2,
            "n_head": 2,
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
        "BloomForCausalLM",
    ),
    "falcon": ("FalconConfig", {**PLAIN, "max_position_embeddings": 64}, "FalconForCausalLM"),
    "falcon with ALiBi": (
        "FalconConfig",
        {**PLAIN, "alibi": True, "max_position_embeddings": 64},
        "FalconForCausalLM",
    ),
    "mpt": (
        "MptConfig",
        {
            "vocab_size": VOCABULARY,
            "d_model": 16,
            "n_layers": 2,
            "n_heads": 2,
            "max_seq_len": 64,
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
        "MptForCausalLM",
    ),
    "mamba": (
        "MambaConfig",
        {**{k: v for k, v in PLAIN.items() if k != "num_attention_heads"}, "state_size": 4},
        "MambaForCausalLM",
    ),
    "gpt-neo": (
        "GPTNeoConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 16,
            "num_layers": 2,
            "num_heads": 2,
            "attention_types": [[["global"], 2]],
            "pad_token_id": 0,
            "max_position_embeddings": 64,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
        "GPTNeoForCausalLM",
    ),
    "phi3": ("Phi3Config", LLAMA, "Phi3ForCausalLM"),
}
ARCHITECTURES = {**ENCODERS, **DECODERS}
# Further ones, which the matrix of bases and tasks tries (tests/models/test_matrix.py).
MORE: dict[str, tuple[str, dict[str, Any], str]] = {
    "phi": ("PhiConfig", BERT, "PhiForCausalLM"),
    "gemma2": ("Gemma2Config", {**LLAMA, "sliding_window": 8}, "Gemma2ForCausalLM"),
    "stablelm": ("StableLmConfig", LLAMA, "StableLmForCausalLM"),
    "smollm3": ("SmolLM3Config", LLAMA, "SmolLM3ForCausalLM"),
    "olmo2": ("Olmo2Config", LLAMA, "Olmo2ForCausalLM"),
    "qwen2-moe": (
        "Qwen2MoeConfig",
        {
            **LLAMA,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
        "Qwen2MoeForCausalLM",
    ),
    "mixtral": (
        "MixtralConfig",
        {**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2},
        "MixtralForCausalLM",
    ),
    "mamba2": (
        "Mamba2Config",
        {
            **{k: v for k, v in PLAIN.items() if k != "num_attention_heads"},
            "state_size": 4,
            "num_heads": 4,
            "head_dim": 8,
            "n_groups": 1,
            "chunk_size": 4,
        },
        "Mamba2ForCausalLM",
    ),
    "xlnet": (
        "XLNetConfig",
        {
            "vocab_size": VOCABULARY,
            "d_model": 16,
            "n_layer": 2,
            "n_head": 2,
            "d_inner": 32,
            "pad_token_id": 0,
        },
        "XLNetLMHeadModel",
    ),
}
# Encoders with decoders, which are refused.
PAIRS: dict[str, tuple[str, dict[str, Any], str]] = {
    "bart": (
        "BartConfig",
        {
            "vocab_size": VOCABULARY,
            "d_model": 16,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "max_position_embeddings": 64,
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "decoder_start_token_id": 3,
        },
        "BartForConditionalGeneration",
    ),
}
EVERY = {**ARCHITECTURES, **MORE, **PAIRS}


def tiny(
    folder: Path, name: str, seed: int = 0, tokenizer: PreTrainedTokenizerFast | None = None
) -> Path:
    """A two-layer base of an architecture, by default with the tokenizer of tests' words."""
    config_name, values, class_name = EVERY[name]
    if tokenizer is None:
        tokenizer = word_tokenizer(frame=name in ENCODERS)
    config = getattr(transformers, config_name)(**{**values, "vocab_size": len(tokenizer)})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, class_name)(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
