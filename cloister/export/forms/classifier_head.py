"""Puts a study's head into transformers' own classifier, if that can compute the same logits.

Cloister's head is one linear layer on a text's vector x. Transformers' classes apply a dense layer
(D, d) and an activation f to the first token before their linear layer (W, b):

    logits = W f(D x + d) + b

D and d can be chosen so that f changes nothing, to the precision of float32:

    tanh    D = s·1, W' = W / s     with s = 2⁻¹⁴: tanh(y) = y - y³/3 …, and layer norms keep
                                    |x| below 32, so that y²/3 < 1.3 · 10⁻⁶
    relu    D = 1, d = c, b' = b - W c     with c above all |x|
    gelu    the same: gelu(y) = y from y = 6 on
    linear  D = 1

Each export is compared with the study's network before its folder appears (`forms.writing`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from cloister.export.forms.finished import Finished
from cloister.models.passage_head import PassageHead
from cloister.tasks.task import Task

SLOPE = 2.0**-14
# A layer norm gives at most γ·√H: 28 at H = 768 and γ = 1. gelu is the identity from 6 on.
LIFT = 40.0

Fill = Callable[[Any, str, Tensor, Tensor], None]

# Names of the poolings in messages, by `Pooling.mode`.
_VECTORS = {
    "mean": "mean over tokens",
    "cls": "first token",
    "last": "last token",
    "pooler": "pooler's output",
}


def _set(layer: Any, weight: Tensor, bias: Tensor | None = None) -> None:
    layer.weight = nn.Parameter(weight.clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())


def _through_tanh(dense: Any, head: Any, weight: Tensor, bias: Tensor) -> None:
    hidden = weight.shape[1]
    _set(dense, SLOPE * torch.eye(hidden), torch.zeros(hidden))
    _set(head, weight / SLOPE, bias)


def _lifted(dense: Any, head: Any, weight: Tensor, bias: Tensor) -> None:
    hidden = weight.shape[1]
    _set(dense, torch.eye(hidden), torch.full((hidden,), LIFT))
    _set(head, weight, (bias.double() - LIFT * weight.double().sum(dim=1)).float())


def _pooler(model: Any, mode: str, weight: Tensor, bias: Tensor) -> None:
    """BERT and ALBERT: the base's own pooler (dense, tanh) of the first token."""
    if mode == "pooler":
        _set(model.classifier, weight, bias)
    else:
        pooler = model.base_model.pooler
        _through_tanh(getattr(pooler, "dense", pooler), model.classifier, weight, bias)


def _tanh_head(model: Any, mode: str, weight: Tensor, bias: Tensor) -> None:
    """RoBERTa and MPNet: a head of dense, tanh and linear on the first token."""
    _through_tanh(model.classifier.dense, model.classifier.out_proj, weight, bias)


def _gelu_head(model: Any, mode: str, weight: Tensor, bias: Tensor) -> None:
    """ELECTRA: the same with gelu."""
    _lifted(model.classifier.dense, model.classifier.out_proj, weight, bias)


def _relu_head(model: Any, mode: str, weight: Tensor, bias: Tensor) -> None:
    """DistilBERT: a dense layer with relu on the first token."""
    _lifted(model.pre_classifier, model.classifier, weight, bias)


def _identity_head(model: Any, mode: str, weight: Tensor, bias: Tensor) -> None:
    """DeBERTa: a dense layer on the first token, whose activation its configuration names."""
    hidden = weight.shape[1]
    _set(model.pooler.dense, torch.eye(hidden), torch.zeros(hidden))
    _set(model.classifier, weight, bias)


def _last_token(model: Any, mode: str, weight: Tensor, bias: Tensor) -> None:
    """Decoders: one linear layer without a bias on the last token."""
    _set(model.score, weight)


# By transformers' `model_type`: the poolings that its classifier can hold, and how.
_FILLS: Mapping[str, tuple[tuple[str, ...], Fill]] = {
    "bert": (("pooler", "cls"), _pooler),
    "albert": (("pooler", "cls"), _pooler),
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert", "mpnet"), (("cls",), _tanh_head)),
    "electra": (("cls",), _gelu_head),
    "distilbert": (("cls",), _relu_head),
    **dict.fromkeys(("deberta", "deberta-v2"), (("cls",), _identity_head)),
}
# For decoders, which are recognized by their `score` layer.
_DECODER: tuple[tuple[str, ...], Fill] = (("last",), _last_token)


