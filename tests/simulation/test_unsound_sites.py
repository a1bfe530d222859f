"""Sites that train on false labels: what a robust rule keeps of the honest ones' model."""

import json
from pathlib import Path

import numpy as np
import pytest

from cloister.recipe import Recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import simulate
from tests.support.studies import NOTES, small_recipe

SITES, LIARS = 7, 2
FLIPPED = {"cardiology": "orthopaedics", "orthopaedics": "cardiology", "dermatology": "cardiology"}


def study(folder: Path, liars: int, *assignments: str) -> Recipe:
    """Seven sites of equal notes; the first ones swap the departments."""
    folder.mkdir()
    labels = list(NOTES)
    rng, rows = np.random.default_rng(3), []
    for index in range(SITES * 20):
        site, label = index % SITES, labels[index % 3]
        text = NOTES[label][rng.integers(3)]
        told = FLIPPED[label] if site < liars else label
        rows.append({"text": text, "label": told, "site": f"s{site}"})
    recipe = small_recipe(
        folder,
        "data.partition=column",
        f"data.sites={SITES}",
        "data.public_records=20",
        "training.expected_batch_size=20",
        "training.optimizer=adamw",
        "training.local_steps=6",
        "training.learning_rate=0.05",
        "model.pooling=mean",
        "privacy.enabled=false",
        "federation.num_rounds=2",
        "federation.evaluate_every=2",
        *assignments,
    )
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return recipe


def loss(folder: Path, liars: int, *assignments: str) -> float:
    recipe = study(folder / "study", liars, *assignments)
    return simulate(recipe, RunDirectory.create(folder / "run", recipe)).test["loss"]


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> tuple[float, float]:
    """The mean's loss without liars, and with them."""
    place = tmp_path_factory.mktemp("means")
    (place / "honest").mkdir()
    (place / "flipped").mkdir()
    return loss(place / "honest", 0), loss(place / "flipped", LIARS)


@pytest.mark.parametrize(
    "rule",
    [
        "krum",
        *(
            pytest.param(rule, marks=pytest.mark.nightly)  # tests/contracts has each alone
            for rule in ("median", "trimmed-mean", "geometric-median", "multi-krum")
        ),
    ],
)
def test_flipped_labels_move_a_robust_rule_less_than_the_mean(
    tmp_path: Path, means: tuple[float, float], rule: str
) -> None:
    honest, carried = means
    declared = (
        [f"strategy.byzantine={LIARS}"] if rule in ("trimmed-mean", "krum", "multi-krum") else []
    )
    reached = loss(tmp_path, LIARS, f"strategy.name={rule}", *declared)
    assert carried - honest > 0.02
    assert reached - honest < 0.5 * (carried - honest)
