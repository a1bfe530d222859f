"""ε against published and closed-form values, and its monotonicity."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from cloister.errors import RefusedError
from cloister.privacy import accounting, pld
from cloister.privacy.accounting import (
    COARSE,
    FINE,
    PRV_LARGEST_EPSILON,
    PRV_SLACK,
    SMALLEST_DELTA,
    calibrate,
    cross_check,
    epsilon,
    group_epsilon,
    prv_epsilon,
    rdp_at,
    rdp_budget,
    rdp_epsilon,
    true_positive_rate,
)
from cloister.privacy.events import MOST_NOISE, GaussianEvent


def event(sigma: float, q: float, steps: int, **kwargs: bool) -> GaussianEvent:
    return GaussianEvent(noise_multiplier=sigma, sample_rate=q, steps=steps, **kwargs)


def gaussian_epsilon(sigma: float, steps: int, delta: float) -> float:
    """Exact ε of `steps` full-batch Gaussians (Balle & Wang 2018, arXiv:1805.06530, theorem 8);
    T of them at σ are one at σ/√T."""
    mu = math.sqrt(steps) / sigma

    def excess(eps: float) -> float:
        left = norm.cdf(-eps / mu + mu / 2)
        return float(left - math.exp(eps) * norm.cdf(-eps / mu - mu / 2) - delta)

    return float(brentq(excess, 0, 200))


Mechanism = tuple[float, float, int]

# Mechanisms (σ, q, T), δ, and ε by PLD and RDP as computed with dp-accounting 0.6.0 and confirmed
# by Monte Carlo; PRV, where it converges, lies 0.010 to 0.012 above PLD.
REFERENCE: dict[str, tuple[list[Mechanism], float, float, float]] = {
    "G1": ([(1, 1, 1)], 1e-5, 4.3772, 4.7285),
    "G2": ([(4, 1, 100)], 1e-5, 13.2067, 14.1322),
    "G3": ([(5, 1, 30)], 1e-6, 5.4225, 5.7906),
    "S1": ([(1, 0.1, 1)], 1e-5, 1.6845, 2.1330),
    "A1, Abadi et al. 2016": ([(4, 0.01, 10_000)], 1e-5, 0.9470, 1.0355),
    "A2, Abadi et al. 2016": ([(4, 0.01, 40_000)], 1e-5, 2.0334, 2.2097),
    "O1, Opacus' own test": ([(1.5, 0.04, 2249)], 1e-5, 6.7671, 7.3275),
    "O2, Microsoft's table": ([(0.8, 0.05, 100)], 1e-6, 6.7306, 7.6656),
    "M1, prv_accountant": ([(0.8, 5e-3, 1000)], 1e-6, 2.0041, 2.6265),
    "J1, jax_privacy": ([(3, 0.1, 512)], 1e-6, 3.7697, 4.0510),
    "T1": ([(1.3, 250 / 60_000, 3600)], 1e-5, 0.8530, 0.9422),
    "L1, a site of 2,000 records": ([(1, 0.032, 600)], 1e-5, 5.0474, 5.5999),
    "L2": ([(0.8, 0.0128, 1000)], 1e-6, 4.6949, 5.3236),
    "Q1, tiny rate": ([(0.7, 1e-5, 100_000)], 1e-7, 0.0377, 1.2827),
    "Q2, tiny rate": ([(0.5, 1e-6, 100_000)], 1e-8, 0.1385, 2.6421),
    "N1, little noise": ([(0.4, 1e-3, 1000)], 1e-6, 8.6306, 10.512),
    "N2, little noise": ([(0.3, 0.01, 100)], 1e-6, 31.570, 36.694),
    "H1": ([(1, 0.02, 500), (0.8, 0.05, 250), (5, 1, 1)], 1e-5, 9.0803, 10.199),
    "H2, two runs": ([(1, 0.032, 600), (1, 0.032, 600)], 1e-5, 7.2703, 7.9683),
    "H3, schedule": ([(0.9, 0.01, 300), (1.1, 0.01, 300), (1.4, 0.01, 300)], 1e-5, 1.6822, 2.1213),
    "H4, with metrics": ([(1, 0.02, 500), (20, 1, 20)], 1e-5, 2.9213, 3.2914),
    "C1": ([(1, 0.05, 100)], 1e-5, 3.5021, 4.0389),
    "C2": ([(2, 0.5, 50)], 1e-3, 6.9811, 7.99),
    "C3, known participation": ([(2, 1, 50)], 1e-3, 16.4615, 18.02),
}


# Of each kind one in `make test`.
QUICK = {
    "G1",
    "A1, Abadi et al. 2016",
    "L1, a site of 2,000 records",
    "Q1, tiny rate",
    "N1, little noise",
    "H1",
    "H4, with metrics",
    "C1",
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.nightly) for name in REFERENCE],
)
def test_three_accountants_agree_with_the_reference(name: str) -> None:
    mechanisms, delta, pld, rdp = REFERENCE[name]
    events = [event(*mechanism) for mechanism in mechanisms]
    steps = sum(one.steps for one in events)
    found = epsilon(events, delta)
    # The grid only adds; after 100,000 steps at tiny rates 0.012 (the table used a finer one).
    assert -(1e-3 if pld >= 10 else 1e-4) <= found - pld
    assert found - pld <= (1e-3 if pld >= 10 else 2e-4 if steps < 100_000 else 0.012)
    assert 0 <= epsilon(events, delta, COARSE) - found <= 5e-3 + steps * 2e-6
    assert rdp_epsilon(events, delta) == pytest.approx(rdp, rel=0.02)
    prv = prv_epsilon(events, delta)
    if prv is None:
        assert rdp > PRV_LARGEST_EPSILON
    else:
        assert 0.005 <= prv - pld <= PRV_SLACK
    assert cross_check(events, delta) == epsilon(events, delta)


@pytest.mark.parametrize(("sigma", "steps", "delta"), [(1, 1, 1e-5), (4, 100, 1e-5), (5, 30, 1e-6)])
def test_full_batch_values_bound_the_closed_form(sigma: float, steps: int, delta: float) -> None:
    exact = gaussian_epsilon(sigma, steps, delta)
    found = epsilon([event(sigma, 1.0, steps)], delta)
    # PLD's discretisation is pessimistic, by 2e-4 at most on such settings (measured).
    assert exact <= found <= exact + 5e-4


@pytest.mark.parametrize("grid", [FINE, COARSE])
@pytest.mark.parametrize("delta", [1e-9, 1e-8, 1e-6])
@pytest.mark.parametrize(("sigma", "steps"), [(100, 10_000), (10, 1000), (300, 100_000), (3, 30)])
def test_convolutions_never_give_less_than_the_truth(
    sigma: float, steps: int, delta: float, grid: float
) -> None:
    """FFTs round δ either way; at 1e-12 and (100, 10⁴) dp-accounting's own ε is 0.02 too small."""
    assert epsilon([event(sigma, 1.0, steps)], delta, grid) >= gaussian_epsilon(sigma, steps, delta)


