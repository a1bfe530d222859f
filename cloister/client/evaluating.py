"""A site's private evaluation: decode -> charge -> score the held-out units -> release.

Before the charge no held-out record is looked at. Asked again, the site sends the same bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, encode
from cloister.client.admission import Admitted
from cloister.client.asked_charge import asked_charge
from cloister.client.charged import charged
from cloister.client.secure import SecureExchange
from cloister.errors import CloisterError, RefusedError
from cloister.ledger.charge import Released
from cloister.models.state import write_adapter
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.entropy import Entropy
from cloister.privacy.evaluation_release import release_evaluation, release_evaluation_share
from cloister.privacy.release_kind import ReleaseKind
from cloister.protocol.exchange import RoundRequest, Step
from cloister.secagg.query import Query
from cloister.training.held_out_sum import STATISTICS, held_out_sum, released_shapes


def evaluate(admitted: Admitted, request: RoundRequest) -> Released:
    """Scores the adapter in a question on the site's held-out units, and releases the noised sum.

    Raises:
        RefusedError: The plan has no evaluation after this round, or its noise is shared; its
            moment is over, the site holds nothing out, or the adapter is not accepted; nothing was
            charged.
        AdapterFormatError: The adapter has other shapes than the study's; nothing was charged.
        BudgetError: The budget does not cover it; nothing was charged.
        RoundSpentError: It was charged and interrupted, now or before.
    """
    site, plan = admitted.site, admitted.plan
    check_listed(admitted, request)
    evaluations = plan.evaluations
    if evaluations is None or plan.sharing is not None:
        raise RefusedError(
            "an evaluation was asked in clear; the plan's noise is shared, so statistics leave "
            "only under a mask"
        )
    adapter = _received(admitted, request)
    entropy = site.entropy(plan, request.round)
    granted = site.ledger.reserve(
        asked_charge(admitted, request, entropy, request.adapter, ReleaseKind.EVALUATION)
    )
    if isinstance(granted, Released):  # asked again: the same bytes, so no second draw of noise
        return granted
    with charged(request.round):
        clipped = _scored(admitted, adapter)
        (noised,) = release_evaluation(clipped, evaluations, entropy).tensors
        return granted.release(encode(Adapter({STATISTICS: noised.numpy()})))


def evaluated_securely(
    admitted: Admitted, request: RoundRequest, asking: SecureExchange, entropy: Entropy
) -> Released:
    """Answers a message of the secure sum of an evaluation; only MASK charges and scores.

    Args:
        admitted: The site in the study; its plan lists the evaluation.
        request: The question.
        asking: The exchange that it belongs to.
        entropy: The source of noise.

    Raises:
        CloisterError: As `evaluate` and `SecureExchange.answer`.
    """
    adapter = Adapter({})
    if request.step is Step.MASK:
        adapter = _received(admitted, request)
    charge = asked_charge(
        admitted, request, entropy, request.adapter + request.body, ReleaseKind.EVALUATION
    )
    return asking.answer(request.step, charge, lambda: _share(admitted, adapter, entropy))


def _share(admitted: Admitted, adapter: Adapter, entropy: Entropy) -> NDArray[np.int64]:
    """Scores an adapter on the held-out units and adds this site's share of the noise; integers in
    steps of the shared grid, which must be masked before they leave."""
    (shape,) = released_shapes(admitted.workspace.task).values()
    noise = admitted.plan.shared_evaluation_noise(*shape)
    return release_evaluation_share(_scored(admitted, adapter, noise.grid), noise, entropy)


def check_listed(admitted: Admitted, request: RoundRequest) -> None:
    """Refuses an evaluation that the plan does not list."""
    evaluations = admitted.plan.evaluations
    if evaluations is None or request.round not in evaluations.rounds:
        raise RefusedError(
            f"an evaluation after round {request.round} was asked, which the plan does not list"
        )


def _received(admitted: Admitted, request: RoundRequest) -> Adapter:
    """Decodes the adapter that is to be scored; nothing is charged.

    Raises:
        RefusedError: The site holds nothing out, or a value of the adapter is too large.
        AdapterFormatError: It has other shapes than the study's.
    """
    site = admitted.site
    if site.held_out is None:
        raise RefusedError("an evaluation was asked, and this site holds no units out of training")
    adapter = decode(request.adapter, admitted.workspace.whole.shapes)
    limit = site.policy.accept.max_adapter_value
    if adapter.largest() > limit:
        raise RefusedError(
            f"accept.max_adapter_value: the adapter to evaluate has a value of "
            f"{adapter.largest():.3g}; at most {limit:g} is accepted"
        )
    return adapter


def is_evaluation(request: RoundRequest) -> bool:
    """Whether a question has the site score its held-out units."""
    if request.step is not Step.MASK:
        return request.step is Step.EVALUATE
    try:
        return Query.from_bytes(request.body).evaluates
    except CloisterError:  # it is refused; nothing is scored
        return False


def _scored(admitted: Admitted, adapter: Adapter, grid: float | None = None) -> ClippedSum:
    workspace, units = admitted.workspace, admitted.site.held_out or ()
    write_adapter(workspace.network, adapter)
    if grid is None:
        return held_out_sum(workspace.network, workspace.task, units, workspace.task.max_length)
    return held_out_sum(workspace.network, workspace.task, units, workspace.task.max_length, grid)
