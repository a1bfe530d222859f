"""A released adapter gives equal logits in a plain script and in `cloister evaluate`."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from cloister.cli.main import run
from cloister.errors import AdapterFormatError, BadFileError
from cloister.export.adapter_folder import load_released
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import simulate
from cloister.simulation.study import prepare, workspace_of
from cloister.tasks.chat import PLAIN_TEMPLATE
from tests.support.plain_scripts import Run
from tests.support.studies import small_recipe

TEXT = "the patient has a severe rash since monday"


def released(
    tmp_path: Path, *assignments: str, base: Path | None = None
) -> tuple[Path, torch.Tensor]:
    """A finished run's folder, and its network's logits on one text."""
    recipe = small_recipe(tmp_path / "study", *assignments, base=base)
    run = RunDirectory.create(tmp_path / "run", recipe)
    simulate(recipe, run)
    workspace = workspace_of(prepare(recipe))
    batch = workspace.tokenizer([TEXT, "fever"], return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = workspace.network(batch["input_ids"], batch["attention_mask"])
    return run.path, logits


def script_of(card: str) -> str:
    return card.split("```python\n")[1].split("```")[0]


@pytest.mark.parametrize(
    "assignments",
    [
        [],
        ["model.pooling=mean", "lora.head=lora"],
        ["model.pooling=cls", "lora.train=b", "lora.top_layers=1"],
        ["model.pooling=mean", "model.normalize=true", "model.center=english"],
        ["lora.train=b-moving", "strategy.name=fedsvd"],
        ["strategy.name=fedex", "lora.residual=16"],
        ["strategy.name=flora", "lora.residual=5"],
        ["lora.method=prompt", "lora.tokens=3"],
    ],
    ids=[
        "pooler",
        "mean, low-rank head",
        "cls, B of the last layer",
        "centred",
        "moved A",
        "full residual",
        "short residual",
        "a prompt",
    ],
)
def test_the_card_s_script_gives_the_same_logits(
    tmp_path: Path, plain: Run, assignments: list[str]
) -> None:
    folder, expected = released(tmp_path, *assignments)
    script = script_of((folder / "adapter" / "README.md").read_text())
    assert "cloister" not in script.replace("cloister.json", "")
    program = script.replace('["…"]', json.dumps([TEXT, "fever"]))
    program += "import sys; assert 'cloister' not in sys.modules; print(logits.tolist())\n"
    found = torch.tensor(json.loads(plain(program, folder)))
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_centred_head_is_loaded_without_a_second_centre(tmp_path: Path) -> None:
    folder, expected = released(tmp_path, "model.pooling=mean", "model.center=english")
    _, workspace = load_released(folder / "adapter")
    assert workspace.network.center is None
    batch = workspace.tokenizer([TEXT, "fever"], return_tensors="pt", padding=True)
    with torch.no_grad():
        found = workspace.network(batch["input_ids"], batch["attention_mask"])
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_tagger_s_script_takes_words(tmp_path: Path, plain: Run) -> None:
    data, test = tmp_path / "tags.jsonl", tmp_path / "test.jsonl"
    rows = [{"tokens": TEXT.split(), "tags": ["O"] * 7 + ["B-D"], "site": s} for s in "ab" * 10]
    for path in (data, test):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    kind = "task.kind=token-classification"
    folder, expected = released(tmp_path, kind, f"data.train='{data}'", f"data.test='{test}'")
    script = script_of((folder / "adapter" / "README.md").read_text())
    program = script.replace('["…"]', json.dumps(TEXT.split())) + "print(logits.tolist())\n"
    found = torch.tensor(json.loads(plain(program, folder)))
    assert torch.allclose(found, expected[:1], atol=1e-5)


def test_a_causal_adapter_loads_in_one_line(
    tmp_path: Path, llama: Path, plain: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "chats.jsonl"
    turns = [{"role": "user", "content": "rash"}, {"role": "assistant", "content": "severe rash"}]
    data.write_text(
        "".join(json.dumps({"messages": turns, "site": s}) + "\n" for s in ("east", "west") * 10)
    )
    test = tmp_path / "test.jsonl"
    test.write_bytes(data.read_bytes())
    folder, expected = released(
        tmp_path, "task.kind=causal-lm", f"data.train='{data}'", f"data.test='{test}'", base=llama
    )
    script = script_of((folder / "adapter" / "README.md").read_text())
    program = script.replace('["…"]', json.dumps([TEXT])) + "print(logits.tolist())\n"
    found = torch.tensor(json.loads(plain(program, folder)))
    assert torch.allclose(found, expected[:1], atol=1e-5)
    _has_its_tokenizer(folder / "adapter", llama)
    _is_exported(folder, tmp_path / "adapter.gguf", capsys)


def _has_its_tokenizer(adapter: Path, base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    assert tokenizer.chat_template == PLAIN_TEMPLATE
    assert tokenizer(TEXT)["input_ids"] == AutoTokenizer.from_pretrained(base)(TEXT)["input_ids"]
    assert str(base) not in (adapter / "tokenizer_config.json").read_text()


def _is_exported(folder: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["export", str(folder), "--gguf", str(file), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["gguf"] == {"file": str(file), "modules": 4}
    assert said["vllm"] == []
    assert file.read_bytes()[:4] == b"GGUF"


@pytest.mark.parametrize(
    "assignments",
    [["lora.train=b"], ["strategy.name=fedex", "lora.residual=3"]],
    ids=["B", "with a residual"],
)
def test_a_released_adapter_loads_back_with_the_same_logits(
    tmp_path: Path, assignments: list[str]
) -> None:
    folder, expected = released(tmp_path, *assignments)
    about, workspace = load_released(folder / "adapter")
    assert about.model.sha256 == workspace.base_sha256
    batch = workspace.tokenizer([TEXT, "fever"], return_tensors="pt", padding=True)
    with torch.no_grad():
        found = workspace.network(batch["input_ids"], batch["attention_mask"])
    assert torch.allclose(found, expected, atol=1e-6)


def test_the_base_is_named_as_the_recipe_names_it(tmp_path: Path) -> None:
    folder, _ = released(tmp_path)
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tmp_path / "study" / "base")


def test_a_folder_without_an_adapter_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="give the folder of a finished run"):
        load_released(tmp_path)


def test_a_document_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cloister.json").write_text('{"version": 99}')
    with pytest.raises(AdapterFormatError, match="not of format version 1"):
        load_released(tmp_path)


def test_a_damaged_adapter_is_refused(tmp_path: Path) -> None:
    folder, _ = released(tmp_path)
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"garbage")
    with pytest.raises(BadFileError, match="do not fit together"):
        load_released(folder / "adapter")
