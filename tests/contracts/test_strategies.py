"""Every strategy keeps the contract, and its declared traits are true."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.adapter.tensors import Adapter
from cloister.errors import BadFileError, RecipeError, UsageError
from cloister.recipe import Recipe, parse_recipe, read_recipe
from cloister.server.run_directory import RunDirectory
from cloister.strategies.accumulator import Buffered, Streaming, accumulator_of
from cloister.strategies.aggregation_error import aggregation_error
from cloister.strategies.build import make_strategy
from cloister.strategies.config import FIELDS, StrategyConfig
from cloister.strategies.strategy import ServerState, Strategy
from cloister.testing import check_strategy
from cloister.testing import strategies as contract
from cloister.testing.strategies import SITES, START, A, B, model, same, updates

NAMES = list(FIELDS)
LINEAR = [
    name for name in NAMES if make_strategy(StrategyConfig(name=name), SITES).traits.is_linear
]
ROBUST = [name for name in NAMES if make_strategy(StrategyConfig(name=name), SITES).traits.survives]
AVERAGING = [
    name for name in NAMES if make_strategy(StrategyConfig(name=name), SITES).traits.averages
]
# Their steps follow the updates' signs rather than their lengths.
ADAPTIVE = {"fedadagrad", "fedadam", "fedadam-bc", "fedyogi"}


def strategy(name: str) -> Strategy:
    return make_strategy(StrategyConfig(name=name), SITES)  # type: ignore[arg-type]


def start(name: str) -> Adapter:
    return contract.start(strategy(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_keeps_the_contract(name: str) -> None:
    check_strategy(strategy(name), adaptive=name in ADAPTIVE)


@pytest.mark.parametrize("name", NAMES)
def test_one_site_is_a_round_where_one_is_enough(name: str) -> None:
    """What it sends is taken as it is; an adaptive rule takes its signs."""
    method, before = strategy(name), start(name)
    delta = updates(np.random.default_rng(14))["a"]
    if name in ROBUST:
        with pytest.raises(ValueError, match="1 updates given"):
            method.aggregate(method.init(before), {"a": delta})
        return
    assert method.traits.fewest == 1
    after = method.aggregate(method.init(before), {"a": delta}).adapter
    if name in ADAPTIVE:
        moved = after - before
        assert all((np.sign(moved[n]) == np.sign(delta[n])).all() for n in delta)
    else:
        assert (model(after) - model(before.replace(before.select(delta) + delta))).norm() < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_updates_are_held_where_something_needs_each(name: str) -> None:
    method = strategy(name)
    assert isinstance(accumulator_of(method, keep=True), Buffered)
    assert isinstance(accumulator_of(method, keep=False), Streaming) == method.traits.is_linear


@pytest.mark.parametrize("name", AVERAGING)
@pytest.mark.parametrize("travels", [(B,), (A,), (A, B)], ids=["B", "A", "both"])
def test_the_distance_from_the_mean_of_the_models_is_as_declared(
    name: str, travels: tuple[str, ...]
) -> None:
    """Where one factor travels, a method that averages is exact; FedEx and FLoRA always are."""
    method, before = strategy(name), start(name)
    came = {s: u.select(travels) for s, u in updates(np.random.default_rng(15)).items()}
    after = method.aggregate(method.init(before), came).adapter
    error = aggregation_error(before, came, after, {}, Adapter({}))
    assert error is not None
    if len(travels) == 1 or method.traits.keeps_residual:
        assert error <= 1e-6
    else:
        assert error > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_is_an_unbroken_one_bit_for_bit(name: str, tmp_path: Path) -> None:
    method, rng = strategy(name), np.random.default_rng(4)
    rounds = [updates(rng) for _ in range(5)]
    unbroken = method.init(start(name))
    for came in rounds:
        unbroken = method.aggregate(unbroken, came)
    run = RunDirectory.create(tmp_path / "run", Recipe())
    state = method.init(start(name))
    for came in rounds:
        run.save(method.aggregate(state, came), "digest")
        state = run.load(method.init(start(name)), "digest")  # as a new process would
    assert same(state, unbroken)
    files = [path.name for path in (run.path / "checkpoint").iterdir()]
    assert len(files) == 2 + len(state.memory)  # the last state and latest.json alone


def test_a_damaged_or_foreign_memory_is_refused(tmp_path: Path) -> None:
    method = strategy("fedadam")
    run = RunDirectory.create(tmp_path / "run", Recipe())
    run.save(method.aggregate(method.init(START), updates(np.random.default_rng(5))), "digest")
    with pytest.raises(UsageError, match="another recipe"):
        run.load(strategy("fedavg").init(START), "digest")
    moment = run.path / "checkpoint" / "round-0001.second"
    moment.write_bytes(moment.read_bytes()[:-1] + b"x")
    with pytest.raises(BadFileError, match="damaged"):
        run.load(method.init(START), "digest")


# How many of n sites may lie: fewer than half for the medians and the trimmed mean (Yin et al.
# 2018; Pillutla et al. 2022, section 3), n ≥ 2 f + 3 for Krum (Blanchard et al. 2017), fewer than
# half of lengths for the gate.
BREAKDOWN = {
    "median": lambda n: (n - 1) // 2,
    "trimmed-mean": lambda n: (n - 1) // 2,
    "geometric-median": lambda n: (n - 1) // 2,
    "krum": lambda n: (n - 3) // 2,
    "multi-krum": lambda n: (n - 3) // 2,
    "norm-gate": lambda n: (n - 1) // 2,
}
ATTACKS = {
    "sign flip": lambda center, rng: center.scale(-1.0),
    "× 1000": lambda center, rng: center.scale(1e3),
    "× -1000": lambda center, rng: center.scale(-1e3),
    "anywhere": lambda center, rng: updates(rng)["a"].scale(1e5),
    "the largest float": lambda center, rng: Adapter(
        {name: np.full(array.shape, 1e37) for name, array in center.items()}
    ),
}


def test_every_robust_rule_has_its_breakdown_point() -> None:
    assert set(BREAKDOWN) == set(ROBUST)


def attacked(name: str, n: int, liars: int, attack: str, seed: int) -> float:
    """How far a round ends from the honest sites' middle, over how far they are from it."""
    rng, sites = np.random.default_rng(seed), tuple(f"s{number:02d}" for number in range(n))
    declared = {"byzantine": BREAKDOWN[name](n)} if "byzantine" in FIELDS[name] else {}
    method = make_strategy(StrategyConfig(name=name, **declared), sites)  # type: ignore[arg-type]
    center = updates(rng)["a"]
    came = {s: center + u.scale(0.1) for s, u in updates(rng, sites[liars:]).items()}
    reach = max((update - center).norm() for update in came.values())
    came |= dict.fromkeys(sites[:liars], ATTACKS[attack](center, rng))
    moved = method.aggregate(method.init(START), came).adapter - START
    return (moved - center).norm() / reach


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("n", [3, 5, 7, 10])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_robust_rule_holds_up_to_its_breakdown_point(
    name: str, attack: str, n: int, seed: int
) -> None:
    """The step stays within the honest sites' reach."""
    liars = BREAKDOWN[name](n)
    if liars < 1 or (name, attack) == ("norm-gate", "sign flip"):  # as long as an honest update
        return
    assert attacked(name, n, liars, attack, seed) <= 2


