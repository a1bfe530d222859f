"""Checks before a charge that every process of the site runs and computes the same as this one.

A proof is made in one process. Its outcome depends on what `proof.depends_on` lists: base, kernels'
builds and variables, types, threads, the kind of device and its driver. If a worker lists the same
values, the proof holds there, just as a kept proof holds after a restart. In addition each worker
sums synthetic units of every padded length in the largest passes, which shows that it has enough
memory; it must give the same integers as this process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from cloister.errors import RefusedError
from cloister.models.network import trained_parameters
from cloister.models.state import read_tensors, write_adapter
from cloister.privacy.plan import Plan
from cloister.seeds import child_seed
from cloister.tasks.task import Example
from cloister.training.config import TrainingConfig
from cloister.training.gradients import per_record_hooks
from cloister.training.proof_key import depends_on
from cloister.training.shapes import BatchShapes
from cloister.training.synthetic_batches import SyntheticBatches
from cloister.training.team import AskDepends, Team
from cloister.training.trials import MOVED, shared_grid
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace

# Left out of the comparison: it depends on each process's memory, and the first one's shapes are
# sent.
TRIED = {"shapes"}


def join(
    workspace: Workspace,
    plan: Plan,
    config: TrainingConfig,
    shapes: BatchShapes,
    max_adapter_value: float,
) -> None:
    """Starts a workspace's workers if they do not run, and compares them with this process.

    Args:
        workspace: Without workers nothing is done.
        plan: A private plan.
        config: The `[training]` section.
        shapes: The shapes proven in this process.
        max_adapter_value: The largest value that an adapter may have at the site.

    Raises:
        RefusedError: A worker cannot start, has another kind of device or software, or gives other
            integers. Nothing is charged, and the work is not done by fewer processes instead.

    Guarantees:
        Looks at no record. Running workers that were compared for the same study are not asked
        again.
    """
    team = workspace.team
    if team is None:
        return
    about = (plan, config, shapes, max_adapter_value)
    if team.is_whole and about in team.agreed:
        return
    try:
        if not team.is_whole:
            team.start(workspace.network.device)
        # Each process has other free memory, so the first one's shapes are used and sent with the
        # units.
        stated = replace(config, physical_batch_tokens=config.plain_tokens)
        own = depends_on(workspace, plan, stated, max_adapter_value)
        found = team.asked(AskDepends(plan, stated, max_adapter_value))
        for number, other in enumerate(found, 2):
            _check_alike(own, other, f"process {number} of {team.processes}")
        _check_sums(workspace, team, plan, shapes)
    except BaseException:
        team.close()
        raise
    team.agreed.append(about)


def _check_alike(own: Mapping[str, Any], other: Mapping[str, Any], who: str) -> None:
    names = sorted((own.keys() | other.keys()) - TRIED)
    differing = [name for name in names if own.get(name) != other.get(name)]
    if differing:
        raise RefusedError(
            f"machine.processes: {who} differs from the first in {', '.join(differing)}, so the "
            "proof of the first does not hold there; give devices of one kind, or set "
            "machine.processes = 1"
        )


def _check_sums(workspace: Workspace, team: Team, plan: Plan, shapes: BatchShapes) -> None:
    """Lets every process sum the same units, at an adapter that differs from its start."""
    network = workspace.network
    trained = frozenset(name for name, _ in trained_parameters(network))
    before = read_tensors(network, team.names)
    assert plan.max_grad_norm is not None
    grid = None if plan.sharing is None else shared_grid(workspace, plan)
    units = _units(workspace, shapes)
    try:
        write_adapter(network, workspace.start)
        workspace.train_names(frozenset(workspace.start))
        with torch.no_grad():
            for name, parameter in trained_parameters(network):
                generator = torch.Generator().manual_seed(child_seed(0, "joining", name))
                noise = torch.randn(parameter.shape, generator=generator) * MOVED
                parameter.add_(noise.to(parameter))
        with per_record_hooks(network):
            first, *others = team.sums(
                network,
                workspace.task,
                [units] * team.processes,
                plan.max_grad_norm,
                shapes,
                grid,
            )
    finally:
        write_adapter(network, before)
        workspace.train_names(trained)
    for number, other in enumerate(others, 2):
        pairs = zip(first.tensors, other.tensors, strict=True)
        if not all(torch.equal(one, two) for one, two in pairs):
            raise RefusedError(
                f"machine.processes: process {number} of {team.processes} gives another sum of the "
                "same synthetic records than the first; set machine.processes = 1, and check the "
                "hardware"
            )


def _units(workspace: Workspace, shapes: BatchShapes) -> list[UnitExamples]:
    """Synthetic units that fill the largest pass of each padded length; pairs for preferences."""
    task = workspace.task
    batches = SyntheticBatches(task, workspace.network.vocabulary)

    def unit(tokens: int) -> UnitExamples:
        one: Example = batches.example(tokens)
        if getattr(task, "dpo_beta", None) is not None:
            one = replace(one, rejected=batches.example(tokens))
        return (one,)

    # The last row has no padding; a pass needs padding in another row (`shapes.cut`).
    return [
        unit(edge if row and row == counts[-1] - 1 else max(edge - 1, 1))
        for edge, counts in shapes.counts
        for row in range(counts[-1])
    ]
