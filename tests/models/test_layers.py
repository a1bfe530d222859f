"""A base that is cut after some layers computes the same as a base with only these layers."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, LlamaConfig, LlamaModel

from cloister.errors import RecipeError, UsageError
from cloister.models.base import load_backbone
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.layers import end_after, layer_list
from cloister.recipe import parse_document, parse_recipe, sent_document
from cloister.tasks.config import TaskConfig
from cloister.training.preflight import preflight
from cloister.training.workspace import Workspace, open_workspace
from tests.support.architectures import tiny
from tests.support.models import VOCABULARY, word_tokenizer
from tests.training.test_gradients import TEXTS

IDS = torch.tensor([[4, 5, 6, 7], [8, 9, 10, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of four layers."""
    folder = tmp_path_factory.mktemp("deep")
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaModel(config).save_pretrained(folder)
    word_tokenizer(frame=False).save_pretrained(folder)
    return folder


def opened(folder: Path, layers: int | None, *, cache: float = 0.0) -> Workspace:
    return open_workspace(
        ModelConfig(base=str(folder), layers=layers),
        LoraConfig(train="both", top_layers=1),
        TaskConfig(max_length=32),
        ("a", "b"),
        0,
        frozen_cache_gib=cache,
    )


@pytest.mark.parametrize(
    "name", ["bert", "distilbert", "modernbert", "t5", "gpt2", "llama", "gemma3-text", "mamba"]
)
def test_it_gives_what_a_base_of_so_many_layers_gives(name: str, tmp_path: Path) -> None:
    """transformers itself leaves upper layers out where a configuration has fewer; what the list
    that is cut here gives is the same, with the base's final norm where it has one."""
    folder = tiny(tmp_path, name)
    model = load_backbone(folder, ModelConfig(), causal=False)
    end_after(model, 1)
    found = layer_list(model, 1)
    assert found is not None
    # T5's own layers' parts are read by another alias.
    alias = {"num_layers": 1} if name == "t5" else {"num_hidden_layers": 1}
    kinds = {"layer_types": ["full_attention"]} if name in ("gemma3-text", "modernbert") else {}
    if kinds:
        kinds = {"layer_types": model.config.layer_types[:1]}
    kind = type(model) if name == "t5" else AutoModel
    short = kind.from_pretrained(folder, **alias, **kinds).eval()
    with torch.no_grad():
        one = model(input_ids=IDS, attention_mask=MASK).last_hidden_state
        two = short(input_ids=IDS, attention_mask=MASK).last_hidden_state
    assert torch.equal(one, two)


def test_nothing_above_is_kept_or_adapted(deep: Path) -> None:
    workspace = opened(deep, 2)
    names = [name for name, _ in workspace.network.backbone.named_parameters()]
    assert any("layers.1." in name for name in names)
    assert not any(f"layers.{n}." in name for name in names for n in (2, 3))
    assert {name.split("layers.")[1][0] for name in workspace.start if "lora" in name} == {"1"}
    preflight(workspace.network, workspace.task, workspace.encode(TEXTS))


def test_kept_states_of_one_depth_are_not_taken_for_another_s(deep: Path) -> None:
    """Both adapt one layer, which is another one in each."""
    for layers in (3, 4, 2):
        kept, plain = opened(deep, layers, cache=1.0), opened(deep, layers)
        assert kept.network.prefix is not None
        batch = plain.task.collate(plain.encode(TEXTS))
        for workspace in (kept, plain):
            torch.nn.init.ones_(workspace.network.head.weight)  # type: ignore[union-attr]
        for _ in range(2):  # computed, then kept
            with torch.no_grad():
                apart = kept.network.logits(batch) - plain.network.logits(batch)
            assert float(apart.abs().max()) <= 1e-4


def test_more_layers_than_there_are_and_shared_ones_are_refused(tmp_path: Path, deep: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.layers: 9 given; the base has 4 layers"):
        opened(deep, 9)
    shared = load_backbone(tiny(tmp_path, "albert"), ModelConfig(), causal=False)
    with pytest.raises(UsageError, match="are not one list that can be cut"):
        end_after(shared, 1)
    with pytest.raises(RecipeError, match="whose head reads the last layer"):
        parse_recipe("", ["model.layers=2", "task.kind=causal-lm"])
    with pytest.raises(RecipeError, match=r"lora\.top_layers: 3 given; model\.layers leaves 2"):
        parse_recipe("", ["model.layers=2", "lora.top_layers=3"])


def test_a_recipe_without_it_keeps_its_digest_and_one_with_it_has_another() -> None:
    plain, ended = parse_recipe(""), parse_recipe("", ["model.layers=3"])
    assert '"layers"' not in sent_document(plain)
    assert '"layers":3' in sent_document(ended)
    assert ended.digest() != plain.digest()
    assert parse_document(sent_document(ended)).model.layers == 3
    stated = sent_document(plain).replace('"dtype":"float32",', '"dtype":"float32","layers":null,')
    with pytest.raises(RecipeError, match="canonical"):
        parse_document(stated)
