"""The statistical tests of audits pass sound samples and refuse each kind of broken sample.

A law's p-value must not be small more often than it says: where the law holds, the chance that it
is at most x is at most x. That is what makes a level of 2·10⁻⁷ one.
"""

from collections.abc import Callable

import numpy as np
import pytest

from cloister.audit import noise_tests as noise_laws
from cloister.audit import repeat_tests as repeats
from cloister.audit import sampler_tests as sampler_laws
from cloister.audit.noise_tests import Releases, noise_check, noise_checks
from cloister.audit.sampler_tests import inclusion, independence_p, sampler_checks, sampler_p
from cloister.audit.statistics import LEVEL, Check, exact_check, p_check
from cloister.privacy.clipping import grid_of
from tests.support.examples import ALL

PARTS = (40, 40, 3, 30)
SIGMA, BOUND = 1.1292, 8.0
RUNS = 200 if ALL else 50


def releases(seed: int, steps: int = 64) -> Releases:
    """Sound noise, as `add_noise` makes it."""
    grid, deviation = grid_of(BOUND), SIGMA * BOUND
    drawn = np.random.default_rng(seed).standard_normal((steps, sum(PARTS))) * deviation
    values = (np.rint(drawn / grid) * grid).astype(np.float32).astype(np.float64)
    return Releases(values, PARTS, deviation, grid)


def poisson(seed: int, steps: int, units: int, rate: float) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [np.flatnonzero(draw.random(units) < rate) for _ in range(steps)]


def noise_p(seed: int) -> list[float]:
    sound = releases(seed)
    rows, tensors, values = sound.standard, sound.tensors(), sound.values
    deviation, grid = sound.deviation, grid_of(BOUND)
    found = [
        *noise_laws.tensor_p(tensors),
        *noise_laws.value_p(rows),
        *noise_laws.value_p(rows.T),
        *noise_laws.shape_p(rows, tensors),
        *noise_laws.tail_p(rows, tensors),
        *repeats.lag_p(rows),
        *noise_laws.angle_p(rows),
        *noise_laws.block_p(tensors),
        repeats.equal_p(np.abs(values).ravel(), *repeats.equal_chances(deviation, grid)),
        *repeats.low_bits_p(values, deviation, grid),
    ]
    drawn, _ = inclusion(poisson(seed, len(rows), 12, 0.3), 12)
    return found + independence_p(drawn, rows)


def coins_p(seed: int) -> list[float]:
    found = []
    for units, rate in ((1, 0.3), (30, 0.25), (200, 0.05)):
        drawn, _ = inclusion(poisson(seed, 100, units, rate), units)
        found += [
            *sampler_laws.unit_p(drawn, rate),
            sampler_laws.pair_p(drawn, rate),
            *sampler_laws.size_p(drawn, rate),
            *sampler_laws.batch_p(drawn, rate),
        ]
    return found


@pytest.mark.parametrize("law", [noise_p, coins_p])
def test_p_values_of_sound_samples_are_no_smaller_than_they_say(
    law: Callable[[int], list[float]],
) -> None:
    seen = np.array([law(seed) for seed in range(RUNS)])
    for level in (0.2, 0.05, 0.01):
        hits = (seen <= level).sum(axis=0)
        # Binomial with the level's chance; the most of a hundred statistics at 10⁻⁶.
        most = RUNS * level + 6 * np.sqrt(RUNS * level) + 4
        assert hits.max() <= most, (level, hits)
    assert seen.min() > LEVEL


def test_sound_runs_are_not_refuted() -> None:
    for seed in range(RUNS):
        sound = releases(RUNS + seed, 32)
        checks: list[Check] = [*noise_checks(sound), noise_check("all", "all", sound)]
        checks += sampler_checks(poisson(seed, 120, 40, 0.1), 40, 0.1)
        assert [check for check in checks if check.refuted] == []


# --- what each law sees ------------------------------------------------------------------------


def refuted(values: np.ndarray) -> set[str]:
    sound = releases(0)
    spoiled = Releases(values, PARTS, sound.deviation, sound.grid)
    return {check.name for check in noise_checks(spoiled) if check.refuted}


def rolled(values: np.ndarray) -> np.ndarray:
    """A few values of one step that come again in another."""
    values[40, 60:66] = values[3, 10:16]
    return values


