"""Membership inference on final adapters: the weakest audit, as an illustration.

Likelihood-ratio attack on losses (LiRA; Carlini et al. 2022, arXiv:2112.03570, online with a common
variance): several adapters are trained on random halves of the same synthetic records. Each in turn
is the target; the others show how a record's loss is distributed with and without the record. An
attack on the final adapter alone finds only a small part of what the claim allows: a wrong factor
of two in the noise is invisible here (arXiv:2412.01756 finds 4.9 of ε = 10 on MNIST). So it refutes
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cloister.adapter.tensors import Adapter
from cloister.models.state import write_adapter
from cloister.privacy.entropy import OsEntropy
from cloister.privacy.plan import Plan
from cloister.training.config import TrainingConfig
from cloister.training.local import local_update
from cloister.training.proof import proven
from cloister.training.record_losses import record_losses
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace

# False-positive rate at which the result is stated: a few hundred guesses cannot resolve a smaller
# one.
FALSE_POSITIVES = 0.1


@dataclass(frozen=True, kw_only=True)
class InferenceResult:
    """The result of a membership inference attack.

    Attributes:
        guesses: Number of records times adapters.
        auc: Area under the attack's ROC curve; 0.5 is guessing.
        true_positives: Share of members found at the rate `FALSE_POSITIVES`.
    """

    guesses: int
    auc: float
    true_positives: float


def attack_adapters(
    workspace: Workspace,
    units: Sequence[UnitExamples],
    plan: Plan,
    config: TrainingConfig,
    adapters: int = 8,
) -> InferenceResult:
    """Trains adapters on random halves and guesses members by their loss.

    Args:
        workspace: Base, network and task; the network's parameters are overwritten.
        units: Synthetic records, by unit.
        plan: The plan of each adapter's training.
        config: The `[training]` section.
        adapters: Number of adapters; each is the target once.
    """
    draws = OsEntropy().uniform(adapters * len(units)).reshape(adapters, len(units))
    # In each pair of adapters exactly one has a given record, so every record has losses of both
    # kinds.
    is_in = np.concatenate([draws[::2] < 0.5, draws[::2] >= 0.5])[:adapters]
    losses = np.array(
        [_losses(workspace, units, _trained(workspace, units, row, plan, config)) for row in is_in]
    )
    scores = np.array([_scores(losses, is_in, target) for target in range(adapters)])
    return _reached(scores.ravel(), is_in.ravel())


def _trained(
    workspace: Workspace,
    units: Sequence[UnitExamples],
    members: NDArray[np.bool_],
    plan: Plan,
    config: TrainingConfig,
) -> Adapter:
    site = [unit for unit, is_member in zip(units, members, strict=True) if is_member]
    adapter = workspace.start
    private = plan.max_grad_norm is not None
    shapes = proven(workspace, plan, config).shapes if private else None
    for number in range(1, plan.num_rounds + 1):
        workspace.train_names(workspace.trained_in_round(config, number))
        delta = local_update(
            workspace.network,
            workspace.task,
            site,
            adapter,
            plan,
            config,
            round_number=number,
            entropy=OsEntropy(),
            shapes=shapes,
        )
        adapter = Adapter({**adapter, **(adapter.select(list(delta)) + delta)})
    return adapter


def _losses(
    workspace: Workspace, units: Sequence[UnitExamples], adapter: Adapter
) -> NDArray[np.float64]:
    write_adapter(workspace.network, adapter)
    found = []
    with torch.no_grad():
        for unit in units:
            batch = workspace.task.collate(list(unit))
            losses = record_losses(workspace.network, workspace.task, batch)
            found.append(float(losses.mean()))
    return np.array(found)


def _scores(
    losses: NDArray[np.float64], is_in: NDArray[np.bool_], target: int
) -> NDArray[np.float64]:
    """Log N(loss; in) − log N(loss; out), with a mean per record and one variance for all."""
    others = np.arange(len(losses)) != target
    known, member = losses[others], is_in[others]
    inside = np.nanmean(np.where(member, known, np.nan), axis=0)
    outside = np.nanmean(np.where(member, np.nan, known), axis=0)
    spread = np.where(member, known - inside, known - outside)
    variance = max(float(np.square(spread).mean()), 1e-12)
    ratio = np.square(losses[target] - outside) - np.square(losses[target] - inside)
    return np.asarray(ratio / (2 * variance))


def _reached(scores: NDArray[np.float64], is_in: NDArray[np.bool_]) -> InferenceResult:
    from scipy.stats import rankdata

    ranks, members = rankdata(scores), int(is_in.sum())
    others = len(scores) - members
    auc = (float(ranks[is_in].sum()) - members * (members + 1) / 2) / (members * others)
    threshold = np.quantile(scores[~is_in], 1 - FALSE_POSITIVES)
    return InferenceResult(
        guesses=len(scores),
        auc=auc,
        true_positives=float((scores[is_in] > threshold).mean()),
    )
