"""Returns the final models of a simulation's sites, if sites keep a part of the adapter.

Only a simulation has all of them: at institutions each one stays at its site.
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
    """Returns each site's whole adapter after its last trained round; empty if all is shared.

    Args:
        study: The study that ran.
        workspace: Has the names of the tensors that sites keep.
        run: The run's folder, which has the kept tensors beside the ledgers.
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
