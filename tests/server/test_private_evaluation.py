"""Estimates from sites' releases: what the coordinator states holds as often as it says."""

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.errors import AdapterFormatError
from cloister.privacy.entropy import SeededEntropy
from cloister.privacy.evaluation_release import release_evaluation
from cloister.privacy.evaluations import Evaluations
from cloister.privacy.units import Unit
from cloister.protocol.exchange import RoundRequest, Step
from cloister.server.dispatch import Dispatcher
from cloister.server.private_evaluation import PrivateEvaluation
from cloister.server.replies import ReplyTerms
from cloister.strategies.chosen_adapter import Delivery
from cloister.strategies.strategy import ServerState
from cloister.tasks.build import build_task
from cloister.tasks.config import TaskConfig
from cloister.tasks.tally.chosen import statistics_of, tally_of
from cloister.tasks.tally.label_tally import LabelTally
from cloister.training.held_out_sum import clipped_statistics, released_shapes
from tests.support.models import word_tokenizer

TASK = build_task(TaskConfig(max_length=16), ("a", "b"), word_tokenizer())
TALLY = tally_of(TASK)
STATISTICS = statistics_of(TALLY)
EVALUATIONS = Evaluations(rounds=(1,), noise_multiplier=1.5)
SITES, UNITS, ACCURACY = 3, 120, 0.85

EVALUATION = PrivateEvaluation(
    EVALUATIONS, Unit.RECORD, STATISTICS, released_shapes(TASK), frozenset, lambda row: None
)


def rows(right: np.ndarray) -> np.ndarray:
    """Rows of the tally for units that are right or not, with a loss of 0.2 or 2."""
    assert isinstance(TALLY, LabelTally)
    found = np.zeros((len(right), len(TALLY.names)))
    found[:, 0], found[:, 1], found[:, 2] = 1, right, np.where(right, 0.2, 2.0)
    found[np.arange(len(right)), np.where(right, 3, 4)] = 1  # all of them are of class a
    found[:, -45], found[:, -15] = 1, right  # the first of fifteen bins
    return found


def repeated(repeats: int, seed: int) -> tuple[float, float]:
    """How often the intervals of a whole evaluation hold the two true accuracies."""
    rng, hits = np.random.default_rng(seed), np.zeros(2)
    entropy = SeededEntropy(rng)
    for _ in range(repeats):
        right = rng.random((SITES, UNITS)) < ACCURACY
        sums = []
        for own in right:
            clipped = clipped_statistics(STATISTICS.vectors(rows(own)), STATISTICS.scales)
            (noised,) = release_evaluation(clipped, EVALUATIONS, entropy).tensors
            sums.append(noised.double().numpy())
        found = EVALUATION.estimates(sums)["scores"]["accuracy"]
        for place, (name, true) in enumerate(
            (("held_out", right.mean()), ("population", ACCURACY))
        ):
            low, high = found[name]
            hits[place] += low <= true <= high
    return hits[0] / repeats, hits[1] / repeats


def test_the_true_accuracy_is_inside_in_a_few_repeats() -> None:
    # Of 40, fewer than 33 are inside once in a thousand times if 95 % are.
    assert min(repeated(40, seed=1)) >= 33 / 40


@pytest.mark.nightly
def test_the_true_accuracy_is_inside_in_94_percent_of_3_000_repeats() -> None:
    # 0.95 less two and a half standard deviations of a share of 3,000 repeats.
    assert min(repeated(3000, seed=2)) >= 0.94


def test_what_is_asked_about_is_what_the_study_would_deliver() -> None:
    trains, delivered = (Adapter({"w": np.full(2, value)}) for value in (1.0, 0.5))
    asked: list[RoundRequest] = []

    def ask(request: RoundRequest, *_: object) -> list[tuple[str, Any]]:
        asked.append(request)
        return []

    kept: list[Mapping[str, Any]] = []
    found = replace(EVALUATION, keep=kept.append).ask(
        cast(Dispatcher, SimpleNamespace(ask=ask)),
        ReplyTerms("digest", ("east",), None),
        {7: "east"},
        ServerState(trains, 3),
        cast(Delivery, SimpleNamespace(view=lambda state: replace(state, adapter=delivered))),
    )
    assert asked == [RoundRequest("digest", 3, encode(delivered), Step.EVALUATE)]
    assert kept == [found]
    assert (found["round"], found["sites"], found["received"]) == (3, [], {})


def test_more_sites_add_their_noise_and_no_site_says_nothing() -> None:
    exact = (STATISTICS.vectors(rows(np.ones(100, bool))) * STATISTICS.scales).sum(axis=0)
    one, three = (EVALUATION.estimates([exact] * n) for n in (1, 3))
    losses = [found["scores"]["loss"] for found in (one, three)]
    widths = [loss["held_out"][1] - loss["value"] for loss in losses]
    # Three times the sum with √3 times the noise.
    assert widths[1] == pytest.approx(widths[0] / np.sqrt(3), rel=0.05)
    assert three["scores"]["accuracy"]["value"] == pytest.approx(1.0)
    nobody: dict[str, Any] = EVALUATION.estimates([])["scores"]["accuracy"]
    assert (nobody["value"], nobody["population"]) == (None, [0.0, 1.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, None])
def test_a_site_cannot_send_other_than_all_its_finite_statistics(bad: float | None) -> None:
    values = np.ones(len(STATISTICS.names) - (bad is None), np.float32)
    values[0] = 1.0 if bad is None else bad
    with pytest.raises(AdapterFormatError):
        EVALUATION._read(encode(Adapter({"statistics": values})))
