"""The script of a card computes what cloister computes, for every architecture, without cloister.

All scripts of a task run in one process, each in its own released folder.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AddedToken, PreTrainedTokenizerFast

from cloister.adapter.tensors import Adapter
from cloister.data.config import DataConfig
from cloister.data.records import ChatRecord, Message, Record, TextRecord, TokenRecord
from cloister.export.adapter_folder import ReleaseFacts, export, load_released
from cloister.export.snippets import loading_of, loading_script
from cloister.models.config import LoraConfig, ModelConfig
from cloister.tasks.chat import CausalChat
from cloister.tasks.config import TaskConfig
from cloister.tasks.task import IGNORE
from cloister.training.generation import reply_to
from cloister.training.workspace import Workspace, open_workspace
from tests.support.architectures import ARCHITECTURES, DECODERS, tiny
from tests.support.examples import ALL
from tests.support.models import word_tokenizer
from tests.support.plain_scripts import Run
from tests.support.tokenizers import TOKENIZERS

# Longer than what is looked at of them, and of unequal lengths, so that cuts and padding show.
TEXTS = [
    "the patient has a severe rash and a mild headache since monday no fever and no cough",
    "fever",
    "chest pain at rest",
]
LENGTH = 9
# Runs scripts, each in its folder, and prints what they made.
DRIVER = """\
import json, os, sys, warnings
warnings.simplefilter("ignore")  # a script run by hand says what it says
made = {}
for folder in FOLDERS:
    os.chdir(folder)
    space = {}
    exec(compile(open("script.py", encoding="utf-8").read(), folder, "exec"), space)
    made[folder] = {
        "logits": space["logits"].tolist(), "predicted": space.get("predicted"),
        "tags": space.get("tags"), "reply": space.get("reply"),
    }
