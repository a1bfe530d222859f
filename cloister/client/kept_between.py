"""What a site keeps between its rounds and never sends: own factors, and its optimizer's memory."""

from __future__ import annotations

from cloister.adapter.tensors import Adapter
from cloister.client.site import Site
from cloister.training.memory import OptimizerMemory, memory_shapes
from cloister.training.workspace import Workspace


def own_start(site: Site, center: Adapter, number: int) -> Adapter:
    """Returns the adapter from which a round starts: the shared one, or the site's own."""
    if not site.training.personal or site.personal is None:
        return center
    return site.personal.before(number, center.shapes) or center


def kept_tensors(site: Site, workspace: Workspace, number: int) -> Adapter:
    """Returns the tensors that never leave, before a round: the site's own, else the first ones."""
    if not workspace.kept:
        return Adapter({})
    start = workspace.start.select(workspace.kept)
    own = site.personal.before(number, start.shapes) if site.personal is not None else None
    return own or start


def optimizer_memory(site: Site, workspace: Workspace, number: int) -> OptimizerMemory | None:
    """Returns the optimizer's memory before a round; empty before the first round."""
    if site.optimizer is None:
        return None
    trained = workspace.start.shapes
    kept = site.optimizer.before(number, memory_shapes(site.training, trained))
    if kept is None:
        return OptimizerMemory.empty(site.training, trained)
    return OptimizerMemory(site.training, kept)
