"""The plain script that loads an adapter with transformers and peft alone."""

from __future__ import annotations

from cloister.models.pooling import Pooling
from cloister.tasks.config import TaskKind

_CAUSAL = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = "{base}"
tokenizer = AutoTokenizer.from_pretrained(base)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "adapter").eval()
batch = tokenizer(["…"], return_tensors="pt")
logits = model(**batch).logits
"""

_CLASSIFIER = """\
import json

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

base = "{base}"
tokenizer = AutoTokenizer.from_pretrained(base{prefix})
model = PeftModel.from_pretrained(AutoModel.from_pretrained(base), "adapter").eval()
head = load_file("adapter/head.safetensors")
labels = json.load(open("adapter/cloister.json"))["task"]["labels"]
batch = tokenizer({texts}, return_tensors="pt", padding=True, truncation=True)
with torch.no_grad():
    output = model(**batch)
{pooling}
    logits = features @ head["weight"].T + head["bias"]
"""

_POOLINGS = {
    "mean": """\
    mask = batch["attention_mask"].unsqueeze(-1)
    features = (output.last_hidden_state * mask).sum(1) / mask.sum(1)""",
    "cls": "    features = output.last_hidden_state[:, 0]",
    "pooler": "    features = output.pooler_output",
    "last": """\
    last = batch["attention_mask"].sum(1) - 1
    features = output.last_hidden_state[range(len(last)), last]""",
}
_NORMALIZE = """
    features = torch.nn.functional.normalize(features, dim=1) * features.shape[1] ** 0.5"""

_TEXT = {"prefix": "", "texts": '["…"]'}
_WORDS = {"prefix": ", add_prefix_space=True", "texts": '[["…"]], is_split_into_words=True'}


def loading_script(base: str, kind: TaskKind, pooling: Pooling | None) -> str:
    """A script that gives the adapter's logits.

    Args:
        base: The base model, as the recipe names it.
        kind: The task.
        pooling: How sequences are pooled; None where they are not.
    """
    if kind == "causal-lm":
        return _CAUSAL.format(base=base)
    if pooling is None:
        features, options = "    features = output.last_hidden_state", _WORDS
    else:
        features, options = _POOLINGS[pooling.mode], _TEXT
        features += _NORMALIZE if pooling.normalize else ""
    return _CLASSIFIER.format(base=base, pooling=features, **options)
