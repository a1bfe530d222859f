"""The models that sites of a simulation end up with, where they keep a part of the adapter.

Only a simulation sees them side by side: at institutions each stays where it is.
"""

from __future__ import annotations

from cloister.adapter.tensors import Adapter
from cloister.client.personal import PersonalAdapter
from cloister.server.run_directory import RunDirectory
from cloister.simulation.study import SimulatedStudy
from cloister.training.workspace import Workspace


def site_models(
    study: SimulatedStudy, workspace: Workspace, run: RunDirectory, shared: Adapter
) -> dict[str, Adapter]:
    """The whole adapter of each site after the last round that it trained; none of them where
    everything is shared.

    Args:
        study: What ran.
        workspace: Says what is kept.
        run: Holds what sites kept, beside their ledgers.
        shared: The global adapter.
    """
    if not workspace.kept and not study.recipe.training.personal:
        return {}
    if study.recipe.training.personal:
        start = workspace.whole
    else:
        start = workspace.start.select(workspace.kept)
    beyond = study.recipe.federation.num_rounds + 1
    digest = study.recipe.digest()
    models = {}
    for name in study.names:
        own = PersonalAdapter.beside(run.ledger(name), digest).before(beyond, start.shapes)
        models[name] = Adapter({**shared, **(own or (start if workspace.kept else {}))})
    return models
