"""What is delivered: averages of a study's adapters, and adapters without the noise's part."""

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
from cloister.strategies.config import StrategyConfig
from cloister.strategies.delivery import Delivery, denoised
from cloister.strategies.denoising import shrink_singular_values, shrunk
from cloister.strategies.strategy import ServerState, Strategy
from cloister.testing.strategies import SITES, START, same, updates

ROUNDS = 7
SECTIONS = {
    "tail": {"averaging": "tail", "averaging_share": 0.4},
    "ema": {"averaging": "ema", "averaging_decay": 0.7},
    "denoised": {"denoising": "singular-values"},
    "denoised tail": {"averaging": "tail", "denoising": "singular-values"},
}


def section(name: str, **fields: object) -> StrategyConfig:
    return StrategyConfig(name=name, **fields)  # type: ignore[arg-type]


def parts(config: StrategyConfig, rounds: int = ROUNDS) -> tuple[Strategy, Delivery]:
    return make_strategy(config, SITES), make_delivery(config, START, rounds)


def closed(
    strategy: Strategy, delivery: Delivery, state: ServerState, came: dict[str, Adapter]
) -> ServerState:
    trained = next(iter(came.values())).keys()
    after = strategy.aggregate(delivery.inner(state), came)
    return delivery.after(state, after, state.noise_variance, trained)


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
    state = delivery.after(state, ServerState(one, 1), 0.0, ["w"])
    state = delivery.skip(delivery.skip(state))
    state = delivery.after(state, ServerState(one.scale(5.0), 4), 0.0, ["w"])
    assert delivery.adapter(state)["w"][0] == pytest.approx((1 + 1 + 1 + 5) / 4)


@pytest.mark.parametrize("fields", SECTIONS.values(), ids=SECTIONS.keys())
def test_a_resumed_study_delivers_what_an_unbroken_one_does(
    fields: dict[str, object], tmp_path: Path
) -> None:
    strategy, delivery = parts(section("fedavgm", momentum=0.5, **fields))
    rng = np.random.default_rng(3)
    run = RunDirectory.create(tmp_path / "run", Recipe())
    unbroken = broken = delivery.begin(strategy.init(START))
    for number in range(ROUNDS):
        came, noise = updates(rng), 0.01 * (number + 1)
        unbroken = closed(strategy, delivery, _with(unbroken, noise), came)
        run.save(closed(strategy, delivery, _with(broken, noise), came), "digest")
        broken = run.load(delivery.begin(strategy.init(START)), "digest")
    assert same(unbroken, broken)
    assert same(delivery.view(unbroken), delivery.view(broken))


def _with(state: ServerState, variance: float) -> ServerState:
    return ServerState(state.adapter, state.round, state.memory, variance)


@pytest.mark.parametrize("method", ["fedavg", "fedavgm"])
@pytest.mark.parametrize("averaging", [None, "ema", "tail"])
def test_the_noise_in_what_is_delivered_has_the_variance_that_is_tracked(
    method: str, averaging: str | None
) -> None:
    """Rounds of noise alone, each of its own size; the head rests in every third."""
    size = 20_000  # an estimate's relative deviation is √(2 / 20,000) = 1 %
    start = Adapter({"a": np.zeros((100, 200)), "head": np.zeros(size)})
    config = section(method, averaging=averaging, denoising="singular-values")
    strategy, delivery = make_strategy(config, ()), make_delivery(config, start, ROUNDS)
    rng, state = np.random.default_rng(4), delivery.begin(strategy.init(start))
    for number in range(ROUNDS):
        names = ["a"] if number % 3 == 2 else ["a", "head"]
        deviation = 0.1 * (1 + number % 4)
        noise = Adapter({n: rng.normal(0, deviation, start[n].shape) for n in names})
        state = closed(strategy, delivery, _with(state, deviation**2), {"s": noise})
    raw = Delivery(delivery.averaging).adapter(state)
    tracked = state.memory["noise_adapter" if averaging is None else "average_noise"]
    for name in start:
        known = float(np.linalg.norm(tracked[name]))
        found = float(raw[name].std())
        assert found == pytest.approx(known, rel=0.04)
        assert found != pytest.approx(known * math.sqrt(2 / 3), rel=0.04)
    # And nothing of noise alone is left in a matrix; a vector has no singular values to shrink.
    after = delivery.adapter(state)
    assert np.linalg.norm(after["a"]) < 0.05 * np.linalg.norm(raw["a"])
    assert after["head"].tobytes() == raw["head"].tobytes()


