"""The norm gate refuses too long updates and counts the others."""

import numpy as np
import pytest

from cloister.adapter.tensors import Adapter
from cloister.strategies.norm_gate import NormGate
from cloister.strategies.strategy import ServerState, UpdateFilter

ZERO = Adapter({"w": np.zeros(2)})


def of_norms(**norms: float) -> dict[str, Adapter]:
    return {site: Adapter({"w": np.array([norm, 0.0])}) for site, norm in norms.items()}


def test_what_is_far_longer_than_the_median_does_not_count() -> None:
    gate = NormGate(2.0)
    came = of_norms(a=1.0, b=1.2, c=2.0, d=1000.0, e=1.4)
    assert isinstance(gate, UpdateFilter)
    assert gate.left_out(came) == {
        "d": "an update of norm 1000, above 2 times the median norm 1.4 of the round"
    }
    moved = gate.aggregate(ServerState(ZERO), came).adapter
    assert moved["w"].tolist() == pytest.approx([1.4, 0.0])


def test_an_attack_of_usual_length_passes() -> None:
    """What it does not do: a flipped sign is as long as an honest update."""
    assert NormGate(3.0).left_out(of_norms(a=1.0, b=1.2, c=-1.1)) == {}


def test_alike_norms_are_all_counted_and_so_are_zeros() -> None:
    assert NormGate(1.0).left_out(of_norms(a=1.0, b=1.0, c=1.0)) == {}
    assert NormGate(1.0).left_out(of_norms(a=0.0, b=0.0, c=0.0)) == {}
    assert set(NormGate(3.0).left_out(of_norms(a=0.0, b=0.0, c=1e-9))) == {"c"}


@pytest.mark.parametrize("lie", [10.0, 1e3, 1e30])
def test_fewer_than_half_move_the_result_by_no_more_than_their_share(lie: float) -> None:
    """Two of five at the longest length that passes, or beyond."""
    gate, honest = NormGate(3.0), of_norms(a=1.0, b=1.0, c=1.0)
    clean = gate.aggregate(ServerState(ZERO), honest).adapter
    for value in (3.0, lie):
        attacked = gate.aggregate(ServerState(ZERO), honest | of_norms(d=-value, e=-value)).adapter
        assert (attacked - clean).norm() <= 2 / 5 * (3.0 + 1.0) + 1e-6
