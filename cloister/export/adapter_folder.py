"""Writes and loads a finished adapter's folder: a PEFT adapter, its head, Cloister's own facts.

adapter_config.json, adapter_model.safetensors   LoRA, for `PeftModel.from_pretrained`
head.safetensors                                 the head's `weight` [C, H] and `bias` [C];
                                                 of retrieval `map` [H, H], `passages` [K, H]
tokenizer.json, tokenizer_config.json            chat only: the base's tokenizer
chat_template.jinja                              chat only: the template that training rendered
items.jsonl, items.safetensors                   recommendation only: the public items, and their
                                                 `vectors` [C, H]
cloister.json                                    model, adapters, task, column names and seed; of a
                                                 compressed model what it was made of: its base is
                                                 the folder above
README.md                                        model and privacy card
"""

from __future__ import annotations

import copy
import dataclasses
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedTokenizerBase

from cloister.adapter.tensors import Adapter
from cloister.data.config import DataConfig
from cloister.errors import MOST_PROBLEMS, AdapterFormatError, BadFileError, ModelFileError
from cloister.evidence.fingerprint import MOST_TOLD
from cloister.export.items import load_items, placed_items, save_items
from cloister.export.own_parts import check_whole
from cloister.export.stack import save_stacked, stacked_config
from cloister.fields import as_table, read_section
from cloister.files import open_file
from cloister.json_text import read_json
from cloister.models.center import uncentred
from cloister.models.config import ALL_LINEAR, BaseType, LoraConfig, ModelConfig, VectorMode
from cloister.models.network import LowRankHead
from cloister.models.passage_head import PassageHead
from cloister.models.pooling import Pooling
from cloister.models.state import write_adapter
from cloister.tasks.chat import CausalChat
from cloister.tasks.config import TaskConfig
from cloister.tasks.plugins import read_task
from cloister.tasks.recommendation import Recommendation
from cloister.training.workspace import Workspace, open_workspace

# Version of the format of cloister.json.
VERSION = 1
# The name of a prompt's or prefix's vectors in peft's file, and their name in the network.
_PROMPTS = {"prompt_embeddings": "prompt_encoder.embedding.weight"}


@dataclass(frozen=True)
class Compressed:
    """The adapter and base that a compressed model was made from (`export.compress`).

    Attributes:
        adapter_sha256: Fingerprint of the finished adapter (`evidence.fingerprint`).
        base: The base that it was trained on, as its recipe named it.
        base_sha256: SHA-256 of that base's weights.
        run: The run's folder on the machine that compressed it; None: the adapter was not in one.
    """

    adapter_sha256: str
    base: str
    base_sha256: str
    run: str | None = None


@dataclass(frozen=True)
class ReleaseFacts:
    """The facts that a released adapter states of its study.

    Attributes:
        model: The base, with its weights' SHA-256.
        lora: The adapters.
        task: The task, with its labels.
        data: Column names.
        seed: Seed of the parts that were never trained.
        pooling: The pooling that `model.pooling` resolved to; None: nothing is pooled, or it is
            not known.
        compressed: The model that it was made from, if its base is a compressed one in the folder
            above; None: it is a study's own adapter.
    """

    model: ModelConfig
    lora: LoraConfig
    task: TaskConfig
    data: DataConfig
    seed: int
    pooling: Pooling | None = None
    compressed: Compressed | None = None


def export(folder: Path, workspace: Workspace, adapter: Adapter, about: ReleaseFacts) -> None:
    """Writes an adapter's folder, without its card.

    Args:
        folder: Made if absent.
        workspace: Holds the network; its trainable parameters are set to the adapter's.
        adapter: The final values.
        about: Facts that are written to cloister.json.
    """
    network = workspace.network
    write_adapter(network, adapter)
    peft_config = network.backbone.peft_config["default"]
    # Write the base's name from the recipe: a folder of this machine does not exist elsewhere.
    peft_config.base_model_name_or_path = about.model.base
    if about.lora.residual:
        about = dataclasses.replace(about, lora=stacked_config(network, about.lora))
        save_stacked(folder, network, adapter, about.lora)
    else:
        with warnings.catch_warnings():
            # peft warns of the bias beside B (BitFit) because it expects a matrix; it is correct.
            warnings.filterwarnings("ignore", message=".*LoRA tensor.s. have invalid shape: .*bias")
            network.backbone.save_pretrained(str(folder), save_embedding_layers=False)
    if network.head is not None:
        save_file(_head_tensors(network.head, network.center), folder / "head.safetensors")
    if isinstance(workspace.task, Recommendation):
        about = dataclasses.replace(about, task=save_items(folder, workspace, about.task))
    if isinstance(workspace.task, CausalChat):
        _save_tokenizer(folder, workspace.tokenizer, workspace.task.template.text)
    document = {
        "version": VERSION,
        "seed": about.seed,
        **{n: as_table(getattr(about, n)) for n in ("model", "lora", "data")},
        "task": {k: v for k, v in about.task.table().items() if v is not None},
        "pooling": _pooling_table(network.pooling),
    }
    if about.compressed is not None:
        document["compressed"] = dataclasses.asdict(about.compressed)
    (folder / "cloister.json").write_text(json.dumps(document, indent=2), encoding="utf-8")


