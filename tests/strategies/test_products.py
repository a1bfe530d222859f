"""Products of factors: their norms, sums and truncations, against dense matrices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.adapter.factor_pairs import Pair, cut, cut_shapes, filled, find_pairs
from cloister.adapter.tensors import Adapter
from cloister.strategies.aggregation_error import aggregation_error
from cloister.strategies.fedavg import FedAvg
from cloister.strategies.fedex import FedEx
from cloister.strategies.fedsvd import FedSvd
from cloister.strategies.flexlora import FlexLora
from cloister.strategies.flora import Flora
from cloister.strategies.low_rank import Product, total
from cloister.strategies.strategy import ServerState

Q, V = "l.query.lora_{}.weight", "l.value.lora_{}.weight"
PAIRS = tuple(Pair(name.format("B"), name.format("A")) for name in (Q, V))
SITES = ("a", "b", "c")


def adapter(rng: np.random.Generator, *, residual: int = 0, scale: float = 1.0) -> Adapter:
    """Two pairs of rank 2, of modules [6, 5] and [4, 5], and a head."""
    tensors = {"head.weight": rng.normal(size=(3, 5))}
    for pair, outputs in zip(PAIRS, (6, 4), strict=True):
        tensors |= {pair.left: rng.normal(size=(outputs, 2)), pair.right: rng.normal(size=(2, 5))}
        if residual:
            left, right = pair.residual
            tensors |= {
                left: rng.normal(size=(outputs, residual)) * 0.1,
                right: rng.normal(size=(residual, 5)) * 0.1,
            }
    return Adapter({name: array * scale for name, array in tensors.items()})


def updates(rng: np.random.Generator) -> dict[str, Adapter]:
    return {site: adapter(rng, scale=0.3) for site in SITES}


def dense(pair: Pair, held: Adapter) -> np.ndarray:
    """All that a module adds to its base, multiplied out."""
    product = held[pair.left].astype(np.float64) @ held[pair.right].astype(np.float64)
    if pair.residual.left in held:
        left, right = (held[name].astype(np.float64) for name in pair.residual)
        product = product + left @ right
    return product


def dense_error(
    before: Adapter, came: dict[str, Adapter], after: Adapter, weights: dict[str, float]
) -> float:
    whole = sum(weights.get(site, 1.0) for site in came)
    distance = size = 0.0
    for pair in PAIRS:
        mean = sum(
            weights.get(site, 1.0)
            / whole
            * dense(pair, before.replace(before.select(update) + update))
            for site, update in came.items()
        )
        distance += float(np.square(mean - dense(pair, after)).sum())
        size += float(np.square(mean).sum())
    return float(np.sqrt(distance / size))


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 7), st.integers(1, 7))
def test_norms_sums_and_truncations_equal_dense_ones(
    seed: int, rank: int, outputs: int, inputs: int
) -> None:
    rng = np.random.default_rng(seed)
    one, two = (
        Product(rng.normal(size=(outputs, rank)), rng.normal(size=(rank, inputs))) for _ in "12"
    )
    both = one.left @ one.right - 2.0 * two.left @ two.right
    summed = total([one, two.scale(-2.0)])
    assert np.allclose(summed.left @ summed.right, both)
    assert summed.norm() == pytest.approx(float(np.linalg.norm(both)), rel=1e-9)
    short = summed.truncated(2)
    assert short.left.shape == (outputs, 2)
    assert short.right.shape == (2, inputs)
    beyond = np.linalg.svd(both, compute_uv=False)[2:]
    lost = np.linalg.norm(both - short.left @ short.right)
    assert lost == pytest.approx(float(np.linalg.norm(beyond)), abs=1e-9)  # Eckart & Young


def test_a_difference_that_cancels_keeps_its_digits() -> None:
    rng = np.random.default_rng(0)
    one = Product(rng.normal(size=(50, 4)), rng.normal(size=(4, 40)))
    other = Product(one.left * (1 + 1e-12), one.right)
    assert total([one, other.scale(-1.0)]).norm() / one.norm() == pytest.approx(1e-12, rel=1e-2)


def test_pairs_are_found_by_either_factor() -> None:
    assert find_pairs(["head.weight", PAIRS[0].left]) == (PAIRS[0],)
    assert find_pairs([PAIRS[1].right]) == (PAIRS[1],)
    assert find_pairs(PAIRS[0].residual) == ()
    assert find_pairs(["head.up.weight"]) == (Pair("head.up.weight", "head.down.weight"),)


@pytest.mark.parametrize("weights", [{}, {"a": 3.0, "b": 0.5}], ids=["alike", "declared"])
@pytest.mark.parametrize("residual", [0, 1, 2])
def test_the_aggregation_error_equals_the_dense_one(
    weights: dict[str, float], residual: int
) -> None:
    rng = np.random.default_rng(1)
    before, came = adapter(rng, residual=residual), updates(rng)
    method = FedEx(weights) if residual else FedAvg(weights)
    after = method.aggregate(method.init(before), came).adapter
    found = aggregation_error(before, came, after, weights, Adapter({}))
    assert found == pytest.approx(dense_error(before, came, after, weights), rel=1e-6)
    assert found is not None
    assert found > 1e-3  # the residual's rank is short of what it would have to hold


def test_frozen_factors_count_and_rounds_without_products_have_no_error() -> None:
    rng = np.random.default_rng(2)
    before, came = adapter(rng), updates(rng)
    frozen = before.select(pair.right for pair in PAIRS)
    left = before.select([pair.left for pair in PAIRS])
    half = {site: update.select(left) for site, update in came.items()}
    after = FedAvg({}).aggregate(ServerState(left), half).adapter
    error = aggregation_error(left, half, after, {}, frozen)
    assert error is not None
    assert error <= 1e-6
    heads = {site: update.select(["head.weight"]) for site, update in came.items()}
    assert aggregation_error(before, heads, before, {}, Adapter({})) is None
    assert aggregation_error(before, {}, before, {}, Adapter({})) is None
    zero = before.zeros()
    assert aggregation_error(zero, {"a": zero}, zero, {}, Adapter({})) == 0.0


@pytest.mark.parametrize("method", [FedEx({"a": 3.0}), Flora({"a": 3.0})], ids=["fedex", "flora"])
def test_a_full_residual_keeps_the_mean_of_products_over_rounds(method: FedEx | Flora) -> None:
    rng = np.random.default_rng(3)
    state = method.init(adapter(rng, residual=5))
    for _ in range(20):
        came, before = updates(rng), state.adapter
        state = method.aggregate(state, came)
        error = aggregation_error(before, came, state.adapter, {"a": 3.0}, Adapter({}))
        assert error is not None
        assert error <= 1e-6
        assert error == pytest.approx(
            dense_error(before, came, state.adapter, {"a": 3.0}), abs=1e-7
        )


def test_a_short_residual_is_the_nearest_one() -> None:
    rng = np.random.default_rng(4)
    before, came = adapter(rng, residual=1), updates(rng)
    after = FedEx({}).aggregate(ServerState(before), came).adapter
    for pair in PAIRS:
        mean = sum(dense(pair, before.replace(before.select(u) + u)) for u in came.values()) / 3
        averaged = after.select(pair)
        missing = mean - averaged[pair.left] @ averaged[pair.right]
        lost = np.linalg.norm(mean - dense(pair, after))
        beyond = np.linalg.svd(missing, compute_uv=False)[1:]
        assert lost == pytest.approx(float(np.linalg.norm(beyond)), rel=1e-5)


def test_flora_starts_every_pair_again_and_averages_the_head() -> None:
    rng = np.random.default_rng(5)
    start, came = adapter(rng, residual=5), updates(rng)
    method = Flora({})
    state = method.aggregate(method.init(start), came)
    for name in (name for pair in PAIRS for name in pair):
        assert state.adapter[name].tolist() == start[name].tolist()
    head = np.mean([update["head.weight"] for update in came.values()], axis=0)
    assert np.allclose(state.adapter["head.weight"], start["head.weight"] + head, atol=1e-6)


@pytest.mark.parametrize("zero", [False, True], ids=["usual", "B = 0"])
def test_fedsvd_turns_a_to_orthonormal_rows_and_keeps_every_product(zero: bool) -> None:
    rng = np.random.default_rng(6)
    before, came = adapter(rng), updates(rng)
    if zero:
        lefts = before.select(pair.left for pair in PAIRS).zeros()
        before = before.replace(lefts)
        came = {site: update.replace(lefts) for site, update in came.items()}
    plain = FedAvg({}).aggregate(ServerState(before), came).adapter
    turned = FedSvd({}).aggregate(ServerState(before), came).adapter
    assert turned["head.weight"].tolist() == plain["head.weight"].tolist()
    for pair in PAIRS:
        expected, found = dense(pair, plain), dense(pair, turned)
        assert np.linalg.norm(found - expected) <= 1e-6 * max(1.0, float(np.linalg.norm(expected)))
        rows = turned[pair.right]
        assert np.allclose(rows @ rows.T, np.eye(2), atol=1e-6)


RANKS = {"a": 1, "b": 2, "c": 2}


def mixed(rng: np.random.Generator) -> dict[str, Adapter]:
    return {site: cut(update, RANKS[site]) for site, update in updates(rng).items()}


def whole(came: dict[str, Adapter], before: Adapter) -> dict[str, Adapter]:
    """Updates that make of `before` what sites of lower rank hold, in all columns and rows."""
    shapes = {name: before[name].shape for name in came["a"]}
    return {
        site: filled(cut(before.select(update), RANKS[site]) + update, shapes)
        - before.select(update)
        for site, update in came.items()
    }


def test_cut_and_filled_keep_the_first_columns_and_rows() -> None:
    held = adapter(np.random.default_rng(7), residual=2)
    short = cut(held, 1)
    assert short.shapes == cut_shapes(held.shapes, 1)
    assert short[PAIRS[0].left].shape == (6, 1)
    assert short[PAIRS[0].right].shape == (1, 5)
    assert short["head.weight"].shape == (3, 5)
    assert short[PAIRS[0].residual.left].shape == (6, 2)
    again = filled(short, held.shapes)
    assert again[PAIRS[0].left][:, 0].tolist() == held[PAIRS[0].left][:, 0].tolist()
    assert not again[PAIRS[0].left][:, 1].any()
    assert (cut(held, None) - held).norm() == (cut(held, 9) - held).norm() == 0.0


@pytest.mark.parametrize("weights", [{}, {"a": 3.0}], ids=["alike", "declared"])
def test_flexlora_keeps_the_nearest_product_of_its_rank(weights: dict[str, float]) -> None:
    rng = np.random.default_rng(8)
    before, came = adapter(rng), mixed(rng)
    after = FlexLora(weights).aggregate(ServerState(before), came).adapter
    share = {
        site: weights.get(site, 1.0) / sum(weights.get(s, 1.0) for s in SITES) for site in SITES
    }
    as_whole = whole(came, before)
    for pair in PAIRS:
        mean = sum(
            share[site] * dense(pair, before.replace(before.select(update) + update))
            for site, update in as_whole.items()
        )
        lost = np.linalg.norm(mean - dense(pair, after))
        beyond = np.linalg.svd(mean, compute_uv=False)[2:]
        assert lost == pytest.approx(float(np.linalg.norm(beyond)), rel=1e-5)
        # A site of rank 1 starts from the nearest product of rank 1.
        first = np.linalg.norm(dense(pair, after) - dense(pair, cut(after, 1)))
        second = np.linalg.svd(dense(pair, after), compute_uv=False)[1]
        assert first == pytest.approx(float(second), rel=1e-5)
    found = aggregation_error(before, came, after, weights, Adapter({}))
    assert found == pytest.approx(dense_error(before, as_whole, after, weights), rel=1e-5)


def test_flora_stacks_mixed_ranks_exactly() -> None:
    rng = np.random.default_rng(9)
    method = Flora({"b": 2.0})
    start = adapter(rng, residual=5)
    start = start.replace(start.select(pair.left for pair in PAIRS).zeros())
    state = method.init(start)
    for _ in range(3):
        before, came = state.adapter, mixed(rng)
        state = method.aggregate(state, came)
        error = aggregation_error(before, came, state.adapter, {"b": 2.0}, Adapter({}))
        assert error is not None
        assert error <= 1e-6


def test_products_of_zero_are_left_where_they_can_learn() -> None:
    before = adapter(np.random.default_rng(10))
    before = before.replace(before.select(pair.left for pair in PAIRS).zeros())
    zero = {"a": before.zeros()}
    after = FlexLora({}).aggregate(ServerState(before), zero).adapter
    assert (after - before).norm() == 0.0
