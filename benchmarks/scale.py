"""Memory and time by the number of records: checked, cleaned, encoded, trained on.

    python -m benchmarks.scale --records 100000 1000000 [--folder FOLDER] [--steps check …]

A file of so many records of 128 tokens each is made in FOLDER and removed in the end. Each step
runs in a process of its own, whose peak of resident memory and CPU time are printed. The base is a
random BERT of two layers with a vocabulary of 20,000: memory by record does not depend on its size.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

VOCABULARY, TOKENS = 20_000, 128
# Of a text: what a tokenizer frames with [CLS] and [SEP].
WORDS = TOKENS - 2
LABELS, SPECIAL = ("stays", "leaves", "returns"), ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
STEPS = ("check", "check without near", "clean", "encode", "train")
MOST_BYTES = 2 * 10**9


def words() -> list[str]:
    """Different words of four letters: with its blank a token takes five bytes of text."""
    letters = "abcdefghijklmnoprstuvwxyz"
    return ["".join(letters[i // 25**k % 25] for k in range(4)) for i in range(VOCABULARY - 4)]


def write_records(path: Path, count: int, seed: int) -> None:
    rng, known = np.random.default_rng(seed), np.array(words(), dtype=object)
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, count, 1000):
            size = min(1000, count - start)
            for place, row in enumerate(rng.integers(len(known), size=(size, WORDS)), start):
                label = LABELS[place % len(LABELS)]
                file.write(
                    f'{{"text": "{" ".join(known[row])}", "label": "{label}", '
                    f'"person": "p{place // 4}"}}\n'
                )


def write_base(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=TOKENS,
    )
    BertModel(config).save_pretrained(folder)


def encode(train: Path, base: Path) -> None:
    """Reads and encodes all records, as a site does for a study."""
    from cloister.data.config import DataConfig
    from cloister.data.load import load
    from cloister.models.config import LoraConfig, ModelConfig
    from cloister.privacy.units import Unit
    from cloister.tasks.config import TaskConfig
    from cloister.training.units import encode_units
    from cloister.training.workspace import open_workspace

    workspace = open_workspace(
        ModelConfig(base=str(base)),
        LoraConfig(train="both", top_layers=0),
        TaskConfig(max_length=TOKENS),
        LABELS,
        0,
    )
    records = load(str(train), "train", "text", DataConfig())
    found = encode_units(records, workspace.task, Unit.RECORD, 1, workspace.limits)
    assert len(found.units) == len(records)


def command(step: str, train: Path, test: Path, base: Path, out: Path, count: int) -> list[str]:
    python = [sys.executable, "-m"]
    if step.startswith("check"):
        more = ["--no-near"] if step.endswith("near") else []
        return [*python, "cloister", "data", "check", str(train), "--person", "person", *more]
    if step == "clean":
        return [*python, "cloister", "data", "clean", str(train), "--out", str(out / "clean.jsonl")]
    if step == "encode":
        return [*python, "benchmarks.scale", "--encode", str(train), str(base)]
    settings = {
        "model.base": base,
        "data.train": train,
        "data.test": test,
        "data.sites": 1,
        "data.partition": "iid",
        "data.public_records": count,
        "task.max_length": TOKENS,
        "training.mode": "local-steps",
        "training.expected_batch_size": 64,
        "training.local_steps": 2,
        "lora.train": "both",
        "lora.top_layers": 0,
        "federation.num_rounds": 2,
        "tracking.tensorboard": "false",
    }
    given = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return [*python, "cloister", "simulate", "--no-twin", "--out", str(out / "run"), *given]


def measured(words: list[str]) -> tuple[int, float]:
    """Peak bytes and CPU seconds of one command."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"failed ({process.returncode}): {' '.join(words)}")
    return used.ru_maxrss * 1024, used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--folder", type=Path, help="absent: the system's for temporary files")
    parser.add_argument("--encode", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.base:
        write_base(asked.base)
        return
    if asked.encode:
        encode(*asked.encode)
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    for count in asked.records:
        with tempfile.TemporaryDirectory(dir=asked.folder) as name:
            folder = Path(name)
            train, test, base = folder / "train.jsonl", folder / "test.jsonl", folder / "base"
            write_records(train, count, 0)
            write_records(test, 100, 1)
            # Not in this process: what it takes would count as its children's peak, from the fork.
            measured([sys.executable, "-m", "benchmarks.scale", "--base", str(base)])
            for step in asked.steps:
                begun = time.monotonic()
                peak, seconds = measured(command(step, train, test, base, folder, count))
                verdict = "holds" if peak <= MOST_BYTES else "MISSED"
                print(
                    f"{count:>9,} records, {step:<18} {peak / 1e9:5.2f} GB (at most 2: {verdict}) "
                    f"{seconds:8.1f} CPU s {time.monotonic() - begun:8.1f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