@pytest.mark.parametrize("name", [name for name in ROBUST if name != "norm-gate"])
def test_beyond_it_some_attack_decides(name: str) -> None:
    """So that the test above can fail."""
    n = 7
    assert attacked(name, n, BREAKDOWN[name](n) + 2, "× 1000", 0) > 100


@pytest.mark.parametrize("attack", ATTACKS)
def test_one_liar_of_ten_decides_a_mean(attack: str) -> None:
    came = updates(np.random.default_rng(0), tuple(f"s{number:02d}" for number in range(9)))
    center = updates(np.random.default_rng(1))["a"]
    came = {s: center + u.scale(0.1) for s, u in came.items()}
    reach = max((update - center).norm() for update in came.values())
    came["liar"] = ATTACKS[attack](center, np.random.default_rng(2))
    moved = strategy("fedavg").aggregate(ServerState(START), came).adapter - START
    assert (moved - center).norm() > (0.1 if attack == "sign flip" else 3) * reach


@pytest.mark.parametrize("name", NAMES)
def test_methods_with_weights_follow_them_and_no_other_has_any(name: str) -> None:
    """A site that counts three times is as three sites."""
    assert strategy(name).traits.takes_weights == ("weights" in FIELDS[name])
    if not strategy(name).traits.takes_weights:
        with pytest.raises(UsageError, match="not a field"):
            StrategyConfig(name=name, weights=(3.0, 1.0))  # type: ignore[arg-type]
        return
    came, before = updates(np.random.default_rng(16), ("a", "b")), start(name)
    heavy = make_strategy(StrategyConfig(name=name, weights=(3.0, 1.0)), ("a", "b"))  # type: ignore[arg-type]
    often = {"a": came["a"], "a2": came["a"], "a3": came["a"], "b": came["b"]}
    one = heavy.aggregate(heavy.init(before), came).adapter
    other = strategy(name).aggregate(strategy(name).init(before), often).adapter
    assert (model(one) - model(other)).norm() < 1e-4
    flat = strategy(name).aggregate(strategy(name).init(before), came).adapter
    assert (model(one) - model(flat)).norm() > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_takes_what_a_method_trains_and_nothing_else(name: str) -> None:
    """The factors and ranks that are declared, put to the recipe's own rules."""
    traits, factors = strategy(name).traits, ("both", "b", "b-moving", "b-kept", "alternate")
    fixed = [
        "data.sites=7",
        "training.mode=local-steps",
        "training.local_steps=2",
        f"strategy.name={name}",
    ]
    fixed += ["lora.residual=8"] if traits.keeps_residual else []
    for factor in factors:
        goes = factor in traits.trains if traits.trains else factor != "b-moving"
        try:
            parse_recipe("", [*fixed, f"lora.train={factor}"])
            taken = True
        except RecipeError as error:
            taken = not any(problem.startswith("lora.train") for problem in error.problems)
        assert taken == goes, factor
    train = traits.trains[0] if traits.trains else "both"
    mixed = [*fixed, f"lora.train={train}", "lora.ranks=[1, 1, 2, 2, 4, 4, 4]"]
    if traits.mixes_ranks:
        assert parse_recipe("", mixed).lora.ranks
    else:
        with pytest.raises(RecipeError, match=r"lora\.ranks"):
            parse_recipe("", mixed)


