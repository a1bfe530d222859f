"""A federation in Flower's stock simulation, as Flower's own examples for language models write it.

    python -m benchmarks.flower_stock TEXTS SITES ROUNDS BATCH

The client loads base, adapters and tokenizer for every message, cuts its part out of the data, and
sends adapters and head in float32; the server averages them. That is the form of the examples
`quickstart-huggingface` and `flowertune-llm` in Flower's repository (written here, not copied). One
batch of SGD a round, without privacy; `peer_simulations` runs Cloister on the same.
"""

from __future__ import annotations

import os
import sys

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from peft import get_peft_model_state_dict, set_peft_model_state_dict

from benchmarks.peer_steps import LONGEST, RATE, peft_model
from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.data.records import TextRecord
from cloister.models.base import find_base
from cloister.models.config import ModelConfig

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round at one site."""
    from transformers import AutoTokenizer

    config = message.content["config"]
    texts, labels, classes = part_of(
        str(config["texts"]),
        int(str(context.node_config["partition-id"])),
        int(str(context.node_config["num-partitions"])),
    )
    model = peft_model(classes)
    arrays = message.content["arrays"]
    assert isinstance(arrays, ArrayRecord)
    set_peft_model_state_dict(model, arrays.to_torch_state_dict())
    tokenizer = AutoTokenizer.from_pretrained(find_base(ModelConfig().base))
    size = int(str(config["batch"]))
    begin = (int(str(config["server-round"])) - 1) * size % max(len(texts) - size, 1)
    batch = tokenizer(
        texts[begin : begin + size],
        padding="longest",
        truncation=True,
        max_length=LONGEST,
        return_tensors="pt",
    )
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=RATE)
    loss = torch.nn.functional.cross_entropy(
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits,
        labels[begin : begin + size],
    )
    loss.backward()
    optimizer.step()
    content = RecordDict(
        {
            "arrays": ArrayRecord(get_peft_model_state_dict(model)),
            "metrics": MetricRecord({"num-examples": len(texts)}),
        }
    )
    return Message(content, reply_to=message)


def part_of(texts: str, part: int, parts: int) -> tuple[list[str], torch.Tensor, tuple[str, ...]]:
    """A site's texts and labels, and all labels there are."""
    records = [
        record
        for record in load(texts, "train", "text", DataConfig(test=None))
        if isinstance(record, TextRecord)
    ]
    classes = tuple(sorted({record.label for record in records}))
    own = records[part::parts]
    return (
        [record.text for record in own],
        torch.tensor([classes.index(record.label) for record in own]),
        classes,
    )


def main() -> None:
    """Runs the simulation with one CPU a client, Flower's default."""
    texts, sites, rounds, batch = sys.argv[1], *map(int, sys.argv[2:5])
    server = ServerApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        _, _, classes = part_of(texts, 0, sites)
        start = ArrayRecord(get_peft_model_state_dict(peft_model(classes)))
        FedAvg(fraction_evaluate=0.0).start(
            grid,
            start,
            num_rounds=rounds,
            train_config=ConfigRecord({"texts": texts, "batch": batch}),
        )

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    run_simulation(
        server,
        app,
        sites,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"include_dashboard": False},
        },
    )


if __name__ == "__main__":
    main()