def naive_shrunk(singular: float, m: int, n: int, deviation: float) -> float:
    """One value by Gavish & Donoho's equation 7, in Python's floats."""
    beta, y = min(m, n) / max(m, n), singular / (deviation * math.sqrt(max(m, n)))
    if y <= 1 + math.sqrt(beta):
        return 0.0
    return deviation * math.sqrt(max(m, n)) * math.sqrt((y * y - beta - 1) ** 2 - 4 * beta) / y


def test_singular_values_are_shrunk_by_the_papers_formula() -> None:
    rng = np.random.default_rng(5)
    for m, n, deviation in ((3, 40, 0.2), (40, 3, 2.0), (1, 9, 1.0), (20, 20, 0.5)):
        values = np.sort(rng.uniform(0, 4 * deviation * math.sqrt(max(m, n)), min(m, n)))[::-1]
        wanted = [naive_shrunk(float(v), m, n, deviation) for v in values]
        assert np.allclose(shrunk(values, (m, n), deviation), wanted, rtol=1e-9)


def test_a_matrix_of_low_rank_is_found_in_noise_of_known_size() -> None:
    rng = np.random.default_rng(6)
    signal = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 200))
    noisy = signal + rng.normal(size=signal.shape)
    error = np.linalg.norm(shrink_singular_values(noisy, 1.0) - signal)
    # Two of 60 directions are kept, so of the noise about √(2 (60 + 200) / 12,000) = 0.2 is left.
    assert error < 0.35 * np.linalg.norm(noisy - signal)
    for wrong in (1 / 3, 3.0):
        assert np.linalg.norm(shrink_singular_values(noisy, wrong) - signal) > 1.3 * error


def test_without_noise_nothing_is_shrunk_bit_for_bit() -> None:
    strategy, delivery = parts(section("fedavg", denoising="singular-values"))
    state = closed(
        strategy, delivery, delivery.begin(strategy.init(START)), updates(np.random.default_rng(7))
    )
    assert same(delivery.view(state), state)
    assert same(ServerState(denoised(state.adapter, START, {})), ServerState(state.adapter))


def test_a_study_that_averages_nothing_has_the_memory_and_the_digest_that_it_had() -> None:
    assert Delivery().begin(ServerState(START)).memory == {}
    assert "averaging" not in Recipe().document()
    assert "averaging" not in Recipe().to_toml()


def test_a_strategy_whose_memory_is_called_average_keeps_it() -> None:
    memory = {"average": START, "noise_level": START.zeros()}
    state = ServerState(START, 0, memory)
    assert Delivery().inner(state).memory == memory
    assert Delivery().after(state, ServerState(START, 1, memory), 0.0, ["head.w"]).memory == memory


def test_what_is_delivered_is_stated_whole_and_read_again(tmp_path: Path) -> None:
    given = ["strategy.averaging=ema", "strategy.denoising=singular-values"]
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
        ([*LOCAL, "strategy.denoising=singular-values"], "strategy.denoising: needs to know"),
        ([*LOCAL, "strategy.name=fedadam-bc"], "strategy.name: needs to know the noise"),
        (
            ["strategy.name=fedadam", "strategy.denoising=singular-values"],
            "strategy.denoising: fedadam does not add up",
        ),
        (
            ["strategy.name=fedsvd", "lora.train=b-moving", "strategy.averaging=tail"],
            "strategy.averaging: fedsvd writes products in another basis",
        ),
        (
            [*LOCAL, "lora.train=b-kept", "strategy.averaging=tail"],
            "each site's own part belongs to the last",
        ),
        (
            ["strategy.denoising=singular-values", "federation.proximal_start=0.1"],
            "strategy.denoising: federation.proximal_start takes a part",
        ),
        (
            ["strategy.denoising=singular-values", *CENTRAL],
            "strategy.denoising: knows the noise of the sites alone",
        ),
    ],
)
def test_what_cannot_be_averaged_or_denoised_is_refused(changes: list[str], word: str) -> None:
    with pytest.raises(RecipeError, match=word):
        parse_recipe("", changes)


def test_an_option_of_another_average_is_refused() -> None:
    with pytest.raises(UsageError, match="averaging_decay: given, but averaging is tail"):
        section("fedavg", averaging="tail", averaging_decay=0.5)
    with pytest.raises(UsageError, match="averaging_share: given, but averaging is absent"):
        section("fedavg", averaging_share=0.5)
