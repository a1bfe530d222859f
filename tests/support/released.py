"""Finished adapters of tiny bases, for tests of export, prediction and reports."""

from pathlib import Path
from typing import Any

import numpy as np

from cloister.adapter.tensors import Adapter
from cloister.data.config import DataConfig
from cloister.export.adapter_folder import ReleaseFacts, export
from cloister.models.base import weights_sha256
from cloister.models.config import LoraConfig, ModelConfig
from cloister.tasks.config import TaskConfig
from cloister.training.workspace import open_workspace


def exported(
    folder: Path,
    base: Path,
    task: TaskConfig,
    seed: int = 0,
    *,
    model: dict[str, Any] | None = None,
    lora: dict[str, Any] | None = None,
) -> Path:
    """An adapter's folder whose values are drawn, so that predictions differ; `model` and `lora`
    change these sections."""
    about = ModelConfig(**{"base": str(base), "sha256": weights_sha256(base), **(model or {})})
    config = LoraConfig(**{"train": "both", "top_layers": 0, **(lora or {})})
    return _exported(folder, task, seed, about, config)


def _exported(
    folder: Path, task: TaskConfig, seed: int, model: ModelConfig, lora: LoraConfig
) -> Path:
    data = DataConfig()
    workspace = open_workspace(model, lora, task, task.labels, 0)
    rng = np.random.default_rng(seed)
    values = {n: 0.5 * rng.normal(size=a.shape) for n, a in workspace.start.items()}
    export(folder, workspace, Adapter(values), ReleaseFacts(model, lora, task, data, 0))
    return folder
