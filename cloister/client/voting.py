"""A site's votes in a round: decode the candidates -> charge -> every unit votes -> release.

Before the charge no record is looked at. Asked again, the site sends the same bytes. With noise of
the site's own the counts leave in clear; where it is shared, under a mask, with a share of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.client.admission import Admitted
from cloister.client.asked_charge import asked_charge
from cloister.client.charged import charged
from cloister.client.secure import SecureExchange
from cloister.errors import RefusedError
from cloister.ledger.charge import Released
from cloister.models.state import write_adapter
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.entropy import Entropy
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.vote_release import release_vote_share, release_votes
from cloister.privacy.votes import HISTOGRAM
from cloister.protocol.candidates import CandidateText, decode_candidates
from cloister.protocol.exchange import RoundRequest, Step
from cloister.training.vote_sum import vote_sum


def vote(admitted: Admitted, request: RoundRequest) -> Released:
    """Lets the site's units vote for the candidates in a question, and releases the noised sum.

    Raises:
        RefusedError: The plan has no votes in this round, or its noise is shared; nothing was
            charged.
        AdapterFormatError: The question does not have the plan's number of candidates with the
            study's labels; nothing was charged.
        BudgetError: The budget does not cover it; nothing was charged.
        RoundSpentError: It was charged and interrupted, now or before.
    """
    site, plan = admitted.site, admitted.plan
    check_voting(admitted, request)
    if plan.sharing is not None:
        raise RefusedError(
            "votes were asked in clear; the plan's noise is shared, so counts leave only under a "
            "mask"
        )
    candidates = _candidates(admitted, request.body)
    entropy = site.entropy(plan, request.round)
    charge = asked_charge(admitted, request, entropy, request.body, ReleaseKind.VOTE)
    granted = site.ledger.reserve(charge)
    if isinstance(granted, Released):  # asked again: the same bytes, so no second draw of noise
        return granted
    with charged(request.round):
        (noised,) = release_votes(_counted(admitted, candidates), plan, entropy).tensors
        return granted.release(encode(Adapter({HISTOGRAM: noised.numpy()})))


def voted_securely(
    admitted: Admitted, request: RoundRequest, asking: SecureExchange, entropy: Entropy
) -> Released:
    """Answers a message of the secure sum of a round of votes; only MASK charges and votes.

    Args:
        admitted: The site in the study; its plan lists the round.
        request: The question; of MASK, the candidates are in the place of the adapter.
        asking: The exchange that it belongs to.
        entropy: The source of noise.

    Raises:
        CloisterError: As `vote` and `SecureExchange.answer`.
    """
    candidates: tuple[CandidateText, ...] = ()
    if request.step is Step.MASK:
        candidates = _candidates(admitted, request.adapter)
    charge = asked_charge(
        admitted, request, entropy, request.adapter + request.body, ReleaseKind.VOTE
    )
    return asking.answer(request.step, charge, lambda: _share(admitted, candidates, entropy))


def check_voting(admitted: Admitted, request: RoundRequest) -> None:
    """Refuses votes that the plan does not list."""
    plan = admitted.plan
    if plan.votes is None or not 1 <= request.round <= plan.num_rounds:
        raise RefusedError(
            f"votes in round {request.round} were asked, which the plan does not list"
        )


def _candidates(admitted: Admitted, body: bytes) -> tuple[CandidateText, ...]:
    limit = admitted.site.policy.accept.max_message_bytes
    if len(body) > limit:
        raise RefusedError(
            f"accept.max_message_bytes: candidates of {len(body)} bytes; at most {limit} are taken"
        )
    return decode_candidates(body, admitted.plan.votes or 0, admitted.workspace.task.labels)


def _share(
    admitted: Admitted, candidates: tuple[CandidateText, ...], entropy: Entropy
) -> NDArray[np.int64]:
    """Counts the votes and adds this site's share of the noise; integers in steps of the shared
    grid, which must be masked before they leave."""
    noise = admitted.plan.shared_vote_noise()
    return release_vote_share(_counted(admitted, candidates, noise.grid), noise, entropy)


def _counted(
    admitted: Admitted, candidates: tuple[CandidateText, ...], grid: float | None = None
) -> ClippedSum:
    workspace, units = admitted.workspace, admitted.site.units
    write_adapter(workspace.network, workspace.start)  # as the base computes
    return vote_sum(workspace.network, workspace.task, units, candidates, grid)
