"""Conformance: the path that training takes, put to the laws that its ε rests on.

The very functions that train (`clipped_gradient_sum`, `Mechanism`, `local_update`, the wire format)
run on records that are nobody's, and what they give is tested exactly or at a level of 10⁻⁶. A
check that fails refutes the implementation; checks that hold do not prove it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from cloister.adapter.wire import encode
from cloister.errors import RefusedError, UsageError
from cloister.models.network import trained_parameters
from cloister.models.state import write_adapter
from cloister.privacy import clipping
from cloister.privacy.clipping import ClippedSum, empty_sum, grid_of
from cloister.privacy.entropy import Entropy, OsEntropy
from cloister.privacy.laws import LEVEL, Check, noise_checks, sampler_checks
from cloister.privacy.mechanism import Mechanism
from cloister.privacy.plan import Plan
from cloister.training.config import TrainingConfig
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks
from cloister.training.local import local_update
from cloister.training.proof import proven
from cloister.training.shapes import BatchShapes, one_by_one
from cloister.training.shared_conformance import share_checks, share_messages
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace

# Coordinates of noise that are looked at: at 10⁵ the scale is known to 1.1 % (χ² at 10⁻⁶), so that
# noise at 0.8 of what it should be is refuted.
COORDINATES = 100_000
# Batches drawn for the sampler's laws, of so many units.
BATCHES, DRAWN_UNITS = 2000, 40
# float32 rounding inside the network lets a unit's companions move its gradient by so much of it.
ROUNDING = 1e-4

MakeEntropy = Callable[[], Entropy]


def conformance(
    workspace: Workspace,
    units: Sequence[UnitExamples],
    plan: Plan,
    config: TrainingConfig,
    make_entropy: MakeEntropy = OsEntropy,
) -> list[Check]:
    """Puts a plan's production path to the test.

    Args:
        workspace: Base, network and task; the network's parameters are overwritten.
        units: Records that are nobody's, by unit, of different lengths; at least three.
        plan: A private plan.
        config: Of training.
        make_entropy: Where randomness comes from; production's unless the auditor tests itself.

    Raises:
        UsageError: The plan is not private: there is nothing to test.
    """
    if not plan.is_private or plan.max_grad_norm is None:
        raise UsageError("privacy.enabled: a plan with noise is needed; there is nothing to audit")
    shapes = proven(workspace, plan, config).shapes
    write_adapter(workspace.network, workspace.start)
    workspace.train_names(frozenset(workspace.start))
    if plan.sharing is not None:
        return [
            *_clipping(workspace, units, plan, shapes),
            *share_checks(workspace, plan, make_entropy, COORDINATES),
            *_sampling(plan, make_entropy),
            *share_messages(workspace, units, plan, config, make_entropy),
        ]
    return [
        *_clipping(workspace, units, plan, shapes),
        *_noise(workspace, plan, plan.max_grad_norm, make_entropy),
        *_sampling(plan, make_entropy),
        _update_noise(workspace, units, plan, make_entropy),
        *_messages(workspace, units, plan, config, make_entropy),
    ]


def _clipping(
    workspace: Workspace, units: Sequence[UnitExamples], plan: Plan, shapes: BatchShapes
) -> list[Check]:
    """Influence of each unit at a bound that all reach, and independence from how batches are cut.

    The path is linear in the bound, so a bound below every gradient's norm tests it at its worst.
    """
    bound = min(plan.max_grad_norm or 1.0, 1e-3)
    grid = None
    if plan.sharing is not None:
        grid = replace(plan, max_grad_norm=bound).shared_noise(workspace.start.size).grid

    def summed(chosen: Sequence[UnitExamples], cut: BatchShapes) -> NDArray[np.float64]:
        total = clipped_gradient_sum(workspace.network, workspace.task, chosen, bound, cut, grid)
        if total.bound != bound:
            return np.full(1, np.nan)
        return _flat(total)

    with per_record_hooks(workspace.network):
        whole = summed(units, shapes)
        without = [summed([*units[:i], *units[i + 1 :]], shapes) for i in range(len(units))]
        alone = [summed([unit], shapes) for unit in units]
        cut = summed(units, one_by_one(workspace.task.max_length))
    # A record that is no number, one beyond all numbers, and one of length 0.5 among them.
    poison = [[math.nan, 1.0], [0.5, 0.0], [math.inf, 0.0], [-1e38, 1e38]]
    clean = _flat(clipping.clip_and_sum([torch.tensor(poison)], 1.0))
    influence = max(float(np.linalg.norm(whole - other)) for other in without) / bound
    companions = max(
        float(np.linalg.norm(whole - other - one))
        for other, one in zip(without, alone, strict=True)
    )
    return [
        Check(name="influence", law="most that one unit moves a clipped sum, over the bound",
              figure=influence, low=0.0, high=1.0),
        Check(name="companions", law="how far a unit's part depends on others, over the bound",
              figure=companions / bound, low=0.0, high=0.0),
        Check(name="physical batches", law="how far the sum depends on its cut, over the bound",
              figure=float(np.linalg.norm(whole - cut)) / bound, low=0.0,
              high=ROUNDING * len(units)),
        Check(name="poisoned records", law="what three such records add to a sum",
              figure=float(np.linalg.norm(clean - [0.5, 0.0])), low=0.0, high=1e-6),
    ]  # fmt: skip


def _noise(
    workspace: Workspace, plan: Plan, bound: float, make_entropy: MakeEntropy
) -> list[Check]:
    parameters = [p for _, p in trained_parameters(workspace.network)]
    steps = max(4, -(-COORDINATES // sum(p.numel() for p in parameters)))
    gate = Mechanism(replace(plan, local_steps=steps), make_entropy())
    releases = []
    for _ in range(steps):
        gate.draw(0)
        released = gate.release(empty_sum(parameters, bound)).tensors
        releases.append(torch.cat([t.flatten() for t in released]).double().cpu().numpy())
    grid = grid_of(bound)
    on_grid = max(float(np.abs(r / grid - np.rint(r / grid)).max()) for r in releases)
    return [
        *noise_checks(releases, plan.noise_multiplier * bound),
        Check(name="grid", law="distance of releases from the integer grid", figure=on_grid,
              low=0.0, high=0.0),
    ]  # fmt: skip


def _update_noise(
    workspace: Workspace, units: Sequence[UnitExamples], plan: Plan, make_entropy: MakeEntropy
) -> Check:
    """Noise of a whole update, so large that the records do not show in it, over the plan's."""
    loud = replace(
        plan, noise_multiplier=1e4, max_grad_norm=1e-3, max_update_norm=1e6, local_steps=4,
        public_records=2 * len(units), expected_batch_size=len(units),
    )  # fmt: skip
    config = TrainingConfig(
        mode="local-steps", expected_batch_size=len(units), local_steps=4, learning_rate=1.0,
        schedule="constant", physical_batch_tokens=64,
    )  # fmt: skip
    delta = local_update(
        workspace.network, workspace.task, units, workspace.start, loud, config,
        round_number=1, entropy=make_entropy(),
    )  # fmt: skip
    every = np.concatenate([value.ravel() for value in delta.values()]).astype(np.float64)
    step = 1e4 * 1e-3 / len(units)
    low, high = stats.chi2.ppf([LEVEL / 2, 1 - LEVEL / 2], len(every))
    return Check(
        name="update noise",
        law="noise of an update of four steps, over the plan's σ·C·√4 and its divisor (χ²)",
        figure=float(np.sqrt(np.square(every).mean())) / (2 * step),
        low=math.sqrt(low / len(every)),
        high=math.sqrt(high / len(every)),
    )


