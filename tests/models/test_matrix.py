"""Each architecture with each task gives every record its own gradient, or is refused.

The table in docs/data-and-bases.md is what these cells say.
"""

from pathlib import Path

import pytest

from cloister.errors import CloisterError
from cloister.models.config import LoraConfig, ModelConfig
from cloister.tasks.config import TaskConfig, TaskKind
from cloister.training.proof import Proof, prove
from cloister.training.workspace import open_workspace
from tests.models.test_kinds import wrapper
from tests.support.architectures import tiny
from tests.support.isolation import CONFIG, PLAN
from tests.support.tokenizers import byte_level

ROOT = Path(__file__).parents[2]
KINDS: tuple[TaskKind, ...] = ("sequence-classification", "token-classification", "causal-lm")

ENCODER = "an encoder"
NO_HEAD = "no language-modelling head"
PAIR = "an encoder with a decoder"
BARE = "no default for xlnet"
SHARED = "share their weights"
# By architecture as `tests.support` names it: its name in the table, and why a task is refused.
ROWS: dict[str, tuple[str, tuple[str, str, str]]] = {
    "llama": ("Llama", ("", "", "")),
    "mistral": ("Mistral", ("", "", "")),
    "mixtral": ("Mixtral", ("", "", "")),
    "qwen2": ("Qwen 2", ("", "", "")),
    "qwen2-moe": ("Qwen 2 MoE", ("", "", "")),
    "qwen3": ("Qwen 3", ("", "", "")),
    "gemma": ("Gemma", ("", "", "")),
    "gemma2": ("Gemma 2", ("", "", "")),
    "gemma3-text": ("Gemma 3 (text)", ("", "", "")),
    "gemma3": ("Gemma 3 (with images)", ("", "", "")),
    "llava": ("Llava", ("", "", "")),
    "phi": ("Phi", ("", "", "")),
    "phi3": ("Phi 3", ("", "", "")),
    "smollm3": ("SmolLM 3", ("", "", "")),
    "stablelm": ("StableLM", ("", "", "")),
    "olmo2": ("OLMo 2", ("", "", "")),
    "gpt2": ("GPT-2", ("", "", "")),
    "gpt-neo": ("GPT-Neo", ("", "", "")),
    "gpt-neox": ("GPT-NeoX", ("", "", "")),
    "opt": ("OPT", ("", "", "")),
    "bloom": ("BLOOM", ("", "", "")),
    "falcon": ("Falcon", ("", "", "")),
    "mpt": ("MPT", ("", "", "")),
    "mamba": ("Mamba", ("", "", "")),
    "mamba2": ("Mamba 2", ("", "", "")),
    "bert": ("BERT", ("", "", ENCODER)),
    "roberta": ("RoBERTa", ("", "", ENCODER)),
    "xlm-roberta": ("XLM-R", ("", "", ENCODER)),
    "distilbert": ("DistilBERT", ("", "", NO_HEAD)),
    "electra": ("ELECTRA", ("", "", ENCODER)),
    "mpnet": ("MPNet", ("", "", NO_HEAD)),
    "deberta": ("DeBERTa", ("", "", NO_HEAD)),
    "deberta-v3": ("DeBERTa v2, v3", ("", "", NO_HEAD)),
    "modernbert": ("ModernBERT", ("", "", NO_HEAD)),
    "t5": ("T5 (its encoder)", ("", "", PAIR)),
    "albert": ("ALBERT", (SHARED, SHARED, NO_HEAD)),
    "xlnet": ("XLNet", (BARE, BARE, BARE)),
    "bart": ("BART", (PAIR, PAIR, PAIR)),
}
# How the table says why.
WORDS = {
    "": "yes",
    ENCODER: "no: an encoder",
    NO_HEAD: "no: an encoder",
    PAIR: "no: an encoder with a decoder",
    BARE: "the head alone",
    SHARED: "the head alone",
}
# In the default run: plain decoders and encoders, a router, flattened rows and a wrapper.
QUICK = {
    ("llama", "causal-lm"),
    ("qwen2-moe", "causal-lm"),
    ("gemma3", "sequence-classification"),
    ("bert", "token-classification"),
    ("bert", "causal-lm"),
    ("mamba2", "sequence-classification"),
}
CELLS = [
    pytest.param(
        name,
        kind,
        reason,
        id=f"{name}-{kind}",
        marks=[] if (name, kind) in QUICK else [pytest.mark.nightly],
    )
    for name, (_, reasons) in ROWS.items()
    for kind, reason in zip(KINDS, reasons, strict=True)
]


def base_of(folder: Path, name: str) -> Path:
    if name in ("gemma3", "llava"):
        wrapper(folder, name)
        return folder
    # transformers reads a Qwen 2's vocabulary as byte-level pairs, whatever the folder has.
    tokenizer = byte_level(prefix=False, trim=True) if name == "qwen2" else None
    if tokenizer is not None:
        tokenizer.pad_token = "<unk>"
    return tiny(folder, name, tokenizer=tokenizer)


@pytest.mark.parametrize(("name", "kind", "reason"), CELLS)
def test_a_base_serves_a_task_exactly_or_says_why_not(
    tmp_path: Path, name: str, kind: TaskKind, reason: str
) -> None:
    """The proof allows no difference in any bit between a record alone and among others."""
    base = base_of(tmp_path, name)
    labels = {KINDS[0]: ("a", "b"), KINDS[1]: ("X",), KINDS[2]: ()}[kind]
    task = TaskConfig(kind=kind, max_length=8)

    def proven() -> Proof:
        model = ModelConfig(base=str(base))
        return prove(open_workspace(model, LoraConfig(), task, labels, 0), PLAN, CONFIG)

    if not reason:
        assert proven().shapes.longest == task.max_length
        return
    with pytest.raises(CloisterError, match=rf"{reason}.*(choose|set) "):
        proven()


def test_the_documentation_has_this_table() -> None:
    lines = ["| base | one label for a text | a tag for each word | chat |", "|---|---|---|---|"]
    for shown, reasons in ROWS.values():
        lines.append(f"| {shown} | {' | '.join(WORDS[reason] for reason in reasons)} |")
    page = (ROOT / "docs" / "data-and-bases.md").read_text(encoding="utf-8")
    table = "\n".join(lines)
    assert table in page, f"put into docs/data-and-bases.md:\n{table}"


def test_there_are_twenty_architectures_and_six_cells_are_tried_each_time() -> None:
    assert len(ROWS) >= 20
    assert sum(not cell.marks for cell in CELLS) == len(QUICK) == 6
