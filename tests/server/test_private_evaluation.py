"""The coordinator's estimates: sums and noise are those of every site that answered."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.errors import AdapterFormatError
from cloister.privacy.evaluations import Evaluations
from cloister.privacy.noised_ratio import Ratio, estimate
from cloister.privacy.units import Unit
from cloister.server.private_evaluation import PrivateEvaluation
from cloister.tasks.tally.statistics import Statistics

SCALES, NOISE = np.array([0.5, 0.8]), 3.0
ACCURACY = Ratio(np.array([1.0, 0.0]), np.array([1.0, 1.0]), high=1.0, is_share=True)


def evaluation() -> PrivateEvaluation:
    statistics = SimpleNamespace(
        scales=SCALES,
        ratios={"accuracy": ACCURACY},
        by_class={"ill": {"recall": ACCURACY}},
        tables=lambda sums: {"sums": sums.tolist()},
    )
    return PrivateEvaluation(
        evaluations=Evaluations(rounds=(2,), noise_multiplier=NOISE),
        unit=Unit.RECORD,
        statistics=cast(Statistics, statistics),
        shapes={"statistics": (2,)},
        kept=frozenset,
        keep=lambda row: None,
    )


@pytest.mark.parametrize("sites", [1, 3, 12])
def test_the_noise_of_every_site_is_in_the_intervals(sites: int) -> None:
    right, wrong = 300.0, 80.0
    sums = [np.array([right, wrong]) * SCALES / sites] * sites
    found = evaluation().estimates(sums)
    # A site's noise has deviation 3 in each released value, so 3 over its scale in a count.
    variances = sites * np.array([6.0**2, 3.75**2])
    expected = estimate(ACCURACY, np.array([right, wrong]), variances)
    score = found["scores"]["accuracy"]
    assert score["value"] == pytest.approx(right / (right + wrong))
    assert score["held_out"] == pytest.approx(expected.held_out)
    assert score["population"] == pytest.approx(expected.population)
    assert found["classes"]["ill"]["recall"] == score
    assert found["noised_sums"]["sums"] == pytest.approx([right, wrong])


def test_where_no_site_answered_nothing_is_known() -> None:
    assert evaluation().estimates([])["scores"]["accuracy"] == {
        "value": None,
        "held_out": [0.0, 1.0],
        "population": [0.0, 1.0],
    }


@pytest.mark.parametrize("values", [[1.0, np.nan], [np.inf, 1.0], [1.0], [1.0, 2.0, 3.0]])
def test_a_site_cannot_send_other_than_finite_statistics(values: list[float]) -> None:
    sent: Any = Adapter({"statistics": np.array(values, dtype=np.float32)})
    with pytest.raises(AdapterFormatError):
        evaluation()._read(encode(sent))
