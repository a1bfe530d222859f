"""Whole studies with each kind of adapter: to the end, released, and loaded again."""

import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModel

from cloister.errors import BadFileError, RecipeError, UsageError
from cloister.export.adapter_folder import load_released
from cloister.export.gguf_adapter import read_folder
from cloister.export.vllm_rules import vllm_problems
from cloister.models.config import Method
from cloister.recipe import Recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import simulate
from cloister.simulation.study import prepare, workspace_of
from tests.support.studies import small_recipe

METHODS: tuple[Method, ...] = ("bitfit", "ia3", "prompt", "prefix")
SHARED = (
    "data.sites=3",
    "data.partition=iid",
    "data.public_records=20",
    "training.mode=gradient-rounds",
    "training.local_steps=1",
    "training.expected_batch_size=5",
    "privacy.noise=shared",
)
LONE = ("federation.num_rounds=1", "training.local_steps=1", "lora.top_layers=1")
WAYS: dict[str, tuple[str, ...]] = {
    "fedavg": (),
    "fedavgm": ("strategy.name=fedavgm",),
    "secure sum": SHARED,
    "bfloat16 updates, kept adapters": (
        "training.update_dtype=bfloat16",
        "training.personal=true",
        "training.proximal=0.1",
    ),
}


def of(method: Method) -> tuple[str, ...]:
    tokens = ("lora.tokens=3",) if method in ("prompt", "prefix") else ()
    return (f"lora.method={method}", *tokens)


def recipe_of(folder: Path, *assignments: str) -> Recipe:
    return small_recipe(folder, "task.max_length=8", *assignments)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "methods"


def finished(folder: Path, out: Path, *assignments: str) -> tuple[Recipe, RunDirectory]:
    recipe = recipe_of(folder, *assignments)
    run = RunDirectory.create(out, recipe)
    simulate(recipe, run)
    return recipe, run


# Each way with one method, and each method in the plain way; the rest at night.
QUICK = {
    ("bitfit", "fedavgm"),
    ("ia3", "secure sum"),
    ("prefix", "bfloat16 updates, kept adapters"),
}


@pytest.mark.parametrize(
    ("method", "way"),
    [
        pytest.param(m, w, marks=[] if w == "fedavg" or (m, w) in QUICK else pytest.mark.nightly)
        for m in METHODS
        for w in WAYS
    ],
)
def test_a_study_with_each_method_ends_and_its_adapter_moved(
    folder: Path, tmp_path: Path, method: Method, way: str
) -> None:
    recipe, run = finished(folder, tmp_path / "run", *of(method), *WAYS[way])
    start = workspace_of(prepare(recipe)).start
    about, released = load_released(run.adapter)
    assert about.lora.method == method
    moved = [
        name
        for name in start
        if not name.startswith("head.")
        and not torch.equal(
            torch.from_numpy(start[name].copy()),
            dict_of(released.network)[name],
        )
    ]
    assert len(moved) == sum(not name.startswith("head.") for name in start)


def dict_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name.replace(".default", ""): p.detach() for name, p in network.named_parameters()}


@pytest.mark.parametrize("method", METHODS)
def test_peft_loads_what_is_released_and_computes_the_same(
    folder: Path, tmp_path: Path, method: Method
) -> None:
    recipe, run = finished(folder, tmp_path / "run", *of(method), *LONE)
    _, workspace = load_released(run.adapter)
    # peft asks transformers for a property by its old name.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
    plain = PeftModel.from_pretrained(AutoModel.from_pretrained(recipe.model.base), run.adapter)
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    mask = torch.ones_like(ids)
    with torch.no_grad():
        expected = workspace.network.backbone(input_ids=ids, attention_mask=mask)
        found = plain.eval()(input_ids=ids, attention_mask=mask)
    assert torch.equal(found.last_hidden_state, expected.last_hidden_state)
    assert vllm_problems(run.adapter)
    with pytest.raises((UsageError, BadFileError), match=r"llama\.cpp loads LoRA only"):
        read_folder(run.adapter)


@pytest.mark.parametrize("strategy", ["fedex", "flora", "flexlora", "fedsvd"])
def test_a_strategy_of_two_factors_refuses_other_adapters_by_name(
    folder: Path, strategy: str
) -> None:
    with pytest.raises(RecipeError, match=rf"strategy.name: {strategy} needs LoRA's two factors"):
        recipe_of(folder, f"strategy.name={strategy}", "lora.method=ia3")
    residual = () if strategy in ("flexlora", "fedsvd") else ("lora.residual=4",)
    with pytest.raises(RecipeError, match=rf"lora.freeze: {strategy} needs both factors"):
        recipe_of(folder, f"strategy.name={strategy}", "lora.freeze=['*.query.*']", *residual)


def test_decay_that_would_draw_scales_to_zero_is_refused(folder: Path) -> None:
    decay = ("training.weight_decay=0.1", "training.optimizer=adamw")
    with pytest.raises(RecipeError, match="IA³'s vectors change nothing at 1"):
        recipe_of(folder, "lora.method=ia3", *decay)


def test_a_study_that_names_lora_is_the_study_that_names_nothing(folder: Path) -> None:
    assert recipe_of(folder, "lora.method=lora").digest() == recipe_of(folder).digest()
    assert recipe_of(folder, "lora.freeze=[]").digest() == recipe_of(folder).digest()
    assert recipe_of(folder, "lora.method=ia3").digest() != recipe_of(folder).digest()


def test_dora_trains_without_privacy(folder: Path, tmp_path: Path) -> None:
    finished(folder, tmp_path / "run", "lora.use_dora=true", "privacy.enabled=false", *LONE)