def backwards(values: np.ndarray) -> np.ndarray:
    values[40, 60:66] = -values[3, 10:16][::-1]
    return values


def one_step_scaled(values: np.ndarray) -> np.ndarray:
    values[9] = 0.9 * values[2] + np.sqrt(0.19) * values[9]
    return values


def silent_tensor(values: np.ndarray) -> np.ndarray:
    values[:, 80:83] = 0.0
    return values


def silent_value(values: np.ndarray) -> np.ndarray:
    values[:, 7] = 0.0
    return values


def silent_step_of_a_small_tensor(values: np.ndarray) -> np.ndarray:
    values[5, 80:83] = 0.0
    return values


def silent_step(values: np.ndarray) -> np.ndarray:
    values[-1] *= 0.3
    return values


def uneven(values: np.ndarray) -> np.ndarray:
    values[:, ::2] *= 1.15
    values[:, 1::2] *= np.sqrt(2 - 1.15**2)
    return values


def shifted_far(values: np.ndarray) -> np.ndarray:
    """Every step is mixed with the one 20 steps before."""
    late = values[20:] * 0.6 + values[:-20] * 0.8
    return np.concatenate([values[:20], late])


def not_a_number(values: np.ndarray) -> np.ndarray:
    values[0, 0] = np.nan
    return values


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        (rolled, "noise repeats"),
        (backwards, "noise repeats"),
        (one_step_scaled, "noise across steps"),
        (silent_tensor, "noise of each tensor"),
        (silent_value, "noise of each value"),
        (silent_step_of_a_small_tensor, "noise of each tensor"),
        (silent_step, "noise of each step"),
        (uneven, "noise of each value"),
        (shifted_far, "noise across values"),
        (not_a_number, "noise scale"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_each_kind_of_fault_is_seen_by_its_law(
    spoil: Callable[[np.ndarray], np.ndarray], check: str
) -> None:
    assert refuted(releases(0).values.copy()) == set()
    assert check in refuted(spoil(releases(0).values.copy()))


def test_noise_on_a_very_coarse_grid_has_a_law_of_its_own() -> None:
    """Shares of shared noise at 16 bits: values come again by chance, and runs of them do not."""
    grid = 1.0
    for seed in range(20):
        steps = np.rint(np.random.default_rng(seed).standard_normal((100, 113)) * 100.0)
        sound = Releases(steps, PARTS, 100.0, grid, is_float32=False)
        assert [check for check in noise_checks(sound) if check.refuted] == []
    steps[50, 40:80] = steps[10, :40]
    spoiled = Releases(steps, PARTS, 100.0, grid, is_float32=False)
    assert "noise repeats" in {c.name for c in noise_checks(spoiled) if c.refuted}


def test_a_pair_of_equal_batches_among_hundreds_is_seen() -> None:
    batches = poisson(0, 300, 1200, 0.25)
    assert min(sampler_p(inclusion(batches, 1200)[0], 0.25)) > LEVEL
    batches[170] = batches[3]
    assert min(sampler_p(inclusion(batches, 1200)[0], 0.25)) < LEVEL


def test_malformed_batches_are_counted() -> None:
    batches = [np.array(batch) for batch in ([0, 0], [1, 2], [-1], [5], [])]
    drawn, malformed = inclusion(batches, 5)
    assert malformed == 3
    assert drawn.sum() == 3


def test_a_figure_that_is_not_a_number_refutes() -> None:
    assert p_check("a", "b", [0.5, float("nan")]).refuted
    assert exact_check("a", "b", float("nan")).refuted
    assert not p_check("a", "b", [0.5, 0.2]).refuted
    assert p_check("a", "b", [0.5, LEVEL / 3]).refuted


@pytest.mark.nightly
def test_ten_thousand_sound_runs_are_refuted_about_as_often_as_said() -> None:
    """At a level of 10⁻³ in place of 2·10⁻⁷: what is said of the tails holds further in."""
    figures = np.array(
        [
            [check.figure for check in noise_checks(releases(seed, 24)) if check.low == LEVEL]
            for seed in range(10_000)
        ]
    )
    assert ((figures < 1e-3).mean(axis=0) < 2e-3).all()
