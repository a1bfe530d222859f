"""Checks the rules that every strategy must keep.

The adapter is a head and one LoRA pair, with a residual pair where the strategy keeps one; updates
are drawn from a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, encode
from cloister.errors import CloisterError
from cloister.strategies.accumulator import Streaming, accumulator_of
from cloister.strategies.plugins import make_plugin, named
from cloister.strategies.strategy import MeanStrategy, ServerState, Strategy

A, B = "m.lora_A.weight", "m.lora_B.weight"
RESIDUAL = ("m.lora_B.residual.weight", "m.lora_A.residual.weight")
START = Adapter(
    {
        "head.w": np.array([[1.0, 2.0], [3.0, -1.0]]),
        A: np.random.default_rng(10).normal(size=(2, 4)),
        B: np.random.default_rng(11).normal(size=(3, 2)),
    }
)
# At least as many as any strategy of this package needs at its defaults.
SITES = ("a", "b", "c", "d", "e", "f", "g")
SEEDS = range(5)
# Sums of seven float32 values of size 1 in another order, and products of rank 2 through an SVD,
# differ by a few times 2⁻²⁴; a hidden factor or a lost site moves them by a tenth and more.
CLOSE = 1e-5


def check_strategy(strategy: Strategy | type[Strategy], *, adaptive: bool = False) -> None:
    """Checks a strategy against every rule, with the options of the object or with the defaults.

    Args:
        strategy: A class, or an object of one.
        adaptive: Whether its steps follow the signs of the updates and not their lengths, as
            Adam's do. Only an adaptive strategy may move by something other than Δ when all sites
            send Δ: see `cloister.strategies.strategy.Strategy` on a default rate of 1.

    Raises:
        AssertionError: It breaks a rule; the message names the rule.
        CloisterError: It cannot be used in a recipe: its options cannot be written down, or its
            traits are invalid.
    """
    method = _method(strategy)
    for check in CHECKS:
        check(method)
    (check_signs if adaptive else check_equal_updates)(method)


def _method(strategy: Strategy | type[Strategy]) -> Strategy:
    """Returns the object that a study would run: a plug-in with its checks, or a built-in one."""
    kind = strategy if isinstance(strategy, type) else type(strategy)
    if kind.__module__.startswith("cloister.strategies."):
        return cast(Strategy, strategy)
    return make_plugin(named(strategy), {})


def start(method: Strategy) -> Adapter:
    """Returns the adapter with which the checks start a strategy."""
    if not method.traits.keeps_residual:
        return START
    rng = np.random.default_rng(12)
    left, right = rng.normal(size=(3, 3)), rng.normal(size=(3, 4))
    return Adapter({**START, **dict(zip(RESIDUAL, (left, right), strict=True))})


def model(adapter: Adapter) -> Adapter:
    """Returns what an adapter adds to the base: its head, and the product of each pair."""
    product = adapter[B] @ adapter[A]
    if RESIDUAL[0] in adapter:
        product = product + adapter[RESIDUAL[0]] @ adapter[RESIDUAL[1]]
    return Adapter({"head.w": adapter["head.w"], "m": product})


def updates(rng: np.random.Generator, sites: tuple[str, ...] = SITES) -> dict[str, Adapter]:
    """Draws an update of size 1 for each site."""
    return {
        site: Adapter({name: rng.normal(size=array.shape) for name, array in START.items()})
        for site in sites
    }


def same(one: ServerState, other: ServerState) -> bool:
    """Whether two states are equal bit for bit."""
    if one.memory.keys() != other.memory.keys() or one.round != other.round:
        return False
    parts = [(one.adapter, other.adapter), *((one.memory[n], other.memory[n]) for n in one.memory)]
    return all(a[name].tobytes() == b[name].tobytes() for a, b in parts for name in a)


def check_order(method: Strategy) -> None:
    """Checks that the order in which updates arrive changes no bit: sites answer in any order."""
    state = method.init(start(method))
    for seed in SEEDS:
        came = updates(np.random.default_rng(seed))
        late = dict(reversed(list(came.items())))
        assert same(method.aggregate(state, came), method.aggregate(state, late)), (
            "the order in which updates arrive changes the result; take sites in order of their "
            "names, or use weighted_mean"
        )


def check_equal_updates(method: Strategy) -> None:
    """Checks that equal updates count as one update: the default learning rate is 1."""
    before, delta = start(method), updates(np.random.default_rng(1))["a"]
    after = method.aggregate(method.init(before), dict.fromkeys(SITES, delta)).adapter
    wanted = before.replace(before.select(delta) + delta)
    assert (model(after) - model(wanted)).norm() < CLOSE, (
        "all sites sent the same update, but the adapter did not move by it; with its defaults a "
        "strategy's learning rate must be 1 (see Strategy), or the strategy is adaptive: pass "
        "adaptive=True"
    )


def check_signs(method: Strategy) -> None:
    """Checks that an adaptive strategy moves every value in the direction of all sites."""
    before, delta = start(method), updates(np.random.default_rng(1))["a"]
    moved = method.aggregate(method.init(before), dict.fromkeys(SITES, delta)).adapter - before
    assert all((np.sign(moved[n]) == np.sign(delta[n])).all() for n in delta), (
        "all sites sent the same update, but the adapter moved in another direction"
    )


def check_zero(method: Strategy) -> None:
    """Checks that zero updates move nothing and count as a round."""
    before = start(method)
    after = method.aggregate(method.init(before), dict.fromkeys(SITES, START.zeros()))
    traits = method.traits
    rewrites = traits.keeps_residual or traits.mixes_ranks or "b-moving" in traits.trains
    moved = (model(after.adapter) - model(before)).norm()
    assert moved < CLOSE if rewrites else moved == 0.0, "zero updates moved the adapter"
    assert after.round == 1, f"one round was closed, but round is {after.round} instead of 1"


def check_fewest(method: Strategy) -> None:
    """Checks that `traits.fewest` updates close a round and fewer are refused."""
    state, fewest = method.init(start(method)), method.traits.fewest
    assert 1 <= fewest <= len(SITES), f"traits.fewest is {fewest}; 1 to {len(SITES)} are tried"
    came = updates(np.random.default_rng(2))
    assert method.aggregate(state, {s: came[s] for s in SITES[:fewest]}).round == 1
    try:
        method.aggregate(state, {s: came[s] for s in SITES[: fewest - 1]})
    except (ValueError, CloisterError):
        return
    raise AssertionError(f"{fewest - 1} updates were accepted, but traits.fewest is {fewest}")


def check_travel(method: Strategy) -> None:
    """Checks that tensors that were not sent in a round stay, and so does their memory."""
    rng = np.random.default_rng(3)
    first = method.aggregate(method.init(start(method)), updates(rng))
    part = {site: update.select(["head.w"]) for site, update in updates(rng).items()}
    after = method.aggregate(first, part)
    stayed = [tensor for tensor in first.adapter if tensor != "head.w"]
    assert same(
        replace(after, adapter=after.adapter.select(stayed), memory={}),
        replace(first, adapter=first.adapter.select(stayed), memory={}, round=2),
    ), "a tensor moved in a round in which it was not sent"
    for kept in first.memory:
        assert after.memory[kept][B].tobytes() == first.memory[kept][B].tobytes(), (
            f"memory {kept} of a tensor moved in a round in which it was not sent"
        )


def check_resume(method: Strategy) -> None:
    """Checks that a resumed run has the same bits as an unbroken one: all state is in the state."""
    rng = np.random.default_rng(4)
    unbroken = broken = method.init(start(method))
    for came in [updates(rng) for _ in range(4)]:
        unbroken = method.aggregate(unbroken, came)
        broken = _stored(method.aggregate(broken, came))
    assert same(unbroken, broken), (
        "a run that was saved and loaded after each round gives another result; keep nothing on "
        "the object: the next round may depend on ServerState only"
    )
    again = method.aggregate(_stored(unbroken), came)
    assert same(again, method.aggregate(unbroken, came)), "the same round gave two results"


def _stored(state: ServerState) -> ServerState:
    """Returns a state after it was saved in a run's folder and loaded."""
    shapes = state.adapter.shapes
    memory = {name: decode(encode(part), shapes) for name, part in state.memory.items()}
    return ServerState(decode(encode(state.adapter), shapes), state.round, memory)


