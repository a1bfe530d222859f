"""A head that starts with the labels' words gives the untrained language model's answers."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from cloister.data.records import TextRecord
from cloister.errors import RecipeError, UsageError
from cloister.models.config import LoraConfig, ModelConfig
from cloister.recipe import parse_recipe
from cloister.tasks.config import TaskConfig
from cloister.training.preflight import preflight
from cloister.training.workspace import Workspace, open_workspace
from tests.support.architectures import tiny
from tests.support.models import SPECIAL, WORDS

LABELS = ("fever", "chest_pain")
TEXTS = ("the patient has severe cough", "rash")
ID = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}


def opened(folder: Path, **model: object) -> Workspace:
    return open_workspace(
        ModelConfig(base=str(folder), **model),  # type: ignore[arg-type]
        LoraConfig(head="label-words", top_layers=0, train="both"),
        TaskConfig(labels=LABELS, max_length=32, prompt="patient {text} has acute"),
        LABELS,
        0,
    )


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt-neox"])
def test_untrained_it_is_zero_shot(name: str, tmp_path: Path) -> None:
    """GPT-2 ties its output embedding to the input's; the others here have one of their own."""
    workspace = opened(tiny(tmp_path, name))
    whole = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    examples = workspace.encode([TextRecord(text, "fever") for text in TEXTS])
    with torch.no_grad():
        found = workspace.network.logits(workspace.task.collate(examples))
        for row, example in zip(found, examples, strict=True):
            ids = torch.tensor([example.input_ids])
            last = whole(input_ids=ids).logits[0, -1]
            chest_pain = (last[ID["chest"]] + last[ID["pain"]]) / 2
            assert torch.allclose(row, torch.stack([last[ID["fever"]], chest_pain]), atol=1e-5)
    preflight(workspace.network, workspace.task, examples)


def test_scaled_features_scale_its_logits_alike(llama: Path) -> None:
    plain, scaled = opened(llama), opened(llama, normalize=True)
    batch = plain.task.collate(plain.encode([TextRecord(TEXTS[0], "fever")]))
    with torch.no_grad():
        one, two = plain.network.logits(batch)[0], scaled.network.logits(batch)[0]
    assert torch.allclose(one / one.norm(), two / two.norm(), atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_a_base_that_writes_no_words_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a causal language model"):
        opened(tiny(tmp_path, name))


@pytest.mark.parametrize("kind", ["token-classification", "causal-lm"])
def test_other_tasks_have_no_label_words(kind: str) -> None:
    with pytest.raises(RecipeError, match=r"lora\.head"):
        parse_recipe("", [f"task.kind={kind}", "lora.head=label-words"])
