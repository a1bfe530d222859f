"""What kept frozen layers save, and how much of the processor's rate of products a step reaches.

    python -m benchmarks.kept_layers [--texts FILE.jsonl] [--records 256] [--turns 5]

Both are private steps of MiniLM, on one thread. The first trains the adapters of the top third of
the layers, after every record was seen once. Of the second, with adapters in all layers, only the
frozen weights' operations on real tokens count: two a weight and token forward, and two backward to
activations. Padding, attention, norms, adapters and clipping take time and count for nothing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from benchmarks.figure import Figure
from benchmarks.peft_steps import ATTENTION
from benchmarks.turns import in_turns
from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.data.records import Record
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.frozen_products import FrozenLinear
from cloister.tasks.build import labels_of
from cloister.tasks.config import TaskConfig
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks
from cloister.training.shapes import candidates
from cloister.training.units import singles
from cloister.training.workspace import Workspace, open_workspace

RECORDS, TOKENS, BOUND, RANK = 256, 2048, 1.0, 8
# Layers that train, of MiniLM's six; and states of all records, which take some MB.
TOP_THIRD, KEPT_GIB = 2, 4.0
# Rows and columns of the large product, and how often it is taken.
LARGE, PRODUCTS = 2048, 5


def workspace_of(records: Sequence[Record], layers: int, kept: float) -> Workspace:
    """MiniLM with adapters on queries and values of its top layers; 0: of all."""
    lora = LoraConfig(r=RANK, target_modules=ATTENTION, train="both", top_layers=layers)
    labels = labels_of(records, "text")
    return open_workspace(ModelConfig(), lora, TaskConfig(), labels, 0, frozen_cache_gib=kept)


def step_of(workspace: Workspace, records: Sequence[Record]) -> Callable[[], None]:
    """A private step without noise, which takes no part in either figure."""
    units = singles(workspace.encode(records))
    shapes = candidates(workspace.task.max_length, TOKENS)

    def step() -> None:
        with per_record_hooks(workspace.network):
            clipped_gradient_sum(workspace.network, workspace.task, units, BOUND, shapes)

    return step


def operations(workspace: Workspace, records: Sequence[Record]) -> int:
    """Operations of a step that count: of frozen linear layers, on real tokens."""
    weights = sum(
        module.weight.numel()
        for name, module in workspace.network.backbone.named_modules()
        if isinstance(module, nn.Linear) and "lora_" not in name and ".layer." in name
    )
    tokens = sum(len(example.input_ids) for example in workspace.encode(records))
    return 4 * weights * tokens


def large_rate(layer: nn.Linear) -> float:
    """Operations a second of CPU time of a large product."""
    layer.requires_grad_(False)
    rows = torch.randn(LARGE, LARGE)
    rates = []
    with torch.no_grad():
        for _ in range(PRODUCTS):
            began = time.process_time()
            layer(rows)
            rates.append(2 * LARGE**3 / (time.process_time() - began))
    return statistics.median(rates)


def figures(texts: str, turns: int, count: int = RECORDS) -> Iterator[Figure]:
    """Yields the three ratios; `turns`: how often each variant runs."""
    torch.set_num_threads(1)
    columns = DataConfig(test=None if texts.startswith("synthetic") else texts)
    found = load(texts, "train", "text", columns)
    records = found[:: max(len(found) // count, 1)][:count]
    steps = {
        "without": step_of(workspace_of(records, TOP_THIRD, 0.0), records),
        "with": step_of(workspace_of(records, TOP_THIRD, KEPT_GIB), records),
    }
    taken = in_turns(steps, turns)  # the turn that warms up keeps the states
    name = "private step, top third trains, frozen layers kept: without ÷ with"
    yield Figure(name, taken["without"] / taken["with"], 2.4, "at least")
    whole = workspace_of(records, 0, 0.0)
    seconds = in_turns({"step": step_of(whole, records)}, turns)["step"].cpu
    rate = operations(whole, records) / seconds
    for library, layer in (("torch's", nn.Linear), ("oneDNN's", FrozenLinear)):
        share = rate / large_rate(layer(LARGE, LARGE, bias=False))
        name = f"FLOP rate of a private step on real tokens ÷ {library} large product"
        yield Figure(name, share, 0.8, "at least")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", default="synthetic:hospitals")
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--turns", type=int, default=5)
    asked = parser.parse_args()
    for figure in figures(asked.texts, asked.turns, asked.records):
        print(figure, flush=True)


if __name__ == "__main__":
    main()
