"""What is delivered: averages of a study's adapters."""

import math
from pathlib import Path

import numpy as np
import pytest

from cloister.adapter.tensors import Adapter
from cloister.errors import RecipeError, UsageError
from cloister.recipe import Recipe, parse_recipe, read_run_recipe
from cloister.server.run_directory import RunDirectory
from cloister.strategies.averaging import Averaging
from cloister.strategies.build import make_delivery, make_strategy
from cloister.strategies.chosen_adapter import Delivery
from cloister.strategies.config import StrategyConfig
from cloister.strategies.strategy import ServerState, Strategy
from cloister.testing.strategies import SITES, START, same, updates

ROUNDS = 7
SECTIONS = {
    "tail": {"averaging": "tail", "averaging_share": 0.4},
    "ema": {"averaging": "ema", "averaging_decay": 0.7},
}


def section(name: str, **fields: object) -> StrategyConfig:
    return StrategyConfig(name=name, **fields)  # type: ignore[arg-type]


def parts(config: StrategyConfig, rounds: int = ROUNDS) -> tuple[Strategy, Delivery]:
    return make_strategy(config, SITES), make_delivery(config, rounds)


def closed(
    strategy: Strategy, delivery: Delivery, state: ServerState, came: dict[str, Adapter]
) -> ServerState:
    return delivery.after(state, strategy.aggregate(delivery.inner(state), came))


def naive_average(section: StrategyConfig, iterates: list[Adapter]) -> dict[str, np.ndarray]:
    """The slow twin: all adapters are kept, and weighted by the definition."""
    if section.averaging == "tail":
        last = iterates[-math.ceil(section.averaging_share * ROUNDS) :]  # type: ignore[operator]
        factors = [1 / len(last)] * len(last)
    else:
        last, decay = iterates, section.averaging_decay
        factors = [decay ** (len(last) - 1 - t) for t in range(len(last))]  # type: ignore[operator]
        factors = [factor / sum(factors) for factor in factors]
    return {
        name: np.sum([f * x[name].astype(float) for f, x in zip(factors, last, strict=True)], 0)
        for name in START
    }


@pytest.mark.parametrize("method", ["fedavg", "fedavgm", "fedadam", "median"])
@pytest.mark.parametrize("kind", ["tail", "ema"])
def test_an_average_is_that_of_its_definition_and_training_goes_on_from_the_last(
    method: str, kind: str
) -> None:
    config = section(method, **SECTIONS[kind])
    strategy, delivery = parts(config)
    plain = strategy.init(START)
    state, iterates = delivery.begin(plain), []
    rng = np.random.default_rng(1)
    for _ in range(ROUNDS):
        came = updates(rng)
        plain = strategy.aggregate(plain, came)
        state = closed(strategy, delivery, state, came)
        iterates.append(plain.adapter)
        assert same(
            ServerState(state.adapter, state.round), ServerState(plain.adapter, plain.round)
        )
    wanted = naive_average(config, iterates)
    found = delivery.adapter(state)
    assert all(np.allclose(found[name], wanted[name], atol=1e-5) for name in START)
    assert (found - state.adapter).norm() > 0.1


def test_before_the_tail_begins_the_last_adapter_is_delivered() -> None:
    """So a study that ends early delivers something trained."""
    strategy, delivery = parts(section("fedavg", averaging="tail", averaging_share=0.3))
    state = closed(
        strategy, delivery, delivery.begin(strategy.init(START)), updates(np.random.default_rng(2))
    )
    assert delivery.adapter(state)["head.w"].tobytes() == state.adapter["head.w"].tobytes()


@pytest.mark.parametrize("kind", ["tail", "ema"])
def test_equal_adapters_have_themselves_as_average_bit_for_bit(kind: str) -> None:
    _, delivery = parts(section("fedavg", **SECTIONS[kind]))
    state = delivery.begin(ServerState(START))
    for _ in range(ROUNDS):
        state = delivery.skip(state)
    assert same(delivery.view(state), ServerState(START, ROUNDS, state.memory))


