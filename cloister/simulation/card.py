"""A simulated study's card, from what the run came to."""

from __future__ import annotations

from cloister.release.card import Card
from cloister.simulation.result import Result
from cloister.simulation.study import SimulatedStudy
from cloister.training.workspace import Workspace


def card_for(study: SimulatedStudy, workspace: Workspace, result: Result) -> Card:
    """Fills in a card."""
    recipe, training = study.recipe, study.recipe.training
    return Card(
        name=recipe.study.name,
        base=recipe.model.base,
        base_sha256=workspace.base_sha256,
        kind=recipe.task.kind,
        labels=recipe.task.labels,
        pooling=workspace.network.pooling,
        parameters=workspace.start.size,
        rounds=result.rounds,
        mode="one gradient a round"
        if training.mode == "gradient-rounds"
        else f"{training.local_steps} local step{'s' * (training.local_steps > 1)} a round "
        f"({training.optimizer})",
        metric=result.metric,
        test=result.test,
        plain_test=result.plain_test,
        majority=result.majority,
        plans=study.plans,
        epsilon={site.name: site.epsilon for site in result.sites},
        recipe_digest=recipe.digest(),
        is_personal=bool(workspace.kept),
        central=recipe.privacy.central(len(study.names), recipe.federation.num_rounds),
        ledgers={
            site.name: f"entry {site.ledger.seq}, SHA-256 `{site.ledger.hash}`"
            for site in result.sites
        },
    )
