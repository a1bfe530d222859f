"""Finished adapters of tiny bases, for what is done with a study's result."""

from pathlib import Path

import numpy as np

from cloister.adapter.tensors import Adapter
from cloister.data.config import DataConfig
from cloister.export.adapter_folder import ReleaseFacts, export
from cloister.models.base import weights_sha256
from cloister.models.config import LoraConfig, ModelConfig
from cloister.tasks.config import TaskConfig
from cloister.training.workspace import open_workspace


def exported(folder: Path, base: Path, task: TaskConfig, seed: int = 0) -> Path:
    """An adapter's folder whose values are drawn, so that predictions differ."""
    lora, data = LoraConfig(train="both", top_layers=0), DataConfig()
    model = ModelConfig(base=str(base), sha256=weights_sha256(base))
    workspace = open_workspace(model, lora, task, task.labels, 0)
    rng = np.random.default_rng(seed)
    values = {n: 0.5 * rng.normal(size=a.shape) for n, a in workspace.start.items()}
    export(folder, workspace, Adapter(values), ReleaseFacts(model, lora, task, data, 0))
    return folder
