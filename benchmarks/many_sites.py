"""Many sites on one machine: one process, worker processes, and Flower's stock simulation.

Each variant trains the same amount: LoRA on q and v of all layers, without privacy, one step of 20
texts a site and round. The stock client is written as Flower's examples are: it loads tokenizer,
base and adapters whenever it is asked, and Flower spreads the clients over Ray's workers.

    python -m benchmarks.many_sites --sites 10 --rounds 2

The parent reads CPU times of all processes of a variant from the system four times a second, so
that Ray's detached ones count too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

STEP_TEXTS = 20
TEXTS = 40  # of a site
WORDS = ("account", "card", "charged", "twice", "transfer", "still", "not", "arrived", "since")
VARIANTS = ("stock", "one process", "workers")
SAMPLED = 0.25


def texts(count: int, first: int = 0) -> list[str]:
    """Different texts of 20 words."""
    return [
        " ".join(WORDS[(number * 7 + place * place) % len(WORDS)] for place in range(20))
        + f" {first + number}"
        for number in range(count)
    ]


def cloister(sites: int, rounds: int, workers: int) -> None:
    """Runs a study with the local engine."""
    from cloister.recipe import parse_recipe
    from cloister.server.run_directory import RunDirectory
    from cloister.simulation.run import simulate

    with tempfile.TemporaryDirectory() as folder:
        for name, count, first in (("train", sites * TEXTS, 0), ("test", 20, 10**6)):
            rows = [
                {"text": text, "label": ("early", "late")[number % 2]}
                for number, text in enumerate(texts(count, first))
            ]
            (Path(folder) / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        recipe = parse_recipe(
            "",
            [
                f"data.train='{folder}/train.jsonl'",
                f"data.test='{folder}/test.jsonl'",
                f"data.sites={sites}",
                "data.partition=iid",
                "privacy.enabled=false",
                "training.mode=local-steps",
                "training.local_steps=1",
                "training.probe_rounds=0",
                f"training.expected_batch_size={STEP_TEXTS}",
                "lora.top_layers=0",
                f"federation.num_rounds={rounds}",
                f"federation.evaluate_every={rounds}",
                "tracking.tensorboard=false",
            ],
        )
        simulate(recipe, RunDirectory.create(Path(folder) / "run", recipe), workers=workers)


def stock(sites: int, rounds: int) -> None:
    """Runs Flower's simulation with a client that loads its model as Flower's examples do."""
    import flwr
    from flwr.client import NumPyClient
    from flwr.server import ServerAppComponents, ServerConfig
    from flwr.server.strategy import FedAvg
    from flwr.simulation import run_simulation

    from cloister.models.base import find_base
    from cloister.recipe import parse_recipe

    base = str(find_base(parse_recipe("", []).model.base))

    class Client(NumPyClient):  # type: ignore[misc]
        def __init__(self, number: int) -> None:
            import peft
            import torch
            from transformers import AutoModelForSequenceClassification, AutoTokenizer

            torch.manual_seed(0)
            self.tokenizer = AutoTokenizer.from_pretrained(base)
            model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
            lora = peft.LoraConfig(task_type="SEQ_CLS", r=8, target_modules=["query", "value"])
            self.model = peft.get_peft_model(model, lora)
            self.texts = texts(STEP_TEXTS, number * TEXTS)

        def get_parameters(self, config: dict) -> list:  # type: ignore[type-arg]
            return [p.detach().numpy() for p in self.model.parameters() if p.requires_grad]

        def fit(self, parameters: list, config: dict) -> tuple:  # type: ignore[type-arg]
            import torch

            trained = [p for p in self.model.parameters() if p.requires_grad]
            with torch.no_grad():
                for parameter, value in zip(trained, parameters, strict=True):
                    parameter.copy_(torch.from_numpy(value))
            batch = self.tokenizer(self.texts, padding=True, return_tensors="pt")
            labels = torch.arange(STEP_TEXTS) % 2
            optimizer = torch.optim.SGD(trained, lr=0.1)
            self.model.train()
            self.model(**batch, labels=labels).loss.backward()
            optimizer.step()
            return self.get_parameters({}), STEP_TEXTS, {}

    def client(context: flwr.app.Context) -> flwr.client.Client:
        return Client(int(context.node_config["partition-id"])).to_client()

    def server(context: flwr.app.Context) -> ServerAppComponents:
        every = FedAvg(fraction_evaluate=0.0, min_fit_clients=sites, min_available_clients=sites)
        return ServerAppComponents(strategy=every, config=ServerConfig(num_rounds=rounds))

    run_simulation(
        flwr.server.ServerApp(server_fn=server),
        flwr.client.ClientApp(client_fn=client),
        num_supernodes=sites,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )


def measured(variant: str, sites: int, rounds: int) -> dict[str, float]:
    """Wall and CPU seconds of a variant in processes of its own."""
    command = [sys.executable, "-m", "benchmarks.many_sites", "--alone", variant]
    started = time.perf_counter()
    process = psutil.Popen(
        [*command, "--sites", str(sites), "--rounds", str(rounds)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    spent: dict[int, float] = {}
    while process.poll() is None:
        try:
            for one in (process, *process.children(recursive=True)):
                times = one.cpu_times()
                spent[one.pid] = times.user + times.system
        except psutil.Error:
            pass  # it ended between two looks
        time.sleep(SAMPLED)
    if process.returncode:
        raise SystemExit(f"{variant}: ended with {process.returncode}")
    return {"wall": time.perf_counter() - started, "cpu": sum(spent.values())}


def main() -> None:
    """Measures each variant once, in turn, and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--alone", choices=VARIANTS)
    given = parser.parse_args()
    if given.alone == "stock":
        stock(given.sites, given.rounds)
    elif given.alone is not None:
        cores = len(os.sched_getaffinity(0))
        cloister(given.sites, given.rounds, cores if given.alone == "workers" else 1)
    else:
        found = {name: measured(name, given.sites, given.rounds) for name in VARIANTS}
        load = os.getloadavg()[0]
        print(json.dumps({"sites": given.sites, "rounds": given.rounds, "load": load, **found}))


if __name__ == "__main__":
    main()
