"""A site's votes in a round: decode the candidates -> charge -> every unit votes -> release.

Before the charge no record is looked at. Asked again, the site sends the same bytes.
"""

from __future__ import annotations

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.client.admission import Admitted
from cloister.client.asked_charge import asked_charge
from cloister.client.charged import charged
from cloister.errors import RefusedError
from cloister.ledger.charge import Released
from cloister.models.state import write_adapter
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.vote_release import release_votes
from cloister.privacy.votes import HISTOGRAM
from cloister.protocol.candidates import decode_candidates
from cloister.protocol.exchange import RoundRequest
from cloister.training.vote_sum import vote_sum


def vote(admitted: Admitted, request: RoundRequest) -> Released:
    """Lets the site's units vote for the candidates in a question, and releases the noised sum.

    Raises:
        RefusedError: The plan has no votes in this round; nothing was charged.
        AdapterFormatError: The question does not have the plan's number of candidates with the
            study's labels; nothing was charged.
        BudgetError: The budget does not cover it; nothing was charged.
        RoundSpentError: It was charged and interrupted, now or before.
    """
    site, plan, workspace = admitted.site, admitted.plan, admitted.workspace
    if plan.votes is None or not 1 <= request.round <= plan.num_rounds:
        raise RefusedError(
            f"votes in round {request.round} were asked, which the plan does not list"
        )
    candidates = decode_candidates(request.body, plan.votes, workspace.task.labels)
    entropy = site.entropy(plan, request.round)
    charge = asked_charge(admitted, request, entropy, request.body, ReleaseKind.VOTE)
    granted = site.ledger.reserve(charge)
    if isinstance(granted, Released):  # asked again: the same bytes, so no second draw of noise
        return granted
    with charged(request.round):
        write_adapter(workspace.network, workspace.start)  # as the base computes
        clipped = vote_sum(workspace.network, workspace.task, site.units, candidates)
        (noised,) = release_votes(clipped, plan, entropy).tensors
        return granted.release(encode(Adapter({HISTOGRAM: noised.numpy()})))
