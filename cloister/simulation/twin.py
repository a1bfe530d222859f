"""Runs the plain twin: the same study without clip and noise, a lower bound of privacy's cost."""

from __future__ import annotations

import dataclasses

from cloister.errors import UsageError
from cloister.export.card import write_card
from cloister.recipe import Recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.engines import Engine
from cloister.simulation.finish import ending_of, write_result
from cloister.simulation.ray_start import AnyRay
from cloister.simulation.result import RunResult
from cloister.simulation.run import Events, simulate
from cloister.simulation.study import prepare, workspace_of

# The stage's name; the command line's display knows it (`cli.display.TWIN`).
STAGE = "the same study without privacy, untuned"


def plain_twin(recipe: Recipe) -> Recipe:
    """Returns the recipe without privacy: same data and steps, plain learning rate, not tuned.

    Its score is only a lower bound of what training without privacy can reach.
    """
    training, federation = recipe.training, recipe.federation
    if recipe.selects_privately:  # without privacy, nothing is evaluated privately
        federation = dataclasses.replace(federation, patience=None)
    return dataclasses.replace(
        recipe,
        federation=federation,
        privacy=dataclasses.replace(recipe.privacy, enabled=False, site_budgets=()),
        training=dataclasses.replace(
            training, learning_rate=training.plain_learning_rate, probe_learning_rate=None
        ),
    )


def simulate_with_twin(
    recipe: Recipe,
    run: RunDirectory,
    engine: Engine = "local",
    events: Events | None = None,
    workers: int | None = None,
    *,
    ray: AnyRay | None = None,
    leaves_ray: bool = False,
) -> RunResult:
    """Runs a study, then its plain twin in the run's `twin/`, and puts both on the card.

    Args:
        recipe: The study.
        run: Its folder.
        engine: The engine that runs the sites.
        events: The callbacks, for both runs.
        workers: As in `simulate`, for both runs.
        ray: As in `simulate`, for both runs.
        leaves_ray: As in `simulate`, for the second run.

    Raises:
        UsageError: There is no public test set, on which both could be compared.
        CloisterError: As `simulate`.
    """
    if recipe.data.test_source is None and recipe.data.fold is None:
        raise UsageError(
            "--twin: given without a public test set, on which the run without privacy could be "
            "compared; leave it out, or name data.test"
        )
    events = events or Events()
    result = simulate(recipe, run, engine, events, workers, hands_over=True, ray=ray)
    twin = plain_twin(recipe)
    folder = run.path / "twin"
    events.on_stage(STAGE)
    twin_run = RunDirectory.reopen(folder) if folder.exists() else RunDirectory.create(folder, twin)
    plain = simulate(twin, twin_run, engine, events, workers, ray=ray, leaves_ray=leaves_ray)
    both = dataclasses.replace(
        result, plain_test=plain.test, seconds=result.seconds + plain.seconds
    )
    study = prepare(recipe)
    write_card(run.adapter, ending_of(study, workspace_of(study), both).card)
    write_result(run, both)
    return both
