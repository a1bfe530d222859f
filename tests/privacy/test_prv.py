"""PRV with fewer computations is Opacus' own accountant, bit for bit."""

import warnings

import pytest

from cloister.privacy import prv
from cloister.privacy.pld import Composition
from cloister.privacy.prv import prv_upper_bound

SETTINGS: list[Composition] = [
    ((0.8, 0.25, 4),),
    ((1.1, 0.02, 300),),
    ((2.0, 1.0, 6),),
    ((3.0, 0.1, 40), (1.5, 0.05, 9)),
    # One step alone is the widest: its part of the error is smaller by far, and all steps spend
    # hardly more than it.
    ((20.0, 0.01, 30),),
]


@pytest.mark.parametrize("composition", SETTINGS)
@pytest.mark.parametrize("delta", [1e-5, 1e-7])
def test_it_is_the_accountant_s_own_bound(composition: Composition, delta: float) -> None:
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = list(composition)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the best order may be the last of Opacus' list
        assert prv_upper_bound(composition, delta) == float(accountant.get_epsilon(delta))


def test_the_orders_of_a_step_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from opacus.accountants.analysis import rdp

    asked: list[float] = []
    one = rdp._compute_rdp

    def counted(q: float, sigma: float, alpha: float) -> float:
        asked.append(alpha)
        return float(one(q, sigma, alpha))

    monkeypatch.setattr(rdp, "_compute_rdp", counted)
    prv._orders.cache_clear()
    for delta in (1e-5, 1e-6):
        prv_upper_bound(((0.9, 0.25, 4),), delta)
    assert len(asked) == len(set(asked)) > 100
