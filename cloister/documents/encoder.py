"""Vectors of queries and passages, by a retrieval run or by a base as it is.

A passage's vector is the frozen base's, a query's that of the tuned side (`tasks.retrieval`). So an
index belongs to a base and to how texts are read, and serves every adapter over it.
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

# Of a base that no run was trained on: what sentence encoders are usually trained to read.
USUAL_LENGTH = 256
# The head of such a base compares with nothing of its own.
_NOTHING = (("first", "-"), ("second", "-"))

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Encoder:
    """A base with, where a run was trained, its adapter.

    Attributes:
        place: Where the run or base is.
        workspace: With the adapter in place.
    """

    place: Path
    workspace: Workspace

    @property
    def task(self) -> Retrieval:
        """The task, which cuts and pads."""
        task = self.workspace.task
        assert isinstance(task, Retrieval)
        return task

    @property
    def width(self) -> int:
        """H, the coordinates of a vector."""
        return int(self._head.passages.shape[1])

    @property
    def digest(self) -> str:
        """SHA-256 of what a passage's vector depends on: the base, and how texts are read."""
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
        """Vectors of passages, of length 1, float32 [K, H].

        Args:
            texts: At least one.
            on_passage: Called with the number of passages so far.
        """
        found = []
        for number, text in enumerate(texts, 1):
            found.append(passage_vectors(self.workspace.network, self.task, [text]).numpy())
            if on_passage is not None:
                on_passage(number)
        return np.concatenate(found)

    def queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of queries, of length 1, float32 [B, H]."""
        network, task = self.workspace.network, self.task
        with torch.no_grad():
            batch = task.collate([task.encode_passage(text) for text in texts])
            vectors = self._head.turned(network.pooled(batch))
        return vectors.cpu().numpy()

    def count(self, text: str) -> int:
        """How many tokens a text has, without what the tokenizer puts around it."""
        tokens = self.workspace.tokenizer(text, add_special_tokens=False, verbose=False)
        return len(tokens["input_ids"])

    @property
    def room(self) -> int:
        """Most tokens of a passage beside what the tokenizer puts around it."""
        tokenizer: Any = self.workspace.tokenizer
        return max(self.task.max_length - int(tokenizer.num_special_tokens_to_add()), 1)

    @property
    def _head(self) -> PassageHead:
        head = self.workspace.network.head
        assert isinstance(head, PassageHead)
        return head


def open_encoder(place: Path, base: str | None = None) -> Encoder:
    """Loads a retrieval run's encoder, or a base's.

    Args:
        place: A finished run of retrieval, its adapter, or a base's folder or hub id.
        base: The base of a run on this machine; None: as the adapter names it.

    Raises:
        UsageError: The run is of another task.
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
