"""Writes tiny base models to disk: random weights, real architectures."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

WORDS = [
    "chest",
    "pain",
    "at",
    "rest",
    "fever",
    "cough",
    "knee",
    "swollen",
    "rash",
    "itchy",
    "no",
    "headache",
    "since",
    "monday",
    "the",
    "patient",
    "has",
    "and",
    "a",
    "severe",
    "mild",
    "acute",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def word_tokenizer(*, frame: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer of the words above; with [CLS] … [SEP] where `frame`."""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if frame:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        eos_token="[SEP]",
    )


VOCABULARY = len(SPECIAL) + len(WORDS)


def tiny_bert(folder: Path, seed: int = 0, positions: int = 64) -> Path:
    """A two-layer BERT encoder."""
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=positions,
    )
    return _save(folder, BertModel, config, seed, frame=True)


def tiny_gpt2(folder: Path, seed: int = 0) -> Path:
    """A two-layer GPT-2."""
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=64,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    return _save(folder, GPT2LMHeadModel, config, seed, frame=False)


def tiny_llama(folder: Path, seed: int = 0, positions: int = 64) -> Path:
    """A two-layer Llama."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        max_position_embeddings=positions,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    return _save(folder, LlamaForCausalLM, config, seed, frame=False)


def _save(
    folder: Path, kind: type[PreTrainedModel], config: object, seed: int, *, frame: bool
) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
    model.save_pretrained(folder)
    word_tokenizer(frame=frame).save_pretrained(folder)
    return folder
