"""Writes a compressed model's folder, which transformers loads; Cloister loads the adapter in it.

config.json, model.safetensors, tokenizer…   base and head in the first of these forms that can
                                             hold the head: `merged`, `sentence-transformers`; else
                                             the base alone (`AutoModel`)
adapter/                                     the head for Cloister, and an adapter of zeros whose
                                             base is the folder above
README.md, card.html, compress.json          the card, as a page, and for programs
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel

from cloister.errors import BadFileError, CloisterError, UsageError
from cloister.evidence.fingerprint import adapter_files, adapter_sha256
from cloister.export.adapter_folder import (
    Compressed,
    ReleaseFacts,
    export,
    head_of,
    load_released,
)
from cloister.export.compress.student import NO_ADAPTER
from cloister.export.forms import merged, sentence
from cloister.export.forms.finished import Finished, Logits, probe_batches, recipe_file
from cloister.export.forms.measuring import difference
from cloister.export.forms.writing import CLOSE
from cloister.export.items import load_items
from cloister.models.base import weights_sha256
from cloister.models.config import ModelConfig
from cloister.models.pretrained import from_folder, quiet
from cloister.models.state import read_adapter
from cloister.printable import one_line
from cloister.training.workspace import open_workspace

# Name of the form without a head, for a head that no class of transformers can hold.
BASE_ALONE = "base alone"
ADAPTER = "adapter"
# Longest quotation of another library's message, in characters: about two sentences.
MOST_SAID = 200


def root_form(finished: Finished) -> str:
    """Returns the name of the form in which transformers loads the model."""
    for name, form in (("merged", merged), ("sentence-transformers", sentence)):
        if form.problem(finished) is None:
            return name
    return BASE_ALONE


def write_folder(finished: Finished, source: Finished, folder: Path) -> Logits:
    """Writes the model and its adapter, reads both back and compares the outputs.

    Args:
        finished: The compressed model.
        source: The finished model that it was made of.
        folder: An empty folder.

    Returns:
        The function from inputs to logits that Cloister loads from the written folder.

    Raises:
        UsageError: The written files compute other logits, because transformers cannot hold this
            architecture with fewer layers or heads.
        BadFileError: It cannot be written.
    """
    kind = finished.network.base.config.model_type
    try:
        form = root_form(finished)
        if form == "merged":
            merged.write(finished, folder)
        elif form == "sentence-transformers":
            sentence.write(finished, folder)
        else:
            merged.save_base(finished, folder)
            merged.save_tokenizer(finished, folder)
        _write_adapter(finished, source, folder)
        with torch.no_grad():
            expected = [
                finished.logits(finished.network.inputs(batch)) for batch in probe_batches(finished)
            ]
        own = _of_cloister(folder)
        for name, logits in (("cloister", own), (form, _of_form(finished, form, folder))):
            gap = 0.0 if logits is None else difference(finished, expected, logits)
            if not gap <= CLOSE:
                raise UsageError(
                    f"the folder written for this {kind} gives other logits to {name} (a "
                    f"difference of {gap:.1e} of the largest; rounding explains at most "
                    f"{CLOSE:g}), so nothing is written; use other compression options, and report "
                    "this architecture"
                )
    except SafetensorError as error:  # a full disk among its reasons
        raise BadFileError(f"{folder}: weights cannot be written ({error})") from error
    except (CloisterError, OSError):
        raise
    except Exception as error:  # transformers' own, of a configuration that it cannot read again
        said = one_line(" ".join(str(error).split()) or type(error).__name__, MOST_SAID)
        raise UsageError(
            f"transformers cannot load the smaller {kind} ({said}), so nothing is written; use "
            "other compression options"
        ) from error
    return own


def _write_adapter(finished: Finished, source: Finished, folder: Path) -> None:
    about = source.about
    pooling = finished.network.pooling
    recipe = recipe_file(source)
    origin = about.compressed or Compressed(
        adapter_sha256(adapter_files(source.folder)),
        about.model.base,
        source.workspace.base_sha256,
        None if recipe is None else str(recipe.parent.resolve()),
    )
    base = finished.about.model.base
    model = ModelConfig(
        base=str(folder),
        sha256=weights_sha256(folder),
        pooling="auto" if pooling is None else pooling.mode,
        normalize=None if pooling is None else pooling.normalize,
    )
    items = load_items(source.folder, about.task)
    workspace = open_workspace(
        model, NO_ADAPTER, about.task, about.task.labels, about.seed, items=items
    )
    network = workspace.network.to("cpu")
    network.pooling = pooling
    if network.head is not None:
        network.head = _head(finished, source)
    facts = ReleaseFacts(
        replace(model, base=base), NO_ADAPTER, about.task, about.data, about.seed, None, origin
    )
    made = folder / ADAPTER
    export(made, workspace, read_adapter(network), facts)
    # PEFT by itself finds the base under this relative name: the folder above the adapter's.
    config = made / "adapter_config.json"
    table = json.loads(config.read_text(encoding="utf-8"))
    table["base_model_name_or_path"] = ".."
    config.write_text(json.dumps(table, indent=2), encoding="utf-8")


def _head(finished: Finished, source: Finished) -> nn.Module:
    """Returns the head as an adapter's folder stores it.

    A student has its own head. Pruning leaves the study's head unchanged; it is taken from
    `source`, because in `finished` a recommender's head is merged with its items' vectors.
    """
    if finished.network.head is not source.network.head:
        assert finished.network.head is not None
        return copy.deepcopy(finished.network.head)
    tensors = load_file(source.folder / "head.safetensors")
    rows = tensors["passages" if "passages" in tensors else "weight"].shape[0]
    return head_of(tensors, rows)


def _of_cloister(folder: Path) -> Logits:
    _, workspace = load_released(folder / ADAPTER)
    network = workspace.network.to("cpu").eval()

    def logits(inputs: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            found: Tensor = network(**inputs)
        return found

    return logits


def _of_form(finished: Finished, form: str, folder: Path) -> Logits | None:
    if form == "merged":
        return merged.read(finished, folder)
    if form == "sentence-transformers":
        return sentence.read(finished, folder)
    with quiet():
        model: Any = from_folder(AutoModel, folder).eval()
    network = finished.network

    def logits(inputs: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            features = network._features(model(**inputs), inputs["attention_mask"], None)
            assert network.head is not None
            found: Tensor = network.head(features)
        return found

    return logits
