"""Makes the script that loads an adapter with transformers and peft only.

The script cuts, pads, pools and ends replies as training did, with every number written out: a
tokenizer's own defaults may pad on the left, have no padding token, or cut at another length.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedModel

from cloister.export.script_parts import (
    APART,
    BATCH,
    CAUSAL,
    COMPARED,
    COSINE,
    FEATURES,
    LAYERS,
    LEADING,
    LINEAR,
    NORMALIZED,
    ONE_LABEL,
    OPENING,
    PADDED,
    PAIRS,
    PART,
    PART_CONFIG,
    PEOPLE,
    PREDICTED,
    PROMPTED,
    QUANTIZED,
    SEGMENTS,
    SEQUENCES,
    TOKENS,
    UNPACKED,
    VECTORS,
)
from cloister.models.config import Method, ModelConfig
from cloister.models.kinds import TEXT_NAMES, network_class, read_config, text_part
from cloister.models.layers import layer_list
from cloister.models.limits import limits_of
from cloister.models.pooling import Pooling
from cloister.models.unpacked import unpacked_sha256
from cloister.tasks.chat import CausalChat
from cloister.tasks.config import Comparison, TaskKind
from cloister.tasks.cut import MOST_ITEMS, most_characters
from cloister.tasks.pairs import TextPairs
from cloister.tasks.recommendation import BETWEEN, Recommendation
from cloister.tasks.sequence import SequenceClassification
from cloister.training.generation import reply_ends, reply_room
from cloister.training.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Loading:
    """The values that a script needs to compute the same logits as the study.

    Attributes:
        base: The base model, as the recipe names it.
        network: The transformers class that reads it.
        kind: The task.
        pooling: How sequences are pooled; None: they are not.
        max_length: Longest record in tokens.
        pad_id: Token id of padding.
        dtype: Type of the frozen weights.
        quantization: Quantization of the frozen weights.
        around: The prompt's text before and behind a record's text; None: there is no prompt.
        layers: How many of the base's layers are used; None: all of them.
        blocks: Attribute path of the list of layers, if `layers` is given; else empty.
        frame: For a chat: whether the tokenizer adds its special tokens around the template's text.
        prompt: For a chat: largest number of tokens of a prompt.
        new: For a chat: largest number of tokens of a reply.
        between: For pairs: text that is written before the second text.
        last: For recommendation: how many of a person's items are read.
        compare: For pairs whose texts are read apart: what the head reads of their vectors.
        segments: For pairs: whether the base reads which of the two texts each token belongs to.
        ends: For a chat: token ids that end a reply.
        stop: For a chat: text that ends a reply; empty if a token ends it.
        unpacked: SHA-256 of the GGUF file that the base was unpacked from; empty: it was not
            unpacked from one.
        tied: If the base is the text network of a larger model: whether its output head shares the
            embedding's weights; None: the base is the whole model.
        method: Kind of adapter.
        leading: Number of states of a prompt's vectors, which come before the text's own.
    """

    base: str
    network: str
    kind: TaskKind
    pooling: Pooling | None
    max_length: int
    pad_id: int
    dtype: str = "float32"
    quantization: str = "none"
    around: tuple[str, str] | None = None
    layers: int | None = None
    blocks: str = ""
    frame: bool = False
    prompt: int = 0
    new: int = 0
    between: str = ""
    compare: Comparison | None = None
    segments: bool = False
    last: int = 0
    ends: tuple[int, ...] = ()
    stop: str = ""
    unpacked: str = ""
    tied: bool | None = None
    method: Method = "lora"
    leading: int = 0


def loading_of(model: ModelConfig, workspace: Workspace) -> Loading:
    """Returns the values with which a workspace's adapter is loaded.

    Args:
        model: The recipe's `[model]` section.
        workspace: The base and network that the study trained.
    """
    network, task = workspace.network, workspace.task
    causal = task.kind == "causal-lm"
    kind = network_class(workspace.folder, read_config(workspace.folder), causal=causal)
    plain = Loading(
        base=model.base,
        network=kind.__name__,
        kind=task.kind,
        pooling=network.pooling,
        max_length=task.max_length,
        pad_id=workspace.pad_id,
        dtype=model.dtype,
        quantization=model.quantization,
        unpacked=unpacked_sha256(workspace.folder) or "",
        tied=_tied(workspace.folder),
        layers=model.layers,
        blocks=_blocks(network.base) if model.layers is not None else "",
        method=workspace.method,
        leading=network.leading,
    )
    if isinstance(task, SequenceClassification) and task.prompt is not None:
        return replace(plain, around=(task.prompt.before, task.prompt.behind))
    if isinstance(task, TextPairs) and task.compare is not None:
        return replace(plain, compare=task.compare)
    if isinstance(task, TextPairs):
        return replace(plain, between=task.before, segments=network.tells_segments)
    if isinstance(task, Recommendation):
        return replace(plain, last=task.last)
    if not isinstance(task, CausalChat):
        return plain
    new, room = reply_room(limits_of(network.base, network.virtual_tokens).positions)
    ends, stop = reply_ends(network, task)
    return replace(
        plain,
        frame=task.frames,
        prompt=task.max_length if room is None else min(task.max_length, room),
        new=new,
        ends=ends,
        stop=stop,
    )


def _tied(folder: Path) -> bool | None:
    part = text_part(folder)
    return bool(part["config"].tie_word_embeddings) if part else None


def _blocks(base: PreTrainedModel) -> str:
    found = layer_list(base, int(base.config.get_text_config().num_hidden_layers))
    assert found is not None  # the base was loaded with fewer layers, so the list exists
    return found[0]


def loading_script(loading: Loading) -> str:
    """Returns a script that computes the adapter's labels, scores, tags or reply.

    Args:
        loading: The values that are written into it.
    """
    quantized = loading.quantization != "none"
    classes = ["AutoTokenizer", loading.network, *(["BitsAndBytesConfig"] if quantized else [])]
    before = UNPACKED.format(sha256=loading.unpacked) if loading.unpacked else ""
    if loading.tied is not None:
        classes.append("AutoConfig")
        before += PART_CONFIG.format(tied=loading.tied)
    opening = OPENING.format(
        before=before,
        part="" if loading.tied is None else PART.format(names=TEXT_NAMES),
        json="" if loading.kind == "causal-lm" else "import json\n\n",
        head="" if loading.kind == "causal-lm" else "from safetensors.torch import load_file\n",
        classes=", ".join(sorted(classes)),
        base=json.dumps(loading.base, ensure_ascii=False),
        network=loading.network,
        dtype=loading.dtype,
        quantized=QUANTIZED[loading.quantization],
        layers=LAYERS.format(blocks=loading.blocks, layers=loading.layers)
        if loading.layers is not None
        else "",
    )
    # Of two texts that are read apart each has half of a record's tokens.
    length = loading.max_length if loading.compare is None else loading.max_length // 2
    numbers = {
        "characters": most_characters(length),
        "length": length,
        "pad": loading.pad_id,
    }
    if loading.unpacked:
        opening = f"from pathlib import Path\n\n{opening}".replace(
            "from peft", "from cloister.models.base import check_base, find_base\nfrom peft", 1
        )
    if loading.kind == "causal-lm":
        return opening + CAUSAL.format(
            batch=BATCH.format(**numbers, special=f", add_special_tokens={loading.frame}"),
            frame=loading.frame,
            prompt=loading.prompt,
            new=loading.new,
            pad=loading.pad_id,
            ends=list(loading.ends) or None,
            leading=f"[:, {loading.leading}:]" if loading.leading else "",
            cut=f".split({loading.stop!r})[0]" if loading.stop else "",
        )
    leading = LEADING.format(leading=loading.leading) if loading.leading else ""
    if loading.pooling is None:
        return opening + TOKENS.format(**numbers, leading=leading)
    features = FEATURES[loading.pooling.mode] + (NORMALIZED if loading.pooling.normalize else "")
    batch = BATCH.format(**numbers, special="")
    if loading.around is not None:
        # A JSON string is also a Python string, except for lone surrogates; no recipe has those.
        before, behind = (json.dumps(text, ensure_ascii=False) for text in loading.around)
        batch = PROMPTED.format(**numbers, before=before, behind=behind)
    if loading.compare is not None:
        batch = APART + batch.removeprefix('texts = ["…"]\n')
        features += COSINE if loading.compare == "cosine" else VECTORS
    elif loading.kind == "text-pairs":
        second = f"{json.dumps(loading.between)} + second" if loading.between else "second"
        batch = PAIRS.format(**numbers, second=second) + PADDED.format(**numbers)
        batch += SEGMENTS if loading.segments else ""
    if loading.kind == "recommendation":
        people = PEOPLE.format(most=MOST_ITEMS, last=loading.last, between=BETWEEN)
        batch = people + batch.removeprefix('texts = ["…"]\n')
    return opening + SEQUENCES.format(
        batch=batch,
        leading=leading,
        features=features,
        logits=COMPARED if loading.kind == "retrieval" else LINEAR,
        predicted=PREDICTED.get(loading.kind, ONE_LABEL),
    )
