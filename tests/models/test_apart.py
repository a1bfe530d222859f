"""Two texts in one row get the vectors that the base computes for each alone."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cloister.data.records import PairRecord
from cloister.errors import ModelFileError, UsageError
from cloister.models.config import LoraConfig, ModelConfig
from cloister.recipe import parse_recipe
from cloister.tasks.build import build_task
from cloister.tasks.config import TaskConfig
from cloister.tasks.pairs import TextPairs
from cloister.training.proof import Proof, prove
from cloister.training.workspace import Workspace, open_workspace
from tests.support.architectures import tiny
from tests.support.models import word_tokenizer
from tests.training.test_proof import CONFIG, PLAN

LENGTH = 24
PAIRS = [
    PairRecord("fever", "a", text_b="no rash and no fever since monday"),
    PairRecord("the patient has a severe rash", "b", text_b="no cough"),
    PairRecord("the patient has a severe rash", "a", text_b="mild headache at rest"),
]


def opened(folder: Path, name: str = "bert", compare: str = "vectors", **lora: str) -> Workspace:
    base = folder / "base"
    if not base.exists():
        tiny(base, name)
    task = TaskConfig(
        kind="text-pairs",
        encoder="bi",
        compare=compare,  # type: ignore[arg-type]
        labels=("a", "b"),
        max_length=LENGTH,
    )
    adapters = LoraConfig(train=lora.get("train", "both"), top_layers=0)  # type: ignore[arg-type]
    return open_workspace(ModelConfig(base=str(base)), adapters, task, task.labels, 0)


def vector(workspace: Workspace, text: str) -> Tensor:
    """A text's vector by the base's own forward pass, with nothing of `models.apart`."""
    network = workspace.network
    ids = torch.tensor([workspace.tokenizer(text)["input_ids"]])
    assert network.pooling is not None
    with torch.no_grad():
        output = network.backbone(input_ids=ids, attention_mask=torch.ones_like(ids))
        return network.pooling(output, torch.ones_like(ids)).float()


# Positions from 0, from the padding id on, by distance, rotary; and a causal mask, with the last
# token's state.
@pytest.mark.parametrize("name", ["bert", "roberta", "t5", "llama", "gpt2"])
def test_a_text_has_the_vector_that_it_has_by_itself(name: str, tmp_path: Path) -> None:
    workspace = opened(tmp_path, name)
    batch = workspace.task.collate(workspace.encode(PAIRS))
    with torch.no_grad():
        found = workspace.network.pooled(batch)
    for row, pair in zip(found, PAIRS, strict=True):
        one, other = vector(workspace, pair.text)[0], vector(workspace, pair.text_b)[0]
        torch.testing.assert_close(
            row, torch.cat([one, other, (one - other).abs()]), rtol=1e-4, atol=1e-5
        )
        assert not torch.allclose(one, other, rtol=1e-2)


def test_the_cosine_is_that_of_the_two_vectors(tmp_path: Path) -> None:
    workspace = opened(tmp_path, compare="cosine")
    with torch.no_grad():
        found = workspace.network.pooled(workspace.task.collate(workspace.encode(PAIRS)))
    assert found.shape == (3, 1)
    expected = torch.cosine_similarity(
        vector(workspace, PAIRS[1].text), vector(workspace, PAIRS[1].text_b)
    )
    torch.testing.assert_close(found[1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["deberta", "mistral"])
def test_a_base_that_cannot_read_them_apart_is_refused(name: str, tmp_path: Path) -> None:
    """DeBERTa takes no such mask; the layers of this Mistral look back on fewer tokens."""
    with pytest.raises(ModelFileError, match="another vector beside a second text than by itself"):
        opened(tmp_path, name)


@pytest.mark.parametrize("compare", ["vectors", "cosine"])
def test_per_record_gradients_are_proven_before_anything_is_charged(
    compare: str, tmp_path: Path
) -> None:
    assert not prove(opened(tmp_path, compare=compare), PLAN, CONFIG).one_by_one


def test_cached_states_are_those_of_texts_that_are_read_apart(tmp_path: Path) -> None:
    """The same tokens, read together in another study of this process, have other states."""
    workspace = opened(tmp_path, train="none")
    base = ModelConfig(base=str(tmp_path / "base"))
    cached = open_workspace(
        base,
        LoraConfig(train="none"),
        TaskConfig(kind="text-pairs", encoder="bi", labels=("a", "b"), max_length=LENGTH),
        ("a", "b"),
        0,
        frozen_cache_gib=1.0,
    )
    together = open_workspace(
        base,
        LoraConfig(train="none"),
        TaskConfig(kind="text-pairs", labels=("a", "b"), max_length=LENGTH),
        ("a", "b"),
        0,
        frozen_cache_gib=1.0,
    )
    assert cached.network.prefix is not None
    batch = cached.task.collate(cached.encode(PAIRS))
    together.network.logits(batch)
    for network in (workspace.network, cached.network):
        torch.nn.init.normal_(network.head.weight, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(
            cached.network.logits(batch), workspace.network.logits(batch), rtol=1e-4, atol=1e-5
        )


def test_a_text_s_tokens_do_not_depend_on_the_other() -> None:
    config = TaskConfig(kind="text-pairs", encoder="bi", max_length=8)
    task = build_task(config, ("a", "b"), word_tokenizer())
    assert isinstance(task, TextPairs)
    long, short = "the patient has a severe rash and a mild cough", "fever"
    found = {
        (first, second): task.encode(PairRecord(first, "a", text_b=second))
        for first in (long, short)
        for second in (long, short)
    }
    for (first, second), example in found.items():
        parts = [
            tuple(i for i, s in zip(example.input_ids, example.segments, strict=True) if s == n)
            for n in (0, 1)
        ]
        alone = [
            task.encode(PairRecord(text, "a", text_b="")).input_ids for text in (first, second)
        ]
        assert all(
            a[: len(part)] == part and len(part) <= 4 for a, part in zip(alone, parts, strict=True)
        )
        assert task.is_cut(first, second) == (long in (first, second))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            ["task.kind=scoring", "task.score_range=[0, 1]", "task.encoder=bi"],
            "only text-pairs has it",
        ),
        (["task.kind=text-pairs", "task.compare=cosine"], 'without encoder = "bi"'),
        (
            ["task.kind=text-pairs", "task.encoder=bi", "task.negatives=in-batch"],
            "ε would be false",
        ),
        (["task.kind=text-pairs", "task.encoder=bi", "lora.method=prompt"], "puts vectors before"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(fields: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse_recipe("", fields)


def test_a_length_without_room_for_two_texts_is_refused() -> None:
    config = TaskConfig(kind="text-pairs", encoder="bi", max_length=5)
    with pytest.raises(UsageError, match="set at least 6"):
        build_task(config, ("a", "b"), word_tokenizer())


def test_older_studies_keep_their_digest() -> None:
    assert "encoder" not in parse_recipe("", ["task.kind=text-pairs"]).document()


def test_a_proof_is_of_this_comparison(tmp_path: Path) -> None:
    keys = {
        Proof.key_of(opened(tmp_path, compare=compare), PLAN, CONFIG)
        for compare in ("vectors", "cosine")
    }
    assert len(keys) == 2
