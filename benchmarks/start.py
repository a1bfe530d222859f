"""A process's first batch, over what loading libraries and base alone takes."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.figure import Figure

# What any program needs that fine-tunes this base: the libraries, and its weights.
LOADED = """
from cloister.models.base import find_base
from cloister.models.config import ModelConfig
import torch, peft
from transformers import AutoModel, AutoTokenizer
folder = find_base(ModelConfig().base)
AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
"""

# A study's modules, its base with adapters and head, and one private batch of 16 records.
FIRST_BATCH = """
import cloister.simulation.run
from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.models.config import LoraConfig, ModelConfig
from cloister.tasks.build import labels_of
from cloister.tasks.config import TaskConfig
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks
from cloister.training.shapes import candidates
from cloister.training.units import singles
from cloister.training.workspace import open_workspace
records = load("synthetic:hospitals", "test", "text", DataConfig())
opened = open_workspace(
    ModelConfig(), LoraConfig(), TaskConfig(), labels_of(records, "text"), 0, frozen_cache_gib=1.0
)
units = singles(opened.encode(records[:16]))
with per_record_hooks(opened.network):
    clipped_gradient_sum(opened.network, opened.task, units, 1.0, candidates(128, 2048))
"""


def figures(turns: int) -> Iterator[Figure]:
    """Yields the ratio; `turns`: how often each program runs."""
    ratio = statistics.median(_cpu(FIRST_BATCH) / _cpu(LOADED) for _ in range(turns))
    yield Figure("first batch ÷ loading libraries and base", ratio, 1.3, "at most")


def _cpu(program: str) -> float:
    """CPU seconds of a fresh interpreter that runs a program."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