def test_a_round_without_an_update_counts_once_more_for_the_adapter_that_stayed() -> None:
    averaging = Averaging(kind="tail", decay=0.9, share=1.0, num_rounds=4)
    delivery = Delivery(averaging)
    one = Adapter({"w": np.ones(1)})
    state = delivery.begin(ServerState(one.zeros()))
    state = delivery.after(state, ServerState(one, 1))
    state = delivery.after(state, ServerState(one.scale(3.0), 2))
    state = delivery.skip(state)
    state = delivery.after(state, ServerState(one.scale(5.0), 4))
    assert delivery.adapter(state)["w"][0] == pytest.approx((1 + 3 + 3 + 5) / 4)


@pytest.mark.parametrize("fields", SECTIONS.values(), ids=SECTIONS.keys())
def test_a_resumed_study_delivers_what_an_unbroken_one_does(
    fields: dict[str, object], tmp_path: Path
) -> None:
    strategy, delivery = parts(section("fedavgm", momentum=0.5, **fields))
    rng = np.random.default_rng(3)
    run = RunDirectory.create(tmp_path / "run", Recipe())
    unbroken = broken = delivery.begin(strategy.init(START))
    for _ in range(ROUNDS):
        came = updates(rng)
        unbroken = closed(strategy, delivery, unbroken, came)
        run.save(closed(strategy, delivery, broken, came), "digest")
        broken = run.load(delivery.begin(strategy.init(START)), "digest")
    assert same(unbroken, broken)
    assert same(delivery.view(unbroken), delivery.view(broken))


def test_a_study_that_averages_nothing_has_the_memory_and_the_digest_that_it_had() -> None:
    assert Delivery().begin(ServerState(START)).memory == {}
    assert "averaging" not in Recipe().document()
    assert "averaging" not in Recipe().to_toml()


def test_a_strategy_whose_memory_is_called_average_keeps_it() -> None:
    memory = {"average": START}
    state = ServerState(START, 0, memory)
    assert Delivery().inner(state).memory == memory
    assert Delivery().after(state, ServerState(START, 1, memory)).memory == memory


def test_what_is_delivered_is_stated_whole_and_read_again(tmp_path: Path) -> None:
    given = ["strategy.averaging=ema"]
    recipe = parse_recipe("", given)
    assert '"averaging_decay":0.9' in recipe.document()
    assert recipe.digest() != Recipe().digest()
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    assert read_run_recipe(tmp_path / "recipe.toml").digest() == recipe.digest()


CENTRAL = ["privacy.site_epsilon=8.0", "privacy.site_noise_forced=true"]
LOCAL = ["training.mode=local-steps", "training.local_steps=2"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ([*LOCAL, "strategy.name=fedadam-bc"], "strategy.name: fedadam-bc needs to know the noise"),
        (["strategy.name=fedadam-bc", *CENTRAL], "fedadam-bc knows the noise of the sites alone"),
        (
            ["strategy.name=fedsvd", "lora.train=b-moving", "strategy.averaging=tail"],
            "strategy.averaging: fedsvd writes products in another basis",
        ),
        (
            [*LOCAL, "lora.train=b-kept", "strategy.averaging=tail"],
            "each site's own part belongs to the last",
        ),
    ],
)
def test_what_cannot_be_averaged_or_known_is_refused(changes: list[str], word: str) -> None:
    with pytest.raises(RecipeError, match=word):
        parse_recipe("", changes)


def test_an_option_of_another_average_is_refused() -> None:
    with pytest.raises(UsageError, match="averaging_decay: given, but averaging is tail"):
        section("fedavg", averaging="tail", averaging_decay=0.5)
    with pytest.raises(UsageError, match="averaging_share: given, but averaging is absent"):
        section("fedavg", averaging_share=0.5)