assert "cloister" not in sys.modules
print("MADE" + json.dumps(made))
"""


def without_padding(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """As decoders ship: no padding token, and what they pad they pad on the left."""
    tokenizer.pad_token = None
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    return tokenizer


def opened(base: Path, model: ModelConfig, task: TaskConfig, labels: tuple[str, ...]) -> Workspace:
    """A workspace whose adapter is not at its start."""
    workspace = open_workspace(model, LoraConfig(train="both", top_layers=1), task, labels, 0)
    rng = np.random.default_rng(0)
    about = ReleaseFacts(
        ModelConfig(base=str(base), pooling=model.pooling, normalize=model.normalize),
        LoraConfig(train="both", top_layers=1),
        TaskConfig(kind=task.kind, labels=labels, max_length=task.max_length),
        DataConfig(),
        0,
    )
    values = {n: 0.3 * rng.normal(size=a.shape) for n, a in workspace.start.items()}
    export(base.parent / "adapter", workspace, Adapter(values), about)
    return workspace


def write_script(folder: Path, model: ModelConfig, workspace: Workspace, texts: object) -> None:
    script = loading_script(loading_of(model, workspace))
    assert '["…"]' in script
    script = script.replace('["…"]', json.dumps(texts)).replace(
        '"content": "…"', '"content": "rash"'
    )
    (folder / "script.py").write_text(script, encoding="utf-8")


def run_scripts(plain: Run, folders: Sequence[Path]) -> Mapping[str, Any]:
    names = json.dumps([str(folder) for folder in folders])
    told = plain(DRIVER.replace("FOLDERS", names), folders[0])
    made: dict[str, Any] = json.loads(told.split("MADE")[1])
    return made


def own_logits(workspace: Workspace, records: Sequence[Record]) -> torch.Tensor:
    batch = workspace.task.collate(workspace.encode(records))
    with torch.no_grad():
        return workspace.network(batch.input_ids, batch.attention_mask)


def same(folder: Path, made: object, expected: torch.Tensor) -> None:
    apart = float((torch.tensor(made) - expected).abs().max())
    assert apart <= 1e-5, (folder.name, apart)


QUICK = ("bert", "deberta-v2", "t5", "gpt2", "llama")


def test_scripts_classify_as_cloister_does(tmp_path: Path, plain: Run) -> None:
    """Architectures of each kind, all of them every night; every way of pooling on one."""
    cases: dict[str, tuple[str, ModelConfig]] = {
        name: (name, ModelConfig())
        for name in ARCHITECTURES
        if name != "albert" and (ALL or name in QUICK)
    }
    for mode in ("cls", "pooler", "last", "mean"):
        cases[f"bert, {mode}"] = ("bert", ModelConfig(pooling=mode, normalize=mode == "mean"))
    workspaces = {}
    for case, (name, asked) in cases.items():
        folder = tmp_path / case
        tokenizer = word_tokenizer(frame=name not in DECODERS)
        if name in DECODERS:
            tokenizer = without_padding(tokenizer)
        base = tiny(folder / "base", name, tokenizer=tokenizer)
        model = ModelConfig(base=str(base), pooling=asked.pooling, normalize=asked.normalize)
        task = TaskConfig(max_length=LENGTH)
        workspaces[folder] = opened(base, model, task, ("a", "b", "c"))
        write_script(folder, model, workspaces[folder], TEXTS)
    made = run_scripts(plain, list(workspaces))
    for folder, workspace in workspaces.items():
        expected = own_logits(workspace, [TextRecord(text, "a") for text in TEXTS])
        found = made[str(folder)]
        same(folder, found["logits"], expected)
        best = [workspace.task.labels[index] for index in expected.argmax(1).tolist()]
        assert found["predicted"] == best
    # What was released scores alike in cloister again, also where the rules for a base change.
    again = load_released(tmp_path / "bert, pooler" / "adapter")[1]
    expected = own_logits(again, [TextRecord(text, "a") for text in TEXTS])
    same(tmp_path, made[str(tmp_path / "bert, pooler")]["logits"], expected)


WORDS = ("the", "patients", "of", "the", "film", "have", "a", "severe", "fever", "since", "monday")
TAGGERS = {
    "bert": "WordPiece",
    "modernbert": "byte-level",
    "roberta": "byte-level with a prefix",
    "llama": "Llama 3",
    "gemma": "Gemma",
    "xlm-roberta": "metaspace always",
    "t5": "metaspace first",
    "falcon": "byte-level, offsets with the space",
    "mistral": "Llama 2",
}


@pytest.mark.parametrize("length", [pytest.param(60, marks=pytest.mark.nightly), 8])
def test_scripts_tag_words_as_cloister_does(tmp_path: Path, plain: Run, length: int) -> None:
    workspaces = {}
    for name, kind in TAGGERS.items():
        folder = tmp_path / name
        base = tiny(folder / "base", name, tokenizer=TOKENIZERS[kind]())
        model = ModelConfig(base=str(base))
        task = TaskConfig(kind="token-classification", max_length=length)
        workspaces[folder] = opened(base, model, task, ("X", "Y"))
        write_script(folder, model, workspaces[folder], list(WORDS))
    made = run_scripts(plain, list(workspaces))
    for folder, workspace in workspaces.items():
        record = TokenRecord(WORDS, ("O",) * len(WORDS))
        expected = own_logits(workspace, [record])
        same(folder, made[str(folder)]["logits"], expected)
        example = workspace.task.encode(record)
        assert isinstance(example.target, tuple)
        tags = ["O"] * len(WORDS)
        places = [place for place, target in enumerate(example.target) if target != IGNORE]
        for word, place in zip(example.words, places, strict=True):
            tags[word] = workspace.task.labels[int(expected[0, place].argmax())]
        assert made[str(folder)]["tags"] == tags


TEMPLATE = (
    "{% for message in messages %}<|im_start|> {{ message['role'] }} {{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|> assistant{% endif %}"
)


def chat_tokenizer(closing: str = "<|im_end|>") -> PreTrainedTokenizerFast:
    made = without_padding(word_tokenizer(frame=False))
    marks = [AddedToken(mark, special=True) for mark in ("<|im_start|>", "<|im_end|>")]
    made.add_tokens(marks, special_tokens=True)
    made.chat_template = TEMPLATE.replace("<|im_end|>", f" {closing} ")
    return made


def test_scripts_of_chats_give_logits_and_replies_as_cloister_does(
    tmp_path: Path, plain: Run
) -> None:
    workspaces = {}
    # A turn ends with a special token; of one base with ordinary words.
    cases = {name: (name, chat_tokenizer()) for name in DECODERS}
    cases["ordinary words"] = ("llama", chat_tokenizer(closing="itchy itchy"))
    for case, (name, tokenizer) in cases.items():
        folder = tmp_path / case
        base = tiny(folder / "base", name, tokenizer=tokenizer)
        model = ModelConfig(base=str(base))
        task = TaskConfig(kind="causal-lm", max_length=24)
        workspaces[folder] = opened(base, model, task, ())
        write_script(folder, model, workspaces[folder], TEXTS)
    made = run_scripts(plain, list(workspaces))
    for folder, workspace in workspaces.items():
        task = workspace.task
        assert isinstance(task, CausalChat)
        pad = workspace.pad_id
        rows = [workspace.tokenizer(text)["input_ids"] or [pad] for text in TEXTS]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        with torch.no_grad():
            same(folder, made[str(folder)]["logits"], workspace.network(ids, mask))
        chat = ChatRecord((Message("user", "rash"), Message("assistant", "fever")))
        own = reply_to(workspace.network, task, workspace.tokenizer, task.prompt(chat))
        assert made[str(folder)]["reply"] == own


def test_scripts_end_the_base_and_ask_the_prompt_as_the_study_did(
    tmp_path: Path, plain: Run
) -> None:
    """A base that ends after its first layer, and a long text between words that are never cut."""
    workspaces = {}
    for name in ("llama", "bert", "gpt2", "t5"):
        folder = tmp_path / name
        base = tiny(folder / "base", name, tokenizer=word_tokenizer(frame=name not in DECODERS))
        model = ModelConfig(base=str(base), layers=1)
        task = TaskConfig(labels=("a", "b"), max_length=LENGTH, prompt="patient {text} has acute")
        lora = LoraConfig(train="both", top_layers=0)
        workspace = open_workspace(model, lora, task, task.labels, 0)
        rng = np.random.default_rng(0)
        values = {n: 0.3 * rng.normal(size=a.shape) for n, a in workspace.start.items()}
        about = ReleaseFacts(model, lora, task, DataConfig(), 0)
        export(folder / "adapter", workspace, Adapter(values), about)
        write_script(folder, model, workspace, TEXTS)
        workspaces[folder] = workspace
    made = run_scripts(plain, list(workspaces))
    records = [TextRecord(text, "a") for text in TEXTS]
    for folder, workspace in workspaces.items():
        expected = own_logits(workspace, records)
        same(folder, made[str(folder)]["logits"], expected)
        again = load_released(folder / "adapter")[1]
        assert torch.equal(own_logits(again, records), expected)
