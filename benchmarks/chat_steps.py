"""Steps of a small language model: private beside stock PEFT, and batched beside one by one.

    python -m benchmarks.chat_steps

It needs SmolLM2-135M-Instruct (`python tools/install.py llm`). All tokens of its records are
learnt, so that both sides compute the same logits. CPU time of one thread, in turns.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator

import torch

from benchmarks.figure import Figure
from benchmarks.peft_steps import cpu_seconds, private_step
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.network import trained_parameters
from cloister.models.packaged import SMOLLM2
from cloister.recipe import parse_recipe
from cloister.simulation.planning import plans_by_size
from cloister.tasks.task import IGNORE, BatchShape, Example
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks
from cloister.training.passes import Pass, Row
from cloister.training.proof import prove
from cloister.training.shapes import edges, one_by_one
from cloister.training.synthetic_batches import SyntheticBatches
from cloister.training.workspace import Workspace, open_workspace

# Queries and values of all layers, as peft's own default for Llamas.
LORA = LoraConfig(r=8, alpha=16.0, target_modules=("q_proj", "v_proj"), train="both", top_layers=0)
CHAT = (4, 256)  # records and tokens of the private step
ALONE = 6  # records of the batch in bfloat16
ALONE_TOKENS = (16, 64)


def figures(turns: int) -> Iterator[Figure]:
    """Private over stock PEFT, and one by one over batched in bfloat16.

    Args:
        turns: How often both are measured, in turns; the median of the ratios counts.
    """
    torch.set_num_threads(1)
    yield Figure(
        "private over stock PEFT, SmolLM2 chat, 4 x 256",
        _ratio(*_chat(), turns),
        1.08,
        "at most",
    )
    for tokens in ALONE_TOKENS:
        yield Figure(
            f"one by one over batched, SmolLM2 in bfloat16, {ALONE} records of {tokens}",
            _ratio(*_batched(tokens), turns),
            1.15,
            "at least",
        )


def _ratio(below: Callable[[], object], above: Callable[[], object], turns: int) -> float:
    """The median of `above`'s CPU time over `below`'s."""
    ratios = []
    for turn in range(turns + 1):  # the first warms up
        first, second = cpu_seconds(below), cpu_seconds(above)
        if turn:
            ratios.append(second / first)
    return statistics.median(ratios)


def _chat() -> tuple[Callable[[], object], Callable[[], object]]:
    """A stock step, and a private one."""
    workspace = _opened("float32", CHAT[1])
    network, task = workspace.network, workspace.task
    parameters = [p for _, p in trained_parameters(network)]
    records = _records(workspace, *CHAT)
    shape = BatchShape(CHAT[0], CHAT[1], (CHAT[0],))
    group = Pass(shape, tuple(Row(i, example) for i, example in enumerate(records)))
    ids = torch.tensor([example.input_ids for example in records])
    optimizer = torch.optim.SGD(parameters, lr=1e-3)

    def stock() -> None:
        network.backbone(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return stock, private_step(network, task, group, optimizer)


def _batched(tokens: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """A clipped sum in the shapes that the proof found, and one record at a time."""
    workspace = _opened("bfloat16", tokens)
    network, task = workspace.network, workspace.task
    # The proof keeps the row counts that batches of this size cost least with.
    batch = ALONE * len(edges(tokens))
    recipe = parse_recipe(
        "",
        [
            "task.kind=causal-lm",
            f"task.max_length={tokens}",
            f"training.expected_batch_size={batch}",
        ],
    )
    plan, _ = next(plans_by_size(recipe))
    shapes = prove(workspace, plan, recipe.training).shapes
    print(f"row counts that are bit-equal at {tokens} tokens: {shapes.rows(tokens)}", flush=True)
    units = [(example,) for example in _records(workspace, ALONE, tokens)]

    def batched() -> None:
        with per_record_hooks(network):
            clipped_gradient_sum(network, task, units, 1.0, shapes)

    def alone() -> None:
        with per_record_hooks(network):
            clipped_gradient_sum(network, task, units, 1.0, one_by_one(tokens))

    return batched, alone


def _opened(dtype: str, tokens: int) -> Workspace:
    recipe = parse_recipe("", ["task.kind=causal-lm", f"task.max_length={tokens}"])
    model = ModelConfig(base=SMOLLM2, dtype="bfloat16" if dtype == "bfloat16" else "float32")
    return open_workspace(model, LORA, recipe.task, (), 0)


def _records(workspace: Workspace, count: int, tokens: int) -> list[Example]:
    """Random records whose every token but the first is learnt."""
    draws = SyntheticBatches(workspace.task, workspace.network.vocabulary)
    drawn = [draws.example(tokens).input_ids for _ in range(count)]
    return [Example(ids, (IGNORE, *ids[1:])) for ids in drawn]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    for figure in figures(parser.parse_args().turns):
        print(figure, flush=True)
