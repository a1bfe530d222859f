"""The script on the card of an adapter for pairs computes the logits that the study computes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from cloister.adapter.tensors import Adapter
from cloister.data.config import DataConfig
from cloister.data.records import PairRecord
from cloister.export.adapter_folder import ReleaseFacts, export
from cloister.export.snippets import loading_of, loading_script
from cloister.models.config import LoraConfig, ModelConfig
from cloister.tasks.config import TaskConfig
from cloister.testing.tasks import word_tokenizer as pair_tokenizer
from cloister.training.workspace import open_workspace
from tests.support.architectures import tiny
from tests.support.models import WORDS, word_tokenizer

PAIRS = [
    ("fever", "no fever"),
    ("the patient has a severe rash and a mild headache since monday", "no cough and no fever"),
    ("chest pain", "the patient has chest pain at rest and no rash and a mild cough"),
]


def parted() -> PreTrainedTokenizerFast:
    """Says which of two texts each token is of, as BERT's does."""
    made = pair_tokenizer([PairRecord(" ".join(WORDS), "a", text_b="")])
    special = {name: str(token) for name, token in made.special_tokens_map.items()}
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=made.backend_tokenizer, model_input_names=names, **special
    )


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # scripts are short
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own
@pytest.mark.parametrize(
    ("name", "tokenizer", "reads_segments", "apart"),
    [
        ("bert", parted(), True, {}),
        ("gpt2", word_tokenizer(frame=False), False, {}),
        ("bert", parted(), False, {"encoder": "bi"}),
        ("llama", word_tokenizer(frame=False), False, {"encoder": "bi", "compare": "cosine"}),
    ],
    ids=["segments", "line break", "apart", "apart, by cosine"],
)
def test_a_script_reads_pairs_as_cloister_does(
    name: str,
    tokenizer: PreTrainedTokenizerFast,
    reads_segments: bool,
    apart: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = tiny(tmp_path / "base", name, tokenizer=tokenizer)
    model, lora = ModelConfig(base=str(base)), LoraConfig(train="both", top_layers=0)
    task = TaskConfig(kind="text-pairs", labels=("a", "b"), max_length=12, **apart)
    workspace = open_workspace(model, lora, task, task.labels, 0)
    rng = np.random.default_rng(0)
    values = {n: 0.3 * rng.normal(size=a.shape) for n, a in workspace.start.items()}
    about = ReleaseFacts(model, lora, task, DataConfig(), 0)
    export(tmp_path / "adapter", workspace, Adapter(values), about)
    script = loading_script(loading_of(model, workspace))
    assert ('token_type_ids"] = ' in script) == reads_segments
    records = [PairRecord(first, "a", text_b=second) for first, second in PAIRS]
    with torch.no_grad():
        expected = workspace.network.logits(workspace.task.collate(workspace.encode(records)))
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {}
    exec(script.replace('[("…", "…")]', json.dumps(PAIRS)), made)
    assert float((made["logits"] - expected).abs().max()) <= 1e-5
    assert made["predicted"] == [("a", "b")[best] for best in expected.argmax(1).tolist()]
