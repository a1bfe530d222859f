"""What a private evaluation found is written, read back and told with its interval."""

from collections.abc import Mapping

import pytest

from cloister.privacy.estimated_scores import evaluated_rounds, to_json
from cloister.privacy.noised_ratio import Estimate


@pytest.mark.parametrize(
    ("scores", "sites", "told"),
    [
        (
            {"accuracy": {"value": 0.9, "held_out": [0.8, 0.95], "population": [0.7, 0.98]}},
            ["east"],
            "accuracy 0.9000 (95 % for the population: 0.7000 to 0.9800; round 3, 1 site)",
        ),
        (
            {"perplexity": {"value": None, "held_out": [1.0, None], "population": None}},
            ["east", "west"],
            "perplexity – (95 % for the held-out units: 1.0000 to ∞; round 3, 2 sites)",
        ),
    ],
)
def test_a_private_evaluation_is_told_with_its_interval(
    scores: dict[str, object], sites: list[str], told: str
) -> None:
    row = {"round": 3, "sites": sites, "scores": scores, "classes": {}}
    (found,) = evaluated_rounds([row])
    assert str(found) == told
    assert {name: to_json(one) for name, one in found.scores.items()} == scores


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"round": 1, "sites": [], "scores": {}, "classes": {}},
        {"round": 1, "sites": [], "scores": {"loss": {"value": 1.0}}, "classes": {}},
        {
            "round": 1,
            "sites": [],
            "scores": {"loss": {"value": 1.0, "held_out": [1.0], "population": None}},
            "classes": {},
        },
        {"round": 1, "sites": [], "scores": [1.0], "classes": {}},
    ],
)
def test_a_damaged_line_is_refused(row: Mapping[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        evaluated_rounds([row])


def test_the_interval_of_the_population_covers_most() -> None:
    known = Estimate(0.5, (0.4, 0.6), (0.3, 0.7))
    assert (known.widest, known.covers) == ((0.3, 0.7), "the population")
    unknown = Estimate(0.5, (0.4, 0.6), None)
    assert (unknown.widest, unknown.covers) == ((0.4, 0.6), "the held-out units")
