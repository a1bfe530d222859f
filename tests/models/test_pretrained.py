"""No code in a base's folder ever runs, and no prompt asks for it."""

import ast
import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloister.errors import CloisterError, ModelFileError
from cloister.models.base import load_tokenizer
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.kinds import read_config
from cloister.models.pretrained import own_code
from cloister.tasks.config import TaskConfig, TaskKind
from cloister.training.workspace import open_workspace
from tests.support.models import tiny_bert, tiny_llama

ROOT = Path(__file__).parents[2]

# A module whose import leaves a trace, with every class that a mapping may name.
CODE = """\
import pathlib
pathlib.Path({trace!r}).write_text("it ran")
from transformers import BertConfig, BertModel, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(BertConfig): pass
class Model(BertModel): pass
class Causal(LlamaForCausalLM): pass
class Tokens(PreTrainedTokenizerFast): pass
"""
MODEL = {"AutoConfig": "own.Config", "AutoModel": "own.Model", "AutoModelForCausalLM": "own.Causal"}
TOKENS = {"AutoTokenizer": [None, "own.Tokens"]}


def opened(base: Path, kind: TaskKind) -> str:
    """Opens a base as every command does, and says how that went."""
    task = TaskConfig(kind=kind, max_length=16)
    try:
        open_workspace(ModelConfig(base=str(base)), LoraConfig(), task, ("a", "b"), 0)
    except CloisterError as error:
        return f"refused: {error}"
    return "opened"


def change(path: Path, **values: Any) -> None:
    document = json.loads(path.read_text()) if path.exists() else {}
    document.update(values)
    path.write_text(json.dumps({k: v for k, v in document.items() if v is not None}))


def known(folder: Path) -> None:
    """An architecture and tokenizer that transformers has, with code of its own beside them."""
    change(folder / "config.json", auto_map=MODEL)
    change(folder / "tokenizer_config.json", auto_map=TOKENS)


def unknown_model(folder: Path) -> None:
    change(folder / "config.json", auto_map=MODEL, model_type="made-up")


def unknown_tokenizer(folder: Path) -> None:
    change(folder / "tokenizer_config.json", auto_map=TOKENS, tokenizer_class="Tokens")


def no_type(folder: Path) -> None:
    change(folder / "config.json", auto_map=MODEL, model_type=None, architectures=None)


def elsewhere(folder: Path) -> None:
    """The code lies in another repository of the hub."""
    there = {kind: f"somebody/other--{name}" for kind, name in MODEL.items()}
    change(folder / "config.json", auto_map=there, model_type="made-up")


def generation(folder: Path) -> None:
    (folder / "custom_generate").mkdir()
    shutil.copy(folder / "own.py", folder / "custom_generate" / "generate.py")


CASES = {
    "known": (known, "opened"),
    "an unknown architecture": (unknown_model, "refused: .*never run.*transformers has"),
    # tokenizer.json may say all of it
    "an unknown tokenizer": (unknown_tokenizer, "opened|refused: .*never run"),
    "no type at all": (no_type, "refused: .*never run"),
    "code elsewhere": (elsewhere, "refused: .*somebody/other--own.Config.*never run"),
    "code for replies": (generation, "opened"),
}
KINDS: dict[TaskKind, Callable[[Path], Path]] = {
    "sequence-classification": tiny_bert,
    "causal-lm": tiny_llama,
}


def test_code_of_a_folder_never_runs_and_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal that would say yes to everything."""
    asked: list[str] = []

    def yes(prompt: str = "") -> str:
        asked.append(prompt)
        return "y"

    monkeypatch.setattr("builtins.input", yes)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 500))
    for kind, make in KINDS.items():
        for case, (change_folder, expected) in CASES.items():
            base = make(tmp_path / f"{kind} {case}")
            trace = tmp_path / f"trace of {kind} {case}"
            (base / "own.py").write_text(CODE.format(trace=str(trace)))
            change_folder(base)
            told = opened(base, kind)
            assert not trace.exists(), (kind, case)
            assert re.match(expected, told), (kind, case, told)
    assert asked == []
    assert "Do you wish" not in "".join(capsys.readouterr())


def test_what_a_folder_asks_for_is_listed(bert: Path, tmp_path: Path) -> None:
    assert own_code(bert) == ()
    shutil.copytree(bert, tmp_path / "base")
    known(tmp_path / "base")
    assert own_code(tmp_path / "base") == ("own.Causal", "own.Config", "own.Model", "own.Tokens")


def test_an_adapter_is_no_base(bert: Path, tmp_path: Path) -> None:
    """transformers would go to the base that the adapter names."""
    shutil.copytree(bert, tmp_path / "base")
    change(tmp_path / "base" / "adapter_config.json", base_model_name_or_path="somebody/other")
    for read in (read_config, load_tokenizer):
        with pytest.raises(ModelFileError, match=r"is an adapter.*give that base"):
            read(tmp_path / "base")


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_kernel_from_a_hub_is_refused(bert: Path, tmp_path: Path, key: str) -> None:
    shutil.copytree(bert, tmp_path / "base")
    change(tmp_path / "base" / "config.json", **{key: "somebody/kernel"})
    with pytest.raises(ModelFileError, match=r"'somebody/kernel'.*never run"):
        read_config(tmp_path / "base")


def test_there_is_one_place_that_reads_a_folder() -> None:
    """Whatever else called `from_pretrained` could ask, fetch and run."""
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "cloister").rglob("*.py")}
    callers = {
        str(path.relative_to(ROOT))
        for path, text in sources.items()
        if "from_pretrained" in text
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and node.attr == "from_pretrained"
    }
    assert callers == {"cloister/models/pretrained.py"}


def test_a_folder_that_asks_opens_as_one_that_does_not(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "base")
    known(tmp_path / "base")
    task = TaskConfig(max_length=16)
    both = [
        open_workspace(ModelConfig(base=str(folder)), LoraConfig(), task, ("a", "b"), 0)
        for folder in (bert, tmp_path / "base")
    ]
    names = [[name for name, _ in opened.network.named_parameters()] for opened in both]
    assert names[0] == names[1]