def test_a_delta_that_the_convolutions_cannot_resolve_is_refused() -> None:
    for delta in (SMALLEST_DELTA / 2, 0.0, -1.0, 1.0, math.nan):
        with pytest.raises(RefusedError, match="use a larger delta"):
            epsilon([event(1, 0.1, 1)], delta)


def test_noise_that_the_mechanism_refuses_counts_as_none() -> None:
    assert epsilon([event(MOST_NOISE, 0.5, 10)], 1e-5) < 1e-2
    for sigma in (MOST_NOISE * 1.01, 1e12, math.inf):
        assert epsilon([event(sigma, 0.5, 10)], 1e-5) == math.inf
        assert rdp_epsilon([event(sigma, 0.5, 10)], 1e-5) == math.inf
        assert rdp_at(event(sigma, 0.5, 10), 2.0) == math.inf


def test_different_rounds_compose_in_any_order() -> None:
    events = [event(1, 0.02, 500), event(0.8, 0.05, 250), event(5, 1, 1)]
    assert epsilon(events[::-1], 1e-5) == epsilon(events, 1e-5)


@pytest.mark.parametrize(("k", "expected"), [(1, 5.05), (2, 11.46), (4, 27.45), (8, 70.95)])
def test_the_price_of_several_records_of_one_person(k: int, expected: float) -> None:
    # Two digits were computed on a grid twelve times as fine: an upper bound, and not far above.
    found = group_epsilon([event(1, 0.032, 600)], 1e-5, k)
    assert expected - 0.005 <= found <= expected + 0.015


