"""A stated ε is that of a whole plan or budget: an odometer's reading is no guarantee.

A coordinator that watches the privacy loss may stop a study where it is high. If what is then
stated is ε_t, the PLD at δ of the t steps that ran, outputs S of the stopped study obey
P(S) ≤ E_Q[e^{ε_t}; S] + δ* with

    δ* = sup over stopping rules of E_P[(1 − e^{ε_t − L_t})₊],   L_t the loss after t steps,

which is an optimal stopping problem, solved backwards: V_t(L) = max(g_t(L), E V_{t+1}(L + X)).
Losses are rounded *down* to a grid, and V grows with L: every δ* here is a lower bound.
"""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import fftconvolve
from scipy.stats import norm

from cloister.ledger.budget import Budget, most_steps
from cloister.ledger.history import request_of
from cloister.ledger.stated import of_plan
from cloister.privacy.accounting import COARSE, epsilon
from cloister.privacy.events import GaussianEvent
from tests.support.ledgers import small_plan

DELTA = 1e-5
GRID = 1e-3  # of losses: 200 steps lose at most 0.1 of the ε's 5 by rounding down
REACH = 30.0  # losses beyond it are cut off, at a probability below 10⁻⁹
Values = NDArray[np.float64]


def one_step(noise: float, rate: float) -> tuple[int, Values]:
    """The loss of one step where the unit is there, rounded down: first cell, probabilities."""
    # P = (1 − q) N(0, σ²) + q N(1, σ²) against Q = N(0, σ²); the loss grows with x.
    edges = np.linspace(-9 * noise, 1 + 9 * noise, 400_001)
    mass = np.diff((1 - rate) * norm.cdf(edges / noise) + rate * norm.cdf((edges - 1) / noise))
    low = edges[:-1]  # the least loss of each cell
    losses = np.log1p(rate * np.expm1((2 * low - 1) / (2 * noise**2)))
    cells = np.floor(losses / GRID).astype(int)
    first = int(cells.min())
    return first, np.bincount(cells - first, weights=mass)


def worst_delta(noise: float, rate: float, stated: dict[int, float]) -> float:
    """δ* of stating `stated[t]` where the study stops after t steps; it ends at the last."""
    first, probabilities = one_step(noise, rate)
    losses = np.arange(-round(REACH / GRID), round(REACH / GRID) + 1) * GRID
    middle, pad = len(losses) // 2, len(probabilities)
    value = np.zeros_like(losses)
    for t in range(max(stated), 0, -1):
        if t in stated:
            value = np.maximum(value, np.maximum(0.0, -np.expm1(stated[t] - losses)))
        # E V(L + X): beyond the top V is at least what it is there, below the bottom at least 0.
        padded = np.concatenate(
            [np.zeros(pad + abs(first)), value, np.full(pad + abs(first), value[-1])]
        )
        means = fftconvolve(padded, probabilities[::-1], mode="valid")
        start = pad + abs(first) + first
        value = np.maximum(means[start : start + len(losses)], 0.0)
    return float(value[middle])


def readings(noise: float, rate: float, steps: int, every: int) -> dict[int, float]:
    """The odometer after every so many steps."""
    return {
        t: epsilon(
            [GaussianEvent(noise_multiplier=noise, sample_rate=rate, steps=t)], DELTA, COARSE
        )
        for t in range(every, steps + 1, every)
    }


SETTINGS = {  # (σ, q, T), stops looked at, at least so many times the stated δ
    "30 steps at a quarter": ((1.6, 0.25, 30), 1, 5.0),
    "200 steps at 0.032": ((1.0, 0.032, 200), 5, 3.0),
    "20 full batches": ((2.0, 1.0, 20), 1, 5.5),
}


@pytest.mark.parametrize(("setting", "every", "times"), SETTINGS.values(), ids=SETTINGS.keys())
def test_an_odometer_reading_misses_its_delta_and_the_whole_plan_s_promise_does_not(
    setting: tuple[float, float, int], every: int, times: float
) -> None:
    noise, rate, steps = setting
    odometer = readings(noise, rate, steps, every)
    assert worst_delta(noise, rate, odometer) > times * DELTA
    # The same watcher, the same rules: the whole plan's ε, stated wherever it stops, holds.
    whole = dict.fromkeys(odometer, odometer[steps])
    assert 0.5 * DELTA < worst_delta(noise, rate, whole) <= DELTA
    # A number of steps that was fixed in advance is no stopping rule, and the reading holds, too.
    assert worst_delta(noise, rate, {steps: odometer[steps]}) <= DELTA


def test_the_instrument_reads_a_known_delta() -> None:
    """One full batch at σ = 1: δ(1) = Φ(−½) − e Φ(−1.5) = 0.12693674 (Balle & Wang 2018, 8)."""
    exact = norm.cdf(-0.5) - np.e * norm.cdf(-1.5)
    assert exact - 2 * GRID < worst_delta(1.0, 1.0, {1: 1.0}) <= exact + 1e-9


def test_what_is_stated_now_covers_every_stop() -> None:
    """A plan's promise, and the budget's for as many steps as its first charge fixes."""
    plan = small_plan()
    promised = of_plan(plan)
    planned = plan.local_steps * plan.num_rounds
    stops = dict.fromkeys(range(1, planned + 1), promised.epsilon)
    assert worst_delta(plan.noise_multiplier, plan.sample_rate, stops) <= promised.delta
    budget = Budget(epsilon=4.5, delta=2 * DELTA)
    most = most_steps(request_of(plan), budget)
    assert most > planned
    anywhere = dict.fromkeys(range(1, most + 1), budget.epsilon)
    found = worst_delta(plan.noise_multiplier, plan.sample_rate, anywhere)
    assert 0.3 * DELTA < found <= budget.delta / 2