def head_problem(finished: Finished) -> str | None:
    """Returns why transformers' classifier cannot hold the study's head; None: it can."""
    network, task = finished.network, finished.task
    if isinstance(network.head, PassageHead):
        return "no class of transformers compares a query's vector with those of passages"
    kind, config = _kind(task), network.base.config
    if type(config) not in kind._model_mapping:
        return f"transformers has no {kind.__name__} of a {config.model_type}"
    model: Any = _skeleton(finished)
    own = type(model).__name__
    assert isinstance(network.head, nn.Linear)  # as `load_released` makes it
    if task.record_kind == "tokens":
        layers = _beside_base(model)
        if len(layers) == 1 and isinstance(layers[0][1], nn.Linear):
            return None if layers[0][1].bias is not None else f"{own} has no bias in its head"
        names = ", ".join(name for name, _ in layers)
        return f"{own} computes more between base and head than the study did ({names})"
    pooling = network.pooling
    assert pooling is not None
    if pooling.normalize:
        return "no class of transformers scales a text's vector to one length, as the study does"
    modes, fill = _fill(model)
    if not modes:
        return f"{own} computes more between base and head than the study did"
    if pooling.mode not in modes:
        return f"{own} reads the {_VECTORS[modes[-1]]}, and the study the {_VECTORS[pooling.mode]}"
    if fill is _last_token and bool(network.head.bias.any()):
        return (
            f"{own} has no bias in its head, and the study's head has (one that freezes it, by "
            'lora.freeze = ["head.bias"], fits)'
        )
    return None


def classifier(finished: Finished) -> PreTrainedModel:
    """Returns base and head as transformers' classifier. Save it; do not run it.

    Args:
        finished: A result that is merged and has no `head_problem`. The classifier shares the
            tensors of its base.
    """
    network = finished.network
    model: Any = _skeleton(finished)
    inner = model.base_model
    state = plain_state(network.base)
    wanted = inner.state_dict().keys()
    shared = {name: tensor for name, tensor in state.items() if name in wanted}
    inner.load_state_dict(shared, strict=False, assign=True)
    head = network.head
    assert isinstance(head, nn.Linear)
    weight, bias = head.weight.detach(), head.bias.detach()
    if finished.task.record_kind == "tokens":
        _set(_beside_base(model)[0][1], weight, bias)
    else:
        assert network.pooling is not None
        _fill(model)[1](model, network.pooling.mode, weight, bias)
    assert isinstance(model, PreTrainedModel)
    return model


def plain_state(base: nn.Module) -> dict[str, Tensor]:
    """Returns a base's own tensors by their original names, without those that peft added."""
    return {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in base.state_dict().items()
        if ".lora_" not in name and ".ia3_" not in name
    }


def state_outputs(config: Any, task: Task) -> None:
    """Writes into a configuration the names of a task's outputs and the type of problem."""
    config.num_labels = len(task.labels)
    config.id2label = dict(enumerate(task.labels))
    config.label2id = {label: number for number, label in enumerate(task.labels)}
    # Decides what a pipeline applies to logits: softmax, or sigmoid for several labels or a score.
    several = task.kind in ("multi-label-classification", "scoring")
    config.problem_type = "multi_label_classification" if several else "single_label_classification"


def _kind(task: Task) -> Any:
    if task.record_kind == "tokens":
        return AutoModelForTokenClassification
    return AutoModelForSequenceClassification


def _skeleton(finished: Finished) -> Any:
    """Creates the model on the meta device, where tensors have no values and take no memory."""
    config: Any = copy.deepcopy(finished.network.base.config)
    state_outputs(config, finished.task)
    config.pad_token_id = finished.workspace.pad_id
    config.dtype = torch.float32
    if config.model_type in ("deberta", "deberta-v2"):
        config.pooler_hidden_act = "linear"
    with torch.device("meta"):
        return _kind(finished.task).from_config(config)


def _fill(model: Any) -> tuple[tuple[str, ...], Fill]:
    usual = _DECODER if hasattr(model, "score") else ((), _last_token)
    return _FILLS.get(model.config.model_type, usual)


def _beside_base(model: Any) -> list[tuple[str, nn.Module]]:
    """Returns the layers of a classifier that are not part of its base."""
    prefix = f"{model.base_model_prefix}."
    return [
        (name, module)
        for name, module in model.named_modules()
        if not f"{name}.".startswith(prefix) and list(module.parameters(recurse=False))
    ]
