"""Writes a folder for sentence-transformers, which gives a text's vector as the study pooled it.

`SentenceTransformer(folder).encode(texts)` gives the vectors, with length 1 if the study
normalized them. The study's head is the last module and writes its logits
beside the vector: `encode(texts, output_value=None)` gives both (`sentence_embedding`, `scores`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel

from cloister.export.forms.finished import Finished, Logits
from cloister.export.forms.merged import save_base, save_tokenizer, unmergeable
from cloister.models.passage_head import PassageHead
from cloister.models.pooling import Pooling
from cloister.models.pretrained import from_folder, quiet

_TYPE = "sentence_transformers.models."
_IDENTITY, _TANH = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Tanh"
# sentence-transformers' names of the poolings. `pooler`: the first token, then a dense layer.
_MODES = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken", "pooler": "cls_token"}
_ALL_MODES = ("cls_token", "mean_tokens", "lasttoken")
POOLER, HEAD = "2_Pooler", "3_Head"


def problem(finished: Finished) -> str | None:
    """Returns the reason why a study's result cannot be written in this form; None: it can."""
    if not finished.can_merge:
        return unmergeable(finished)
    pooling = finished.network.pooling
    if pooling is None:
        return f"a model for {finished.task.kind} gives no vector for a text"
    if finished.task.record_kind == "pairs":
        return "sentence-transformers reads one text at a time, and the study reads pairs"
    if isinstance(finished.network.head, PassageHead):
        return (
            "the study encodes queries with the adapter and passages without it, and such a folder "
            "encodes all texts in the same way"
        )
    if pooling.mode == "pooler" and _pooler_layer(finished) is None:
        return f"the pooler of a {finished.network.base.config.model_type} is not a dense layer"
    return None


def _pooler_layer(finished: Finished) -> nn.Linear | None:
    """Returns the dense layer of BERT's or ALBERT's pooler; both use tanh."""
    base: Any = finished.network.base
    if base.config.model_type not in ("bert", "albert"):
        return None
    layer = getattr(base.pooler, "dense", base.pooler)
    return layer if isinstance(layer, nn.Linear) else None


def write(finished: Finished, folder: Path) -> None:
    """Writes the base with its adapter, and the modules that pool, normalize and score."""
    finished.merge()
    network, pooling = finished.network, finished.network.pooling
    head = network.head
    assert pooling is not None
    assert isinstance(head, nn.Linear)
    with quiet():
        save_base(finished, folder)
    save_tokenizer(finished, folder)
    hidden = head.in_features
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    _write(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": hidden}
        | {f"pooling_mode_{mode}": mode == _MODES[pooling.mode] for mode in _ALL_MODES},
    )
    if pooling.mode == "pooler":
        layer = _pooler_layer(finished)
        assert layer is not None
        modules.append((POOLER, "Dense"))
        _dense(folder / POOLER, layer.weight, layer.bias, _TANH, "sentence_embedding")
    weight, bias = head.weight.detach(), head.bias.detach()
    if pooling.normalize:
        modules.append(("2_Normalize", "Normalize"))
        (folder / "2_Normalize").mkdir()
        weight = weight * math.sqrt(hidden)
    modules.append((HEAD, "Dense"))
    _dense(folder / HEAD, weight, bias, _IDENTITY, "scores")
    _write(
        folder / "modules.json",
        [
            {"idx": number, "name": str(number), "path": path, "type": _TYPE + kind}
            for number, (path, kind) in enumerate(modules)
        ],
    )
    length = {"max_seq_length": finished.task.max_length, "do_lower_case": False}
    _write(folder / "sentence_bert_config.json", length)
    _write(
        folder / "config_sentence_transformers.json",
        {"model_type": "SentenceTransformer", "prompts": {}, "similarity_fn_name": "cosine"},
    )


def _dense(folder: Path, weight: Tensor, bias: Tensor, activation: str, output: str) -> None:
    outputs, inputs = weight.shape
    settings = {
        "in_features": inputs,
        "out_features": outputs,
        "bias": True,
        "activation_function": activation,
        "module_input_name": "sentence_embedding",
        "module_output_name": output,
    }
    _write(folder / "config.json", settings)
    tensors = {"linear.weight": weight, "linear.bias": bias}
    kept = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(kept, folder / "model.safetensors")


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def read(finished: Finished, folder: Path) -> Logits:
    """Returns the function that the modules in the written folder compute."""
    pooling = finished.network.pooling
    assert pooling is not None
    with quiet():
        model: Any = from_folder(AutoModel, folder).eval()
    pooled = Pooling("cls" if pooling.mode == "pooler" else pooling.mode, normalize=False)
    layers = [
        load_file(folder / name / "model.safetensors")
        for name in (POOLER, HEAD)
        if (folder / name).is_dir()
    ]

    def logits(inputs: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            vector = pooled(model(**inputs), inputs["attention_mask"])
            for layer in layers[:-1]:
                vector = F.linear(vector, layer["linear.weight"], layer["linear.bias"]).tanh()
            if pooling.normalize:
                vector = F.normalize(vector, dim=1)
            return F.linear(vector, layers[-1]["linear.weight"], layers[-1]["linear.bias"])

    return logits
