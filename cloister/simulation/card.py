"""A simulated study's card, from what the run came to and what the sites' ledgers state."""

from __future__ import annotations

from pathlib import Path

from cloister.errors import UsageError
from cloister.evidence.site_facts import SiteFacts, site_facts
from cloister.export.card import Card
from cloister.export.snippets import loading_of
from cloister.ledger.certificate_forms import statement
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.server.run_directory import RunDirectory
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
        loading=loading_of(recipe.model, workspace),
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
        sites={name: _facts(result.run_dir, name, recipe.digest()) for name in study.names},
        recipe_digest=recipe.digest(),
        is_personal=bool(workspace.kept),
        central=recipe.privacy.central(len(study.names), recipe.federation.num_rounds),
    )


def _facts(folder: Path, site: str, digest: str) -> SiteFacts | str:
    """What a site's own ledger states of the study: the plan that it ran, after its policy."""
    path = RunDirectory(folder).ledger(site)
    verdict = verify(LedgerFile(path).entries(), str(path))
    try:
        return site_facts(statement(verdict, digest))
    except UsageError:
        return "its ledger charged no round of this study, so it sent nothing"
