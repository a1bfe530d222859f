"""Four clinics' desks teach one language model their protocol, at ε = 8 for each message.

    python demos/llm.py [FOLDER] [--base BASE] [--each N] [--rounds N] [--layers N]

The chats are generated (`cloister.data.synthetic_desks`). The study runs by `cloister simulate`,
with the same without privacy beside it; then the untrained base, the private adapter and the plain
one answer the same messages.

How the setting was found (November 2026, in an emulation on states of frozen layers, 800 chats,
noise as for the study; perplexity of answers before: 59): small batches and many steps cost what
few large ones cost, in time and in ε, and go further; momentum at the server averages the noise of
several steps. Rank 8 on values and both halves of the last layer's MLP: after 20 steps 4.9 by
DP-AdamBC, 5.7 by plain steps, whose rate is at its limit, and after 40 steps 3.8.

One whole run on SmolLM2 took 7.8 minutes on two cores that did a little else (12 minutes of
processor time): perplexity 59.4 untrained, 3.8 private at ε = 8, 3.4 without privacy (the same
setting, untuned); ROUGE-L 0.04, 0.35 and 0.29. With 30 rounds the private adapter is at 3.1, with
40 at 2.4.
So replies take the desks' form at ε = 8; which team a complaint belongs to is not learnt yet.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from cloister.data.synthetic_desks import Chat, clinic_chats
from cloister.printable import one_line

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
# Of the test set, from each clinic: enough that a mean ROUGE moves by a few hundredths with chance.
TESTED = 8
# Longest reply that is shown, in characters.
SHOWN = 300

RECIPE = """\
[study]
name = "clinic-desks"

[model]
base = {base}

# Some modules of the last layers alone: every noised parameter costs, and the states below them are
# computed once for each record.
[lora]
r = 8
alpha = 16.0
target_modules = ["v_proj", "up_proj", "down_proj"]
top_layers = {layers}
train = "b"

[task]
kind = "causal-lm"
max_length = 80

[data]
train = "train.jsonl"
test = "test.jsonl"
sites = 4
partition = "column"
public_records = {each}

[training]
expected_batch_size = {batch}
padded_lengths = [72, 80]   # chats of the generator, which is public, have 57 to 78 tokens
learning_rate = 1.5
plain_learning_rate = 1.5

[strategy]
name = "fedavgm"
momentum = 0.9

[federation]
num_rounds = {rounds}
evaluate_every = {rounds}

[privacy]
epsilon = 8.0
delta = 1e-4
max_grad_norm = 0.5

[machine]
physical_batch_tokens = 256
"""


def main() -> None:
    """Runs the demonstration in a new folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default="llm-demo", help="where everything goes")
    parser.add_argument("--base", default=BASE, help="a hub id or a folder")
    parser.add_argument("--each", type=int, default=300, help="chats of a clinic")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--layers", type=int, default=2, help="the last layers that are adapted")
    asked = parser.parse_args()
    folder = Path(asked.folder).resolve()
    if folder.exists():
        sys.exit(f"{folder} is there already: take it away, or name another")
    folder.mkdir(parents=True)
    train, test = list(clinic_chats(asked.each)), list(clinic_chats(TESTED, seed=1))
    write(folder / "train.jsonl", train)
    write(folder / "test.jsonl", test)
    (folder / "study.toml").write_text(recipe(asked.base, asked.each, asked.rounds, asked.layers))
    cloister(folder, "simulate", "study.toml", "--twin", "--out", "run")
    compare(folder / "run", test)
    cloister(folder, "export", "run", "--gguf", "clinic-desks.gguf")


def recipe(base: str, each: int, rounds: int, layers: int) -> str:
    """Returns the study's recipe."""
    named = str(Path(base).resolve()) if Path(base).is_dir() else base
    return RECIPE.format(
        base=json.dumps(named),
        each=each,
        rounds=rounds,
        batch=max(each // 25, 1),
        layers=layers,
    )


def say(text: str) -> None:
    """Prints a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def write(path: Path, chats: list[Chat]) -> None:
    """Writes chats as a data file."""
    path.write_text("".join(json.dumps(chat.row()) + "\n" for chat in chats), encoding="utf-8")


def cloister(folder: Path, *words: str) -> None:
    """Runs a command, as it would be typed in a folder."""
    say(f"\n$ cloister {' '.join(words)}")
    finished = subprocess.run([sys.executable, "-m", "cloister", *words], cwd=folder, check=False)
    if finished.returncode:
        sys.exit(finished.returncode)


def compare(run: Path, test: list[Chat]) -> None:
    """Scores the untrained base, and shows one dialogue with each of the three."""
    from cloister.export.adapter_folder import load_released
    from cloister.models.state import write_adapter
    from cloister.tasks.chat import CausalChat
    from cloister.training.evaluation import evaluate
    from cloister.training.generation import reply_score, reply_to

    records = [replace(chat.record(), site=None, person=None, rejected=None) for chat in test]
    asked, record = test[0], records[0]
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    scores = {"private, ε = 8": result["test"], "plain": result["plain_test"]}
    replies = {}
    for name, place in (("private, ε = 8", run), ("plain", run / "twin")):
        _, workspace = load_released(place / "adapter")
        network, task, tokenizer = workspace.network, workspace.task, workspace.tokenizer
        assert isinstance(task, CausalChat)
        replies[name] = reply_to(network, task, tokenizer, task.prompt(record))
    write_adapter(network, workspace.start)  # B at zero: the base as it was
    untrained = dict(evaluate(network, task, workspace.encode(records), 1024).metrics)
    untrained["rouge_l"] = reply_score(network, task, tokenizer, records)
    scores = {"untrained": untrained, **scores}
    replies = {"untrained": reply_to(network, task, tokenizer, task.prompt(record)), **replies}
    say(f"\nA patient of {asked.clinic} Clinic writes: {asked.question}")
    say(f"The desk answered: {asked.answer}\n")
    for name, reply in replies.items():
        say(f"{name + ':':16} {one_line(reply, SHOWN)}")
    say(f"\n{'':16} perplexity   ROUGE-L    ({len(test)} messages that nobody trained on)")
    for name, found in scores.items():
        say(f"{name:16} {found['perplexity']:10.2f}   {found['rouge_l']:7.3f}")


if __name__ == "__main__":
    started = time.monotonic()
    main()
    say(f"\n{time.monotonic() - started:.0f} s")
