"""Computes vectors of queries and passages with a retrieval run, or with an untrained base.

The frozen base encodes passages; the adapter changes queries only (`tasks.retrieval`). So an index
depends on the base and on how texts are read, and works with every adapter over that base.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cloister.canonical import canonical
from cloister.errors import UsageError
from cloister.export.adapter_folder import adapter_folder, load_released, read_released
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.limits import limits_of
from cloister.models.passage_head import PassageHead, passage_vectors
from cloister.tasks.config import TaskConfig
from cloister.tasks.retrieval import Retrieval
from cloister.training.workspace import Workspace, open_workspace

# `max_length` for a base without a run: the length that sentence encoders are usually trained on.
USUAL_LENGTH = 256
# The task of retrieval must have passages; a base without a run has none, so it gets these.
_NOTHING = (("first", "-"), ("second", "-"))

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Encoder:
    """A base that encodes texts, with a run's adapter if one was given.

    Attributes:
        place: The path or hub id of the run or base.
        workspace: The loaded network, with the adapter in place.
    """

    place: Path
    workspace: Workspace

    @property
    def task(self) -> Retrieval:
        """The task, which tokenizes, cuts and pads texts."""
        task = self.workspace.task
        assert isinstance(task, Retrieval)
        return task

    @property
    def width(self) -> int:
        """H, the number of coordinates of a vector."""
        return int(self._head.passages.shape[1])

    @property
    def digest(self) -> str:
        """SHA-256 of all that a passage's vector depends on: the base, and how texts are read."""
        network = self.workspace.network
        pooling = network.pooling
        assert pooling is not None
        about = {
            "base": self.workspace.base_sha256,
            "dtype": str(next(network.backbone.parameters()).dtype),
            "layers": int(network.base.config.get_text_config().num_hidden_layers),
            "length": self.task.max_length,
            "pooling": [pooling.mode, pooling.normalize],
        }
        return hashlib.sha256(canonical(about)).hexdigest()

    def passages(
        self, texts: Iterable[str], on_passage: Callable[[int], None] | None = None
    ) -> Vectors:
        """Returns the vectors of passages, each of length 1, float32 [K, H].

        Args:
            texts: The passages; at least one.
            on_passage: Called with the number of passages that are done.
        """
        found = []
        for number, text in enumerate(texts, 1):
            found.append(passage_vectors(self.workspace.network, self.task, [text]).numpy())
            if on_passage is not None:
                on_passage(number)
        return np.concatenate(found)

    def queries(self, texts: Sequence[str]) -> Vectors:
        """Returns the vectors of queries, each of length 1, float32 [B, H]."""
        network, task = self.workspace.network, self.task
        with torch.no_grad():
            batch = task.collate([task.encode_passage(text) for text in texts])
            vectors = self._head.turned(network.pooled(batch))
        return vectors.cpu().numpy()

    def count(self, text: str) -> int:
        """Returns the number of a text's tokens, without the tokenizer's special tokens."""
        tokens = self.workspace.tokenizer(text, add_special_tokens=False, verbose=False)
        return len(tokens["input_ids"])

    @property
    def room(self) -> int:
        """The largest number of tokens of a passage, without the tokenizer's special tokens."""
        tokenizer: Any = self.workspace.tokenizer
        return max(self.task.max_length - int(tokenizer.num_special_tokens_to_add()), 1)

    @property
    def _head(self) -> PassageHead:
        head = self.workspace.network.head
        assert isinstance(head, PassageHead)
        return head


def open_encoder(place: Path, base: str | None = None) -> Encoder:
    """Loads the encoder of a retrieval run, or a base without a run.

    Args:
        place: A finished run of retrieval, its adapter, or a base's folder or hub id.
        base: The base of a run on this machine; None: the one that the adapter names.

    Raises:
        UsageError: The run has another task.
        BadFileError: The adapter is damaged.
        ModelFileError: The base is missing, or not the one that was trained on.
    """
    folder = adapter_folder(place)
    if (folder / "cloister.json").is_file():
        kind = read_released(folder).task.kind
        if kind != "retrieval":
            raise UsageError(
                f"{place}: its task is {kind}; give a run of retrieval (docs/retrieval.md), or the "
                "folder of a base that encodes sentences"
            )
        return Encoder(place, load_released(folder, base)[1])
    model = ModelConfig(base=str(place))
    lora = LoraConfig(train="none", head="linear")
    task = TaskConfig(kind="retrieval", passages=_NOTHING, max_length=2)
    workspace = open_workspace(model, lora, task, task.labels, 0)
    positions = limits_of(workspace.network.base).positions
    length = USUAL_LENGTH if positions is None else min(USUAL_LENGTH, positions)
    bound = workspace.task
    assert isinstance(bound, Retrieval)
    return Encoder(place, replace(workspace, task=replace(bound, max_length=length)))
