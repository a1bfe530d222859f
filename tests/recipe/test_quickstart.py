"""Without a recipe the quickstart runs; any other study has the defaults of a recipe."""

import pytest

from cloister.recipe import parse_recipe, read_recipe
from cloister.recipe.quickstart import ADAPTER_ROUNDS, HEAD_ROUNDS


def test_the_quickstart_trains_the_head_first_and_adapters_after_it() -> None:
    recipe = read_recipe(None)
    assert recipe.training.probe_rounds == HEAD_ROUNDS
    assert recipe.federation.num_rounds == HEAD_ROUNDS + ADAPTER_ROUNDS
    assert recipe.privacy.enabled
    assert recipe.privacy.target_epsilon == 8.0
    assert recipe.lora.train != "none"


@pytest.mark.parametrize("change", ["privacy.epsilon=3.0", "study.seed=2", "machine.device=cpu"])
def test_the_promise_and_the_machine_may_be_changed(change: str) -> None:
    assert read_recipe(None, [change]).training == read_recipe(None).training


@pytest.mark.parametrize(
    "change",
    ["federation.num_rounds=2", "privacy.enabled=false", "data.sites=3", "lora.method=bitfit"],
)
def test_another_study_has_the_defaults_of_every_recipe(change: str) -> None:
    changed = ["privacy.epsilon=3.0", change] if change != "privacy.enabled=false" else [change]
    assert read_recipe(None, changed) == parse_recipe("", changed)