def _save_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    """Writes a chat's tokenizer, whose template is the one that training rendered."""
    own = copy.deepcopy(tokenizer)
    own.chat_template = template
    own.save_pretrained(str(folder))


def _pooling_table(pooling: Pooling | None) -> dict[str, object] | None:
    return None if pooling is None else {"mode": pooling.mode, "normalize": pooling.normalize}


def _head_tensors(head: nn.Module, center: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Returns the head for the base's own vectors, with the centre merged into weight and bias."""
    if isinstance(head, PassageHead):
        parts = {"map": head.matrix(), "passages": head.passages}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in parts.items()}
    if isinstance(head, LowRankHead):
        weight, bias = head.merged()
    else:
        assert isinstance(head, nn.Linear)
        weight, bias = head.weight, head.bias
    weight, bias = uncentred(weight.detach(), bias.detach(), center)
    return {"weight": weight.detach().cpu().contiguous(), "bias": bias.detach().cpu().contiguous()}


def adapter_folder(place: Path) -> Path:
    """Returns the adapter's folder, given a finished run's folder or the adapter's own.

    Raises:
        BadFileError: `place` is the folder of a run that did not finish.
    """
    inside = place / "adapter"
    if inside.is_dir():
        return inside
    if (place / "recipe.toml").is_file():
        raise BadFileError(
            f"{place}: there is no adapter here yet, because the run did not finish; resume the "
            "run, or give the folder of a finished run"
        )
    return place


def read_released(folder: Path) -> ReleaseFacts:
    """Reads the facts that an adapter's folder states.

    Raises:
        BadFileError: The folder holds no adapter that Cloister wrote, or a damaged one.
        AdapterFormatError: cloister.json is of another version, or a field of it is not valid.
    """
    if not folder.is_dir():
        raise BadFileError(
            f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}, so there is no "
            "adapter here; give the folder of a finished run, or its adapter/"
        )
    try:
        with open_file(folder / "cloister.json") as file:
            document = read_json(file.read(MOST_TOLD + 1), most_bytes=MOST_TOLD)
    except (OSError, ValueError) as error:
        raise BadFileError(
            f"{folder}: no adapter here (cloister.json is missing or damaged); give the folder of "
            "a finished run, or its adapter/"
        ) from error
    version = document.get("version") if isinstance(document, dict) else None
    if type(version) is not int or version != VERSION:
        raise AdapterFormatError(
            f"{folder}/cloister.json: not of format version {VERSION}; read it with the version of "
            "cloister that wrote it"
        )
    kinds = {"model": ModelConfig, "lora": LoraConfig, "data": DataConfig}
    problems = [
        f"{name}: missing, or not a table"
        for name in (*kinds, "task")
        if not isinstance(document.get(name), dict)
    ]
    if type(document.get("seed")) is not int:
        problems.append("seed: missing, or not a whole number")
    sections: dict[str, Any] = {}
    if not problems:
        sections = {n: read_section(kind, document[n], n, problems) for n, kind in kinds.items()}
        sections["task"] = read_task(document["task"], problems, is_whole=False)
    if problems:
        listed = "; ".join(problems[:MOST_PROBLEMS])
        raise AdapterFormatError(f"{folder}/cloister.json: {listed}")
    return ReleaseFacts(
        **sections,
        seed=document["seed"],
        pooling=_pooling(folder, document.get("pooling")),
        compressed=_made_of(folder, document.get("compressed")),
    )


def _made_of(folder: Path, table: object) -> Compressed | None:
    """Returns what a compressed model was made of."""
    if table is None:
        return None
    fields = table if isinstance(table, dict) else {}
    values = {field.name: fields.get(field.name) for field in dataclasses.fields(Compressed)}
    texts = [value for name, value in values.items() if name != "run" or value is not None]
    if not all(isinstance(value, str) for value in texts):
        raise AdapterFormatError(
            f"{folder}/cloister.json: compressed: not valid; copy the whole folder again"
        )
    return Compressed(**cast("dict[str, Any]", values))


def _pooling(folder: Path, table: object) -> Pooling | None:
    """Returns the pooling that the adapter was trained with, since the rule that resolves
    `model.pooling` may have changed after it was trained."""
    if table is None:
        return None
    fields = table if isinstance(table, dict) else {}
    mode = fields.get("mode")
    if not isinstance(mode, str) or mode not in get_args(VectorMode):
        raise AdapterFormatError(
            f"{folder}/cloister.json: pooling: unknown mode; needed is one of "
            f"{', '.join(get_args(VectorMode))}"
        )
    mode = cast(VectorMode, mode)
    return Pooling(mode, bool(fields.get("normalize")), "as the adapter was trained")


