"""Coefficients of correlated noise: near the optimum, the same everywhere, and worth their name."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from cloister.errors import RefusedError, UsageError
from cloister.privacy.accounting import epsilon
from cloister.privacy.bands import (
    check_bands,
    check_room,
    coefficients,
    inverse,
    length,
    step_variance,
    sum_error,
)
from cloister.privacy.bands_gain import gains, recommended
from cloister.privacy.config import PrivacyConfig
from cloister.privacy.events import GaussianEvent
from cloister.privacy.plan import Plan, make_plan
from cloister.privacy.sharing import Sharing
from tests.support.ledgers import banded_plan, small_plan


def slow_error(bands: tuple[float, ...], steps: int) -> float:
    """The error with whole matrices: the sums of noise K⁻¹z, where z has deviation ‖k‖."""
    whole = sum(k * np.eye(steps, k=-at) for at, k in enumerate(bands))
    sums = np.tril(np.ones((steps, steps))) @ np.linalg.inv(np.asarray(whole))
    return float(np.sqrt(np.square(bands).sum() * np.square(sums).sum() / steps))


@pytest.mark.parametrize(("bands", "steps"), [(2, 6), (3, 12), (5, 20), (8, 40)])
def test_the_error_is_that_of_whole_matrices_and_near_the_optimum(bands: int, steps: int) -> None:
    found = coefficients(bands, steps)
    check_bands(found)
    assert sum_error(found, steps) == pytest.approx(slow_error(found, steps))
    best = minimize(
        lambda rest: slow_error((1.0, *rest), steps), np.array(found[1:]) / found[0], method="BFGS"
    )
    # Integers over 256 round each coefficient by at most 0.2 %; the error is flat at the optimum.
    assert sum_error(found, steps) < best.fun * 1.001


def test_without_bands_noise_is_independent() -> None:
    assert sum_error((), 12) == pytest.approx(slow_error((1.0,), 12))
    assert (length(()), step_variance((), 12), list(inverse((), 3))) == (1.0, 1.0, [1, 0, 0])


def test_one_step_s_own_noise_is_larger() -> None:
    found = coefficients(4, 40)
    whole = np.linalg.inv(sum(k * np.eye(40, k=-at) for at, k in enumerate(found)))
    assert step_variance(found, 40) == pytest.approx(
        length(found) ** 2 * np.square(whole[-1]).sum()
    )


def test_the_gains_are_those_that_were_computed_before() -> None:
    """ε = 8, q = 0.02, 120 rounds: 0.80, 0.67, 0.60 for 2, 4 and 8 bands; little at large rates."""
    found = dict(gains(100, 5000, 120, 8.0, 1e-5))
    assert set(found) == {2, 4, 8}  # 16 does not divide 120
    assert [found[b] for b in (2, 4, 8)] == pytest.approx([0.80, 0.67, 0.60], abs=0.012)
    assert recommended(tuple(found.items())) == 8
    assert recommended(gains(1250, 5000, 30, 1.0, 1e-5)) is None
    assert gains(1250, 5000, 31, 1.0, 1e-5) == ()
    assert recommended(()) is None


@pytest.mark.parametrize(
    "bands", [(256,), (256, 0), (256, 257), (3, 2, 3), (257, 1), (2.0, 1), (1,) * 33, (True, 1)]
)
def test_other_coefficients_are_refused(bands: tuple[int, ...]) -> None:
    with pytest.raises(RefusedError, match="integers"):
        check_bands(bands)


def test_noise_that_could_leave_the_integers_is_refused() -> None:
    check_room(coefficients(8, 120), 100.0, 120)
    with pytest.raises(RefusedError, match="does not fit the integers"):
        check_room(coefficients(8, 120), 1e4, 120)
    # (1, 1, …) has an inverse that does not fade: it needs more room the longer the study is.
    check_room((256, 256), 1.0, 100)
    with pytest.raises(RefusedError, match="does not fit the integers"):
        check_room((256, 256), 1.0, 10**6)


# --- the plan ---------------------------------------------------------------------------------


def test_an_accountant_counts_a_cycle_once_and_at_the_rate_of_a_group() -> None:
    plan = banded_plan()
    event = GaussianEvent(noise_multiplier=1.0, sample_rate=0.3, steps=3)
    assert plan.releases == (event,)
    assert plan.epsilon_after(9) == epsilon([event], 1e-5)
    assert [plan.charged_steps(before) for before in range(7)] == [1, 0, 0, 1, 0, 0, 1]
    assert [plan.compositions(rounds) for rounds in (0, 1, 3, 4, 9)] == [0, 1, 1, 2, 3]
    # Cut to a number of rounds that no cycle divides: the last, shorter cycle is paid as a whole.
    assert replace(plan, num_rounds=7).releases[0].steps == 3
    assert plan.independent().releases == plan.releases
    assert [plan.rounds_in(2, before) for before in (0, 1, 3)] == [6, 8, 6]


def test_terms_come_back_and_older_plans_keep_their_digest() -> None:
    plan = banded_plan()
    terms = plan.terms() | {"message": [], "bands": list(plan.bands)}
    assert Plan.from_terms(terms) == plan
    assert "bands" not in small_plan().terms()
    for wrong in ([], [3], [1, 2], [256.0, 3], "no", [256, 300]):
        with pytest.raises((ValueError, TypeError)):
            Plan.from_terms(terms | {"bands": wrong})
    for name, value in (("local_steps", 2), ("noise_multiplier", 0.0), ("max_grad_norm", None)):
        with pytest.raises(ValueError, match="correlated noise"):
            Plan.from_terms(terms | {name: value})


def test_correlated_noise_is_not_shared_and_takes_one_step_a_round() -> None:
    with pytest.raises(RefusedError, match="one step a round"):
        replace(banded_plan(), sharing=Sharing(sites=5, missing=1, colluding=1))
    with pytest.raises(RefusedError, match="one step a round"):
        replace(banded_plan(), local_steps=2)
    with pytest.raises(UsageError, match="noise_bands: 4 given with shared noise"):
        PrivacyConfig(noise_bands=4, noise="shared")
    with pytest.raises(UsageError, match="no noise to correlate"):
        PrivacyConfig(noise_bands=4, noise_multiplier=0.0)
    assert PrivacyConfig(noise_bands=4, enabled=False).bands == 1


def test_a_plan_is_solved_for_the_rate_of_a_group() -> None:
    sizes = {"public_records": 1000, "local_steps": 1, "num_rounds": 12, "sites": 3}
    plan = make_plan(PrivacyConfig(noise_bands=4), expected_batch_size=50, **sizes)
    assert plan.bands == coefficients(4, 12)
    assert plan.sample_rate == 0.2
    assert 7.9 < plan.epsilon_after(12) <= 8.0
    with pytest.raises(UsageError, match=r"sample rate of 1\.2 in a group"):
        make_plan(PrivacyConfig(noise_bands=4), expected_batch_size=300, **sizes)