def check_linear(method: Strategy) -> None:
    """Checks that a linear strategy needs only the mean, computed at once or as a stream."""
    if not method.traits.is_linear:
        return
    linear, state = cast(MeanStrategy, method), method.init(start(method))
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        came = {s: u.scale(10.0 ** int(rng.integers(-6, 6))) for s, u in updates(rng).items()}
        summed: Any = accumulator_of(linear, keep=False)
        assert isinstance(summed, Streaming)
        for site in rng.permutation(list(came)):
            summed.add(site, came[site])
        assert same(summed.close(state), linear.aggregate(state, came)), (
            "traits.is_linear is true, but its step with the mean differs from its step with the "
            "updates"
        )
    came = updates(np.random.default_rng(6), ("a", "b"))
    mean = (came["a"] + came["b"]).scale(0.5)
    both = linear.aggregate(state, came).adapter
    one = linear.aggregate(state, {"a": mean, "b": mean}).adapter
    assert (model(both) - model(one)).norm() < CLOSE, (
        "traits.is_linear is true, but it is not linear"
    )
    assert method.traits.survives == 0, (
        "one site can move a mean anywhere: traits.survives must be 0"
    )


def check_survives(method: Strategy) -> None:
    """Checks that `traits.survives` sites that send anything cannot control the result."""
    traits = method.traits
    if not traits.survives:
        return
    assert traits.fewest > 2 * traits.survives, (
        f"traits.survives is {traits.survives} with traits.fewest = {traits.fewest}; no rule can "
        "survive half of the sites"
    )
    center = updates(np.random.default_rng(7))["a"]
    sites = SITES[: traits.fewest]
    near = updates(np.random.default_rng(8), sites)
    came = {site: center + update.scale(0.1) for site, update in near.items()}
    reach = max((update - center).norm() for update in came.values())
    for factor in (1e3, -1e3, 1e6):
        attacked: Mapping[str, Adapter] = {
            **came,
            **{site: center.scale(factor) for site in sites[: traits.survives]},
        }
        moved = method.aggregate(method.init(START), attacked).adapter - START
        assert (moved - center).norm() <= 2 * reach, (
            f"{traits.survives} sites sent {factor:g} times an update and controlled the result, "
            f"but traits.survives is {traits.survives}"
        )


CHECKS: tuple[Callable[[Strategy], None], ...] = (
    check_order,
    check_zero,
    check_fewest,
    check_travel,
    check_resume,
    check_linear,
    check_survives,
)