def _trained_modules(folder: Path, lora: LoraConfig) -> LoraConfig:
    """Returns `lora` with the modules that the adapter was trained on.

    Where the recipe left `target_modules` to its default, they are read from
    `adapter_config.json`: the default for a base may have changed after the adapter was trained.

    Raises:
        BadFileError: The folder's `adapter_config.json` is missing or damaged.
    """
    if lora.target_modules not in ((), (ALL_LINEAR,)) or lora.is_prompt:
        return lora
    try:
        with open_file(folder / "adapter_config.json") as file:
            table = read_json(file.read(MOST_TOLD + 1), most_bytes=MOST_TOLD)
        modules = tuple(sorted(map(str, table["target_modules"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFileError(f"{folder}: adapter_config.json is missing or damaged") from error
    return dataclasses.replace(lora, target_modules=modules, top_layers=0)


def load_released(
    folder: Path, base: str | Path | None = None, dtype: BaseType | None = None
) -> tuple[ReleaseFacts, Workspace]:
    """Loads base and adapter, ready to be scored.

    Args:
        folder: The adapter's folder.
        base: The base's folder or hub id on this machine; absent: the name in cloister.json, of a
            compressed model the folder above. In each case its weights must be those that the
            adapter was trained on.
        dtype: Type in which the frozen weights compute; absent: as in training. The weights that
            are read are the same, and rounded.

    Raises:
        UsageError: Each site kept a part of it, and this is what they share.
        BadFileError: The folder's files are missing or do not fit together.
        ModelFileError: The base is missing or not the one that was trained on.
    """
    about = read_released(folder)
    check_whole(folder, about.lora)
    lora_config = _trained_modules(folder, about.lora)
    if lora_config.head == "label-words":  # head.safetensors replaces its initial values
        lora_config = dataclasses.replace(lora_config, head="linear")
    # Export merged the centre into the head.
    model = dataclasses.replace(about.model, center=None, center_values=None)
    if base is None and about.compressed is not None:
        base = _above(folder)
    if base is not None:
        model = dataclasses.replace(model, base=str(base))
    if dtype is not None:
        model = dataclasses.replace(model, dtype=dtype)
    about = dataclasses.replace(about, task=placed_items(folder, about.task))
    workspace = open_workspace(
        model,
        lora_config,
        about.task,
        about.task.labels,
        about.seed,
        items=load_items(folder, about.task),
    )
    network = workspace.network
    network.pooling = about.pooling or network.pooling
    try:
        lora = load_file(folder / "adapter_model.safetensors")
        values = {
            f"backbone.{_PROMPTS.get(name, name)}": tensor.float().numpy()
            for name, tensor in lora.items()
        }
        write_adapter(network, Adapter(values))
        if network.head is not None:
            head = load_file(folder / "head.safetensors")
            outputs = len(workspace.task.labels)
            if network.items is not None:  # the head ends in the vectors' space
                columns = head["weight"].shape[1]
                if network.items.shape != (outputs, columns):
                    raise ValueError(f"vectors {list(network.items.shape)} for {outputs} items")
                outputs = columns
            network.head = head_of(head, outputs).to(network.device)
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise BadFileError(
            f"{folder}: its files do not fit together ({error}); copy the whole folder again"
        ) from error
    network.eval()
    return about, workspace


def _above(folder: Path) -> Path:
    """Returns the compressed base that an adapter's folder is in."""
    above = folder.resolve().parent
    if not (above / "config.json").is_file():
        raise ModelFileError(
            f"{folder}: belongs to a compressed base, which is not in the folder above; give that "
            "folder as --base, or copy the compressed model as a whole"
        )
    return above


def head_of(tensors: dict[str, torch.Tensor], outputs: int) -> nn.Module:
    """Returns the head that `_head_tensors` made these of.

    Raises:
        KeyError: A tensor is missing.
        ValueError: It has other outputs than the task.
        RuntimeError: The tensors do not fit together.
    """
    is_compared = "passages" in tensors
    rows, columns = tensors["passages" if is_compared else "weight"].shape
    if rows != outputs:
        raise ValueError(f"the head has {rows} outputs, the task {outputs}")
    if not is_compared:
        linear = nn.Linear(columns, rows)
        linear.load_state_dict(tensors)
        return linear
    head = PassageHead("linear", columns, rows, 1, 0)
    assert head.map is not None
    head.map.load_state_dict({"weight": tensors["map"]})
    head.passages = tensors["passages"]
    return head
