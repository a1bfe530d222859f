"""A site's private evaluation: decode -> charge -> score the held-out units -> release.

Before the charge no held-out record is looked at. Asked again, the site sends the same bytes.
"""

from __future__ import annotations

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, digest, encode
from cloister.client.admission import Admitted
from cloister.client.charged import charged
from cloister.errors import RefusedError
from cloister.ledger.charge import Charge, Released
from cloister.models.state import write_adapter
from cloister.privacy.evaluation_release import release_evaluation
from cloister.privacy.release_kind import ReleaseKind
from cloister.protocol.exchange import RoundRequest
from cloister.training.held_out_sum import STATISTICS, held_out_sum


def evaluate(admitted: Admitted, request: RoundRequest) -> Released:
    """Scores the adapter in a question on the site's held-out units, and releases the noised sum.

    Raises:
        RefusedError: The plan has no evaluation after this round, its moment is over, the site
            holds nothing out, or the adapter is not accepted; nothing was charged.
        AdapterFormatError: The adapter has other shapes than the study's; nothing was charged.
        BudgetError: The budget does not cover it; nothing was charged.
        RoundSpentError: It was charged and interrupted, now or before.
    """
    site, plan, workspace = admitted.site, admitted.plan, admitted.workspace
    evaluations = plan.evaluations
    if evaluations is None or request.round not in evaluations.rounds:
        raise RefusedError(
            f"an evaluation after round {request.round} was asked, which the plan does not list"
        )
    if site.held_out is None:
        raise RefusedError("an evaluation was asked, and this site holds no units out of training")
    adapter = decode(request.adapter, workspace.whole.shapes)
    limit = site.policy.accept.max_adapter_value
    if adapter.largest() > limit:
        raise RefusedError(
            f"accept.max_adapter_value: the adapter to evaluate has a value of "
            f"{adapter.largest():.3g}; at most {limit:g} is accepted"
        )
    entropy = site.entropy(plan, request.round)
    granted = site.ledger.reserve(
        Charge(
            study=site.study,
            round=request.round,
            plan=plan,
            request=digest(request.adapter),
            is_private=entropy.is_private,
            couples_units=site.couples_units,
            kind=ReleaseKind.EVALUATION,
        )
    )
    if isinstance(granted, Released):  # asked again: the same bytes, so no second draw of noise
        return granted
    with charged(request.round):
        write_adapter(workspace.network, adapter)
        clipped = held_out_sum(
            workspace.network, workspace.task, site.held_out, workspace.task.max_length
        )
        (noised,) = release_evaluation(clipped, evaluations, entropy).tensors
        return granted.release(encode(Adapter({STATISTICS: noised.numpy()})))