def test_server_optimizers_follow_the_papers() -> None:
    """Two rounds of one coordinate, by hand."""
    start = Adapter({"x": np.array([0.0])})
    rounds = [{"a": Adapter({"x": np.array([value])})} for value in (1.0, -0.5)]

    def ended(**fields: object) -> float:
        method = make_strategy(StrategyConfig(**fields), ("a",))  # type: ignore[arg-type]
        state = method.init(start)
        for came in rounds:
            state = method.aggregate(state, came)
        return float(state.adapter["x"][0])

    assert ended(name="fedavgm", momentum=0.5, learning_rate=2.0) == pytest.approx(2.0)
    tau, rate, b1, b2 = 0.1, 0.3, 0.6, 0.8
    for name in ("fedadagrad", "fedadam", "fedyogi"):
        x, m, v = 0.0, 0.0, tau**2
        for mean in (1.0, -0.5):
            m = b1 * m + (1 - b1) * mean
            if name == "fedadagrad":
                v += mean**2
            elif name == "fedadam":
                v = b2 * v + (1 - b2) * mean**2
            else:
                v -= (1 - b2) * mean**2 * np.sign(v - mean**2)
            x += rate * m / (v**0.5 + tau)
        second = {} if name == "fedadagrad" else {"second_momentum": b2}
        found = ended(name=name, momentum=b1, learning_rate=rate, adaptivity=tau, **second)
        assert found == pytest.approx(x, rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"name": "fedavg", "momentum": 0.5}, "not a field of fedavg"),
        ({"name": "median", "weights": (1.0,)}, "not a field of median"),
        ({"name": "krum", "selected": 2}, "not a field of krum"),
        ({"name": "fedadagrad", "second_momentum": 0.0}, "not a field of fedadagrad"),
        ({"name": "fedadam", "learning_rate": -1.0}, "from 1e-12"),
        ({"name": "fedavgm", "momentum": 1.0}, "below 1"),
        ({"name": "trimmed-mean", "byzantine": 0}, "from 1 to"),
        ({"name": "norm-gate", "multiple": 0.5}, "from 1 to"),
        ({"name": "fedavg", "multiple": 2.0}, "not a field of fedavg"),
        (
            {"name": "fedavg", "weights": (1e308,)},
            r"weights: 1e\+308 given as value 1",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        StrategyConfig(**fields)  # type: ignore[arg-type]


def test_a_recipe_needs_as_many_sites_as_its_method() -> None:
    with pytest.raises(RecipeError, match="krum needs updates of at least 5 sites"):
        read_recipe(None, ["strategy.name=krum"])
    with pytest.raises(RecipeError, match=r"federation\.min_sites: 2 given; median needs"):
        read_recipe(None, ["strategy.name=median", "federation.min_sites=2"])
    assert read_recipe(None, ["strategy.name=median"]).strategy.name == "median"
