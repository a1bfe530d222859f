"""Whole studies on many architectures, in the default recipe's way: to the end, and again."""

import json
from pathlib import Path

import pytest

from cloister.recipe import Recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import Events, simulate
from tests.support.architectures import DECODERS, ENCODERS, tiny
from tests.support.studies import small_recipe

# What is adapted, and how a round is made, as where a recipe says nothing.
DEFAULTS = (
    "lora.train=b",
    "lora.top_layers=1",
    "training.mode=gradient-rounds",
    "training.local_steps=1",
    "federation.num_rounds=1",
)
# One of each way to keep places: relative and disentangled, relative and shared, rotary, by state.
CLASSIFIERS = ("deberta-v2", "t5", "modernbert", "mamba")
CHATS = ("bloom", "opt")
# Of these a sibling is among the ones above, or a test of another room runs them.
MORE = [name for name in (*ENCODERS, *DECODERS) if name not in (*CLASSIFIERS, "albert")]
TURNS = [{"role": "user", "content": "rash"}, {"role": "assistant", "content": "severe rash"}]


def classification(folder: Path, name: str, *assignments: str) -> Recipe:
    base = tiny(folder / "base", name)
    return small_recipe(folder / "study", *DEFAULTS, *assignments, base=base)


def finished(folder: Path, recipe: Recipe, events: Events | None = None) -> dict[str, float]:
    """The scores of a study, and the same of what a resumed run of it gives."""
    run = RunDirectory.create(folder / "run", recipe)
    first = simulate(recipe, run, events=events)
    again = RunDirectory.reopen(folder / "run")
    assert simulate(again.recipe(), again).test == first.test
    return dict(first.test)


# transformers asks torch for a function by its old name when it makes Mamba.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.mark.parametrize(
    "name",
    [
        *CLASSIFIERS[:2],
        *(pytest.param(n, marks=pytest.mark.nightly) for n in (*CLASSIFIERS[2:], *MORE)),
    ],
)
def test_a_study_by_default_ends_on_every_architecture(tmp_path: Path, name: str) -> None:
    """Proven record by record, trained, scored and released."""
    told: list[str] = []
    events = Events(on_base=told.append)
    assert "accuracy" in finished(tmp_path, classification(tmp_path, name), events)
    assert any(note.startswith("pooling: ") for note in told)


@pytest.mark.parametrize(
    "name",
    [
        *CHATS,
        *(pytest.param(n, marks=pytest.mark.nightly) for n in DECODERS if n not in CHATS),
    ],
)
def test_a_chat_ends_on_every_architecture_and_again_when_resumed(
    tmp_path: Path, name: str
) -> None:
    for part in ("train", "test"):
        rows = [{"messages": TURNS, "site": site} for site in ("east", "west") * 10]
        path = tmp_path / f"{part}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    chat = (
        "task.kind=causal-lm",
        f"data.train='{tmp_path}/train.jsonl'",
        f"data.test='{tmp_path}/test.jsonl'",
    )
    scores = finished(tmp_path, classification(tmp_path, name, *chat))
    assert scores["perplexity"] > 1
    assert 0 <= scores["rouge_l"] <= 1


def test_a_run_that_learns_nothing_says_so(tmp_path: Path) -> None:
    """Texts that are all the same hold nothing to tell labels by."""
    labels = ["a", "a", "b", "a", "c"]
    for part in ("train", "test"):
        rows = [{"text": "fever", "label": labels[n % 5], "site": "ew"[n % 2]} for n in range(40)]
        path = tmp_path / f"{part}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told: list[str] = []
    data = (f"data.train='{tmp_path}/train.jsonl'", f"data.test='{tmp_path}/test.jsonl'")
    recipe = classification(tmp_path, "bert", *data, "privacy.enabled=false")
    run = RunDirectory.create(tmp_path / "run", recipe)
    simulate(recipe, run, events=Events(on_warning=told.append))
    [warning] = [text for text in told if "not above always guessing" in text]
    assert "pooled by mean (the folder does not state its pooling)" in warning
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert "has learnt nothing of use" in card


def test_a_run_that_learns_says_nothing_of_the_kind(tmp_path: Path) -> None:
    told: list[str] = []
    well = (
        "training.learning_rate=5.0",
        "privacy.enabled=false",
        "federation.num_rounds=20",
        "training.expected_batch_size=40",
    )
    recipe = classification(tmp_path, "bert", *well)
    run = RunDirectory.create(tmp_path / "run", recipe)
    result = simulate(recipe, run, events=Events(on_warning=told.append))
    assert result.majority is not None
    assert result.test["accuracy"] > result.majority
    assert not any("always guessing" in text for text in told)
