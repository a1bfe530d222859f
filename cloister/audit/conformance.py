"""Conformance: tests the training path against the assumptions that its ε rests on.

The production functions (`clipped_gradient_sum`, `Mechanism`, `local_update`, the wire format) run
on synthetic records, and their outputs are tested exactly or at `statistics.LEVEL`. A failed check
refutes the implementation; passed checks do not prove it. A site's answers are tested by
`audit.site_answers` and `audit.site_noise`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cloister.audit.clipping_conformance import clipping_checks
from cloister.audit.mechanism_conformance import mechanism_noise, mechanism_sampler
from cloister.audit.path_conformance import path_parts
from cloister.audit.shared_conformance import share_checks
from cloister.audit.statistics import Check
from cloister.errors import UsageError
from cloister.models.network import trained_parameters
from cloister.models.state import write_adapter
from cloister.privacy.entropy import Entropy, OsEntropy
from cloister.privacy.plan import Plan
from cloister.training.config import TrainingConfig
from cloister.training.proof import proven
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace

MakeEntropy = Callable[[], Entropy]


def conformance(
    workspace: Workspace,
    units: Sequence[UnitExamples],
    plan: Plan,
    config: TrainingConfig,
    make_entropy: MakeEntropy = OsEntropy,
) -> list[Check]:
    """Tests the production path of a plan.

    Args:
        workspace: Base, network and task; the network's parameters are overwritten.
        units: Synthetic records, by unit, of different lengths; at least three.
        plan: A private plan.
        config: The `[training]` section.
        make_entropy: Makes the source of randomness; another one than the default tests the
            auditor.

    Raises:
        UsageError: The plan is not private: there is nothing to test.
    """
    parts = conformance_parts(workspace, units, plan, config, make_entropy)
    return [check for part in parts.values() for check in part()]


def conformance_parts(
    workspace: Workspace,
    units: Sequence[UnitExamples],
    plan: Plan,
    config: TrainingConfig,
    make_entropy: MakeEntropy = OsEntropy,
) -> dict[str, Callable[[], list[Check]]]:
    """The parts of `conformance` by name, to run in order or one alone."""
    if not plan.is_private or plan.max_grad_norm is None:
        raise UsageError("privacy.enabled: a plan with noise is needed; there is nothing to audit")
    # Isolation is a property of gradients, before bound and grid, so one proof covers every plan
    # here.
    shapes = proven(workspace, plan, config).shapes
    workspace.train_names(frozenset(workspace.start))
    parameters = [parameter for _, parameter in trained_parameters(workspace.network)]

    def clipping() -> list[Check]:
        write_adapter(workspace.network, workspace.start)
        return clipping_checks(workspace, units, plan, shapes)

    parts = {
        "clipping": clipping,
        "noise": lambda: mechanism_noise(parameters, plan, make_entropy),
        "sampler": lambda: mechanism_sampler(plan, make_entropy),
        **path_parts(workspace, units, plan, config, make_entropy, shapes),
    }
    if plan.sharing is not None:
        parts["shares"] = lambda: share_checks(workspace, units, plan, config, make_entropy, shapes)
    return parts
