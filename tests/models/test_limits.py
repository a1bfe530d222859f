"""A base fails with one token or one id more than its stated limits."""

from typing import Any

import pytest
import torch
import transformers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForTextEncoding,
    PretrainedConfig,
    PreTrainedModel,
)

from cloister.models.attach import attach
from cloister.models.config import LoraConfig
from cloister.models.limits import limits_of
from cloister.tasks.fit import Limits

ROWS = 50
PLAIN = {"vocab_size": ROWS, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
BERT = {**PLAIN, "intermediate_size": 32, "max_position_embeddings": 64}
GPT = {"vocab_size": ROWS, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}

# Configuration, its values, the positions that it can take, and whether one more is an error (else
# it is beyond what the base was trained for).
BASES: dict[str, tuple[str, dict[str, Any], int | None, bool]] = {
    "bert": ("BertConfig", BERT, 64, True),
    "electra": ("ElectraConfig", {**BERT, "embedding_size": 16}, 64, True),
    "albert": ("AlbertConfig", {**BERT, "embedding_size": 16}, 64, True),
    "distilbert": (
        "DistilBertConfig",
        {
            "vocab_size": ROWS,
            "dim": 16,
            "n_layers": 1,
            "n_heads": 2,
            "hidden_dim": 32,
            "max_position_embeddings": 64,
        },
        64,
        True,
    ),
    # Positions from the padding id's next: 64 − 2.
    "roberta": ("RobertaConfig", BERT, 62, True),
    "camembert": ("CamembertConfig", BERT, 62, True),
    "xlm-roberta": ("XLMRobertaConfig", BERT, 62, True),
    "mpnet": ("MPNetConfig", BERT, 62, True),
    "longformer": ("LongformerConfig", {**BERT, "attention_window": 8}, 62, True),
    "roberta that pads with 0": ("RobertaConfig", {**BERT, "pad_token_id": 0}, 63, True),
    # Two rows more than positions.
    "opt": (
        "OPTConfig",
        {**PLAIN, "ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": 64},
        64,
        True,
    ),
    "biogpt": ("BioGptConfig", BERT, 64, True),
    "gpt2": ("GPT2Config", GPT, 64, True),
    "gpt-neo": (
        "GPTNeoConfig",
        {
            "vocab_size": ROWS,
            "hidden_size": 16,
            "num_layers": 1,
            "num_heads": 2,
            "attention_types": [[["global"], 1]],
            "max_position_embeddings": 64,
        },
        64,
        True,
    ),
    "ctrl": ("CTRLConfig", {**GPT, "dff": 32}, 64, True),
    "mpt": (
        "MptConfig",
        {"vocab_size": ROWS, "d_model": 16, "n_layers": 1, "n_heads": 2, "max_seq_len": 64},
        64,
        True,
    ),
    "llama": ("LlamaConfig", BERT, 64, False),
    "gpt-neox": ("GPTNeoXConfig", BERT, 64, False),
    "modernbert": ("ModernBertConfig", {**BERT, "pad_token_id": 0}, 64, False),
    "deberta-v3": (
        "DebertaV2Config",
        {
            **BERT,
            "relative_attention": True,
            "position_biased_input": False,
            "pos_att_type": ["p2c", "c2p"],
        },
        64,
        False,
    ),
    "xlnet": (
        "XLNetConfig",
        {"vocab_size": ROWS, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32},
        None,
        False,
    ),
    "t5": (
        "T5Config",
        {"vocab_size": ROWS, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2},
        None,
        False,
    ),
    "falcon": ("FalconConfig", {**PLAIN, "max_position_embeddings": 64}, 64, False),
    "falcon with ALiBi": (
        "FalconConfig",
        {**PLAIN, "alibi": True, "max_position_embeddings": 64},
        64,
        False,
    ),
    "gpt-j": ("GPTJConfig", {**GPT, "rotary_dim": 4}, 64, True),
    "deberta-v1": (
        "DebertaConfig",
        {
            **BERT,
            "relative_attention": True,
            "position_biased_input": False,
            "pos_att_type": ["p2c", "c2p"],
        },
        64,
        False,
    ),
    "deberta with positions": ("DebertaConfig", {**BERT, "relative_attention": False}, 64, True),
    "bloom": (
        "BloomConfig",
        {"vocab_size": ROWS, "hidden_size": 16, "n_layer": 1, "n_head": 2},
        None,
        False,
    ),
    "mamba": (
        "MambaConfig",
        {"vocab_size": ROWS, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4},
        None,
        False,
    ),
    "mamba2": (
        "Mamba2Config",
        {
            "vocab_size": ROWS,
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "state_size": 4,
            "num_heads": 4,
            "head_dim": 8,
            "n_groups": 1,
            "chunk_size": 4,
        },
        None,
        False,
    ),
}


def runs(model: PreTrainedModel, ids: torch.Tensor) -> bool:
    try:
        with torch.inference_mode():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    except (IndexError, RuntimeError):
        return False
    return True


def made(name: str, kind: Any = AutoModel) -> PreTrainedModel:
    config: PretrainedConfig = getattr(transformers, BASES[name][0])(**BASES[name][1])
    if config.is_encoder_decoder:
        kind = AutoModelForTextEncoding
    model: PreTrainedModel = kind.from_config(config).eval()
    return model


# transformers asks torch for a function by its old name when it makes Mamba.
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", BASES)
def test_a_base_takes_as_many_positions_and_ids_as_are_read_off_it(name: str) -> None:
    _, _, positions, ends_there = BASES[name]
    model = made(name)
    assert limits_of(model) == Limits(positions, ROWS)
    longest = positions or 200
    assert runs(model, torch.full((1, longest), ROWS - 1))
    assert not runs(model, torch.full((1, 8), ROWS))
    if positions:
        assert runs(model, torch.full((1, longest + 1), ROWS - 1)) != ends_there


@pytest.mark.parametrize("name", ["gpt2", "llama", "bloom", "opt"])
def test_a_language_model_s_ids_are_also_its_targets(name: str) -> None:
    model = made(name, AutoModelForCausalLM)
    limits = limits_of(model)
    assert limits == Limits(BASES[name][2], ROWS)
    fewer = torch.nn.Linear(16, ROWS - 5, bias=False)
    model.set_output_embeddings(fewer)
    assert limits_of(model) == Limits(BASES[name][2], ROWS - 5)


def test_adapters_change_no_limit() -> None:
    model = made("roberta")
    targets = ("query", "word_embeddings", "position_embeddings")
    adapted = attach(model, LoraConfig(train="both", top_layers=0, target_modules=targets), 0)
    assert limits_of(adapted.get_base_model()) == Limits(62, ROWS)


def test_a_base_whose_ids_are_hashed_has_no_vocabulary() -> None:
    canine = transformers.CanineModel(
        transformers.CanineConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
        )
    )
    assert limits_of(canine) == Limits(64, None)