def _sampling(plan: Plan, make_entropy: MakeEntropy) -> list[Check]:
    gate = Mechanism(replace(plan, local_steps=BATCHES), make_entropy())
    drawn = np.zeros((BATCHES, DRAWN_UNITS), dtype=bool)
    for row in drawn:
        row[gate.draw(DRAWN_UNITS)] = True
    try:
        gate.draw(DRAWN_UNITS)
        further = 1.0
    except RefusedError:
        further = 0.0
    checks = [] if plan.sample_rate == 1 else sampler_checks(drawn, plan.sample_rate)
    gate_check = Check(
        name="steps", law="steps drawn beyond the plan's", figure=further, low=0.0, high=0.0
    )
    return [*checks, gate_check]


def _messages(
    workspace: Workspace,
    units: Sequence[UnitExamples],
    plan: Plan,
    config: TrainingConfig,
    make_entropy: MakeEntropy,
) -> list[Check]:
    """Updates of a full and of an empty site: of one form, of bounded length, never repeated."""

    def update(site: Sequence[UnitExamples]) -> tuple[dict[str, tuple[int, ...]], int, float]:
        delta = local_update(
            workspace.network, workspace.task, site, workspace.start, plan, config,
            round_number=1, entropy=make_entropy(),
        )  # fmt: skip
        return dict(delta.shapes), len(encode(delta)), delta.norm()

    full, again, empty = update(units), update(units), update([])
    same = full[:2] == empty[:2] and full[0] == dict(workspace.start.shapes)
    bound = plan.max_update_norm or 0.0
    longest = max(full[2], again[2], empty[2])
    return [
        Check(name="message form", law="names, shapes and bytes that differ for an empty site",
              figure=0.0 if same else 1.0, low=0.0, high=0.0),
        Check(name="update bound", law="longest update over max_update_norm",
              figure=longest / bound if bound else float("nan"), low=0.0, high=1 + 1e-6),
        Check(name="fresh noise", law="equal updates in two runs on the same records",
              figure=float(full[2] == again[2]), low=0.0, high=0.0),
    ]  # fmt: skip


def _flat(total: ClippedSum) -> NDArray[np.float64]:
    joined = torch.cat([t.flatten() for t in total.tensors]).double().cpu() * total.grid
    flat: NDArray[np.float64] = joined.numpy()
    return flat
