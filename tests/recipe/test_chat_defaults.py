"""The rate of a language model's adapters that state none follows from their noise."""

import math

import numpy as np
import pytest

from cloister.adapter.tensors import Adapter
from cloister.recipe import parse_document, parse_recipe, sent_document
from cloister.recipe.chat_defaults import CLIP, LONGEST_STEP, MOMENTUM, OUTPUT_NOISE
from cloister.recipe.rate_by_noise import mean_noise
from cloister.strategies.build import make_strategy
from cloister.training.optimizer import learning_rate_at

CHAT = ["task.kind=causal-lm", "data.sites=5"]
NOISY = [*CHAT, "privacy.epsilon=1.0"]
# A layer's inputs and outputs.
INPUTS, OUTPUTS = 256, 400


@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["privacy.epsilon=0.5", "privacy.noise=shared"],
        ["lora.r=16", "lora.alpha=32.0", "lora.rslora=true"],
        ["strategy.name=fedavg", "training.schedule=constant"],
    ],
    ids=["own", "shared", "rank-stabilized", "without momentum"],
)
def test_an_adapted_layer_s_outputs_have_noise_of_the_stated_size(changes: list[str]) -> None:
    """Rounds of noise alone in B, at the default rate, then the layer peft would build."""
    recipe = parse_recipe("", [*NOISY, *changes])
    lora, rounds = recipe.lora, recipe.federation.num_rounds
    made, rng = make_strategy(recipe.strategy, ("all",)), np.random.default_rng(1)
    state = made.init(Adapter({"b": np.zeros((OUTPUTS, lora.r))}))
    for number in range(rounds):
        deviation = mean_noise(recipe) * learning_rate_at(recipe.training, number, rounds)
        noise = Adapter({"b": rng.normal(0, deviation, (OUTPUTS, lora.r))})
        state = made.aggregate(state, {"all": noise})
    scale = lora.alpha / (math.sqrt(lora.r) if lora.rslora else lora.r)
    bound = 1 / math.sqrt(INPUTS)  # peft's Kaiming-uniform A
    a = rng.uniform(-bound, bound, (lora.r, INPUTS))
    inputs = rng.normal(0, 1, (INPUTS, 50))
    outputs = scale * state.adapter["b"] @ a @ inputs
    # Two digits of the rate, the last rounds of momentum 0.9, one draw of A: 20 %.
    assert float(outputs.std()) == pytest.approx(OUTPUT_NOISE, rel=0.2)


@pytest.mark.parametrize("change", ["privacy.epsilon=200.0", "privacy.noise_multiplier=0.2"])
@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_little_noise_allows_no_longer_steps_than_were_tried(change: str, momentum: float) -> None:
    """A rate by noise alone grows without end, and would ruin the model that it trains."""
    strategy = ["strategy.name=fedavgm", f"strategy.momentum={momentum}"]
    training = parse_recipe("", [*CHAT, *strategy, change]).training
    assert training.learning_rate * CLIP / (1 - momentum) == pytest.approx(LONGEST_STEP)


def test_what_was_filled_in_is_stated_and_sent() -> None:
    recipe = parse_recipe("", CHAT)
    assert recipe.privacy.max_grad_norm == CLIP
    assert (recipe.strategy.name, recipe.strategy.momentum) == ("fedavgm", MOMENTUM)
    assert parse_document(sent_document(recipe)).digest() == recipe.digest()


@pytest.mark.parametrize(
    "change",
    [
        "training.learning_rate=1.0",
        "privacy.max_grad_norm=8.0",
        "privacy.enabled=false",
        "training.mode=local-steps",
        "strategy.name=median",
        "lora.train=both",
        "lora.method=ia3",
    ],
)
def test_other_studies_keep_their_defaults(change: str) -> None:
    recipe = parse_recipe("", [*CHAT, change])
    assert (recipe.training.learning_rate, recipe.privacy.max_grad_norm) == (1.0, 8.0)