@pytest.mark.parametrize(
    ("sigma", "q", "steps", "coarser"),
    [pytest.param(1.1292, 0.25, 30, 20, marks=pytest.mark.nightly), (5, 0.1, 10_000, 2)],
)
def test_the_price_of_groups_is_an_upper_bound_on_a_coarse_grid(
    sigma: float, q: float, steps: int, coarser: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cost is the grid's: 10 s for the quickstart's on the grid of one record."""
    assert pld.group_grid(steps) >= coarser * COARSE
    exact = epsilon([event(sigma, q, steps)], 1e-5)
    wide = [group_epsilon([event(sigma, q, steps)], 1e-5, k) for k in (1, 2, 4)]
    assert exact <= wide[0] <= exact + 0.03
    assert wide == sorted(wide)
    monkeypatch.setattr(pld, "group_grid", lambda steps: COARSE)
    pld.group_pld_epsilon.cache_clear()
    fine = group_epsilon([event(sigma, q, steps)], 1e-5, 2)
    pld.group_pld_epsilon.cache_clear()
    assert fine <= wide[1] <= fine + 0.015


def test_groups_in_full_batches_are_as_far_apart_as_they_are_many() -> None:
    # q = 1: k records move the sum by k·C, as one record does at a k-th of the noise.
    assert group_epsilon([event(4, 1.0, 2)], 1e-5, 2) == pytest.approx(
        gaussian_epsilon(2, 2, 1e-5), abs=5e-3
    )


def test_groups_in_a_list_of_mechanisms_are_bounded_from_above_and_tightly() -> None:
    # Two Gaussians at rate 1 are one of noise (σ₁⁻² + σ₂⁻²)^(-1/2): here (1/16 + 1/9)^(-1/2).
    both = [event(4, 1.0, 1), event(3, 1.0, 1)]
    exact = gaussian_epsilon(1 / math.sqrt(1 / 16 + 1 / 9) / 2, 1, 1e-5)
    assert exact <= group_epsilon(both, 1e-5, 2) <= exact + 5e-3
    training, evaluation = event(1, 0.1, 20), event(8, 1.0, 4)
    whole = [group_epsilon([training, evaluation], 1e-5, k) for k in (1, 2)]
    exact = epsilon([training, evaluation], 1e-5)
    assert exact <= whole[0] <= exact + 0.03
    # Two records of a person are both trained on, both held out, or one on each side.
    sides = [group_epsilon([one], 1e-5, 2) for one in (training, evaluation)]
    assert max(*sides, exact) < whole[1]


noises = st.sampled_from([0.02, 0.2, 0.5, 1.0, 3.0, 100.0])
rates = st.sampled_from([0.0, 1e-9, 1e-4, 0.03, 0.5, 1.0])
counts = st.sampled_from([0, 1, 7, 300, 100_000])
deltas = st.sampled_from([1e-18, 1e-9, 1e-5, 0.1])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.builds(event, noises, rates, counts), max_size=2), deltas)
def test_extreme_values_give_a_number_infinity_or_a_refusal(
    events: list[GaussianEvent], delta: float
) -> None:
    try:
        found = epsilon(events, delta, COARSE)
    except RefusedError:
        return
    assert found >= 0  # also says: no NaN


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([0.5, 1.0, 3.0]),
    st.sampled_from([1e-4, 0.03, 0.5]),
    st.sampled_from([1, 7, 300]),
    st.sampled_from([1e-8, 1e-5]),
)
def test_more_noise_less_sampling_fewer_steps_and_larger_delta_cost_less(
    sigma: float, q: float, steps: int, delta: float
) -> None:
    here = epsilon([event(sigma, q, steps)], delta, COARSE)
    slack = 5e-3  # of the grid
    assert epsilon([event(sigma * 1.5, q, steps)], delta, COARSE) <= here + slack
    assert epsilon([event(sigma, q / 2, steps)], delta, COARSE) <= here + slack
    assert epsilon([event(sigma, q, steps + 5)], delta, COARSE) >= here - slack
    assert epsilon([event(sigma, q, steps)], delta * 10, COARSE) <= here + slack
    assert epsilon([event(sigma, q, steps), event(2.0, 0.01, 5)], delta, COARSE) >= here - slack


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_no_test_beats_the_neyman_pearson_test_of_a_gaussian(sigma: float) -> None:
    # One full-batch Gaussian: the best test at level α has power Φ(Φ⁻¹(α) + 1/σ).
    for level in (0.001, 0.01):
        best = float(norm.cdf(norm.ppf(level) + 1 / sigma))
        found = true_positive_rate([event(sigma, 1.0, 1)], level)
        assert best <= found <= best * 1.01 + 2e-3  # ε in steps of 0.02, a grid of 0.001
    assert true_positive_rate([], 0.01) == 0.01
    assert true_positive_rate([event(1.0, 0.1, 1, is_private=False)], 0.01) == 1.0


def test_nothing_released_costs_nothing() -> None:
    assert epsilon([], 1e-5) == 0.0
    assert epsilon([event(1.0, 0.1, 0)], 1e-5) == 0.0


@pytest.mark.parametrize("bad", [event(0.0, 0.1, 1), event(1.0, 0.1, 1, is_private=False)])
def test_one_release_without_privacy_makes_all_infinite(bad: GaussianEvent) -> None:
    assert epsilon([event(4.0, 0.01, 10), bad], 1e-5) == math.inf


BROKEN = [
    ("pld_epsilon", lambda *_: 99.0, "PLD 99.0"),
    ("pld_epsilon", lambda *_: math.nan, "PLD nan"),
    ("_rdp_epsilon", lambda *_: 0.1, "RDP 0.1"),
    ("_rdp_epsilon", lambda *_: math.nan, "RDP nan"),
    ("prv_epsilon", lambda *_: 0.1, "PRV 0.1"),
    ("prv_epsilon", lambda *_: 99.0, "PRV 99.0"),
]


@pytest.mark.parametrize(("name", "mutant", "word"), BROKEN)
def test_an_accountant_that_is_off_stops_everything(
    name: str, mutant: Callable[..., float], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cross_check([event(1.1, 0.1, 1)], 1e-5)
    monkeypatch.setattr(accounting, name, mutant)
    with pytest.raises(RefusedError, match=f"disagree.*{word}"):
        cross_check([event(1.1, 0.1, 1)], 1e-5)


@given(
    st.lists(
        st.builds(
            event,
            st.sampled_from([0.7, 1.0, 3.0]),
            st.sampled_from([0.01, 0.3]),
            st.integers(1, 50),
        ),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([1.5, 2.0, 4.0, 7.0]),
    st.floats(0.5, 20),
)
def test_what_the_filter_lets_pass_converts_to_at_most_its_epsilon(
    events: list[GaussianEvent], order: float, limit: float
) -> None:
    total = 0.0
    for one in events:
        if total + rdp_at(one, order) <= rdp_budget(limit, 1e-5, order):
            total += rdp_at(one, order)
    from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon

    if total:
        assert compute_epsilon([order], [total], 1e-5)[0] <= limit * (1 + 1e-9)


def test_what_is_not_private_passes_no_filter() -> None:
    assert rdp_at(event(1.0, 0.1, 1, is_private=False), 2.0) == math.inf
    assert rdp_at(event(0.0, 0.1, 1), 2.0) == math.inf
    assert rdp_at(event(1.0, 0.0, 5), 2.0) == rdp_at(event(1.0, 0.1, 0), 2.0) == 0.0


@pytest.mark.parametrize(("q", "steps", "target"), [(0.04, 60, 8.0), (0.1, 30, 1.0), (1.0, 5, 3.0)])
def test_calibrated_noise_meets_its_target_and_wastes_little(
    q: float, steps: int, target: float
) -> None:
    sigma = calibrate(q, steps, target, 1e-5)
    assert epsilon([event(sigma, q, steps)], 1e-5) <= target
    # One per cent less noise would miss it: calibration is to a tenth of that.
    assert epsilon([event(sigma * 0.99, q, steps)], 1e-5) > target


@pytest.mark.parametrize(("q", "steps", "rungs"), [(0.25, 4, 5), (0.02, 3, 2), (1.0, 30, 9)])
def test_the_search_begins_with_the_least_noise_that_rdp_allows(
    q: float, steps: int, rungs: int
) -> None:
    """Though orders between whole numbers, which it tries last, are what allow it."""
    noises = [accounting.SMALLEST_NOISE]
    for _ in range(rungs):
        noises.append(noises[-1] * 1.25)
    *more, target = [rdp_epsilon([event(noise, q, steps)], 1e-5) for noise in noises]
    assert min(more) > target
    assert accounting._met_by_rdp(lambda s: ((s, q, steps),), target, 1e-5) == noises[-1]
    assert accounting._met_by_rdp(lambda s: ((s, 1.0, 10**9),), 1e-3, 1e-5) is None


def test_a_target_out_of_reach_says_what_to_do() -> None:
    with pytest.raises(RefusedError, match="use fewer steps"):
        calibrate(1.0, 10**9, 0.001, 1e-5)
    # Over so many steps PLD's coarse grid lies above RDP, from which the search begins.
    with pytest.raises(RefusedError, match="cannot be met"):
        calibrate(0.25, 100_000, 0.1, 1e-5)
    sigma = calibrate(0.25, 10_000, 0.1, 1e-5)
    assert epsilon([event(sigma, 0.25, 10_000)], 1e-5) <= 0.1
