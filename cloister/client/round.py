"""A site's part of one round: decode -> charge -> train -> release.

Before `reserve` nothing is charged, and an error becomes `refused` or `budget`. After it the whole
round is charged, and every error becomes `spent`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cloister.adapter.compact import encode_compact
from cloister.adapter.factor_pairs import cut, filled
from cloister.adapter.formats import BFLOAT16_ROUNDING
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import digest, encode
from cloister.client.admission import Admitted, admit
from cloister.client.asked_charge import asked_charge
from cloister.client.charged import charged
from cloister.client.evaluating import check_listed, evaluate, evaluated_securely
from cloister.client.kept_between import kept_tensors, optimizer_memory, own_start
from cloister.client.rollback import check_seen
from cloister.client.secure import SecureExchange, agreed_terms
from cloister.client.site import Site
from cloister.client.voting import check_voting, vote, voted_securely
from cloister.errors import RefusedError, UsageError
from cloister.evidence.certificate_alone import to_bytes
from cloister.ledger.charge import Released
from cloister.privacy.correlated_noise import BandedStep
from cloister.privacy.entropy import Entropy
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.protocol.delivery import Claim
from cloister.protocol.exchange import RoundReply, RoundRequest, Status, Step
from cloister.secagg.query import Query
from cloister.training.config import TrainingConfig
from cloister.training.local import local_update
from cloister.training.memory import OptimizerMemory
from cloister.training.shared import shared_gradient
from cloister.training.workspace import Workspace

OnStep = Callable[[], None]

log = logging.getLogger(__name__)


def answer(site: Site, workspace: Workspace, request: RoundRequest, on_step: OnStep) -> RoundReply:
    """Admits a site and has it answer one question; see `admit` and `run_round`."""
    return run_round(admit(site, workspace), request, on_step)


def run_round(admitted: Admitted, request: RoundRequest, on_step: OnStep) -> RoundReply:
    """Answers one question about a study in which the site takes part.

    Args:
        admitted: The site in the study.
        request: The coordinator's message.
        on_step: Called after each local step.

    Raises:
        RefusedError: The question is about another study or a round outside the plan, or holds
            something that the policy does not accept; or a process of `machine.processes` cannot be
            started; nothing was charged.
        AdapterFormatError: The question's adapter has other shapes than the study's; nothing was
            charged.
        BudgetError: The site's budget does not cover the round; nothing was charged.
        LedgerError: The charge could not be written, and nothing was drawn; or the ledger lacks an
            entry that the coordinator had from it (it was rolled back), and nothing was charged.
        RoundSpentError: The round was charged and interrupted, now or before; `__cause__` says why.

    Guarantees:
        The round is charged, and the charge synced, before the first batch is drawn. Before the
        charge no record is looked at, so the kind of error depends on question and ledger only. The
        message holds the clipped, noised delta as the ledger released it, plan constants and
        nothing else. Asked again for a released round, the site sends the same bytes and draws
        nothing. Where the plan's noise is shared, an update leaves under a mask only.
    """
    site, plan = admitted.site, admitted.plan
    if request.study != site.study:
        raise RefusedError(f"study {request.study[:12]} asked, {site.study[:12]} accepted")
    # Before all answers: a ledger from an old backup lacks charges, so it must not even give a
    # certificate.
    check_seen(site.ledger, request.seen)
    if request.step is Step.CERTIFY:
        return _certified(admitted, request)
    if request.step is Step.PREPARE:
        return _ready(site, request)
    if request.step is Step.DELIVER:
        return _delivered(admitted, request)
    if request.step is Step.EVALUATE:
        _check_length(site, request)
        return _released(site, request, evaluate(admitted, request))
    if request.step is Step.VOTE:
        return _released(site, request, vote(admitted, request))
    if plan.votes is not None and (plan.sharing is None or request.step is Step.TRAIN):
        raise RefusedError(f"{request.step} was asked; this study's plan lists votes alone")
    if not 1 <= request.round <= plan.num_rounds:
        raise RefusedError(f"round {request.round} is outside the plan's {plan.num_rounds}")
    _check_length(site, request)
    if plan.sharing is not None:
        return _answer_secure(admitted, request, on_step)
    if request.step is not Step.TRAIN:
        raise RefusedError(f"{request.step} was asked; this plan's noise is the site's own")
    # Everything that can fail without records comes before the charge: a bad message or a process
    # that does not start must not cost budget.
    begin = _decoded(admitted, request)
    if admitted.workspace.team is not None:
        _gather(admitted, request)
    with nullcontext() if site.banding is None else site.banding.alone():
        return _charged_and_trained(admitted, request, begin, on_step)


def _charged_and_trained(
    admitted: Admitted, request: RoundRequest, begin: _Begin, on_step: OnStep
) -> RoundReply:
    """Charges a round with noise of the site's own, trains it and releases the update."""
    site, plan = admitted.site, admitted.plan
    _check_noise(admitted, request)
    entropy = site.entropy(plan, request.round)
    granted = site.ledger.reserve(
        asked_charge(admitted, request, entropy, request.adapter, ReleaseKind.TRAINING)
    )
    if isinstance(granted, Released):  # asked again: the same bytes, so no second draw of noise
        return _released(site, request, granted)
    with charged(request.round):
        banded = _banded(admitted)
        delta = _trained(admitted, begin, entropy, banded, on_step)
        released = granted.release(_encoded(delta, site.training, plan))
        if site.banding is not None and banded is not None and banded.number + 1 == plan.num_rounds:
            site.banding.end()
        return _released(site, request, released)


def _check_length(site: Site, request: RoundRequest) -> None:
    limit = site.policy.accept.max_message_bytes
    if len(request.adapter) > limit:
        raise RefusedError(
            f"accept.max_message_bytes: a message of {len(request.adapter)} bytes; at most {limit} "
            "are taken"
        )


def _gather(admitted: Admitted, request: RoundRequest) -> None:
    """Starts all processes of the site, unless the round was charged before and is only sent
    again."""
    if not admitted.site.ledger.has_charged(admitted.site.study, request.round):
        admitted.gather()


@dataclass(frozen=True)
class _Begin:
    """The state of a round before anything is charged.

    Attributes:
        number: The round.
        start: The adapter that training starts from: the global one, or the site's own.
        center: The adapter from which the delta is counted.
        memory: The optimizer's moments after the last earlier round; None: it keeps none.
    """

    number: int
    start: Adapter
    center: Adapter
    memory: OptimizerMemory | None


def _decoded(admitted: Admitted, request: RoundRequest) -> _Begin:
    """Decodes the adapter in a question and checks it against shapes and policy; nothing is
    charged."""
    site, workspace = admitted.site, admitted.workspace
    if site.start is not None:
        _check_start(site, request)
    received = admitted.question.decode(request.adapter, request.round)
    center = Adapter({**received, **kept_tensors(site, workspace, request.round)})
    own = own_start(site, center, request.round)
    begin = _Begin(request.round, own, center, optimizer_memory(site, workspace, request.round))
    _check_values(site, begin.start)
    return begin


def _check_start(site: Site, request: RoundRequest) -> None:
    """Refuses a round 1 that does not begin with the adapter that the accepted study names."""
    if site.start is None or request.round != 1 or digest(request.adapter) == site.start:
        return
    raise RefusedError(
        "study.start: round 1 begins with another adapter than the study that this site accepted "
        f"names (SHA-256 {site.start[:16]}…); the coordinator must send that one"
    )


def _check_values(site: Site, start: Adapter) -> None:
    limit = site.policy.accept.max_adapter_value
    if start.largest() > limit:
        raise RefusedError(
            "accept.max_adapter_value: the adapter to start from has a value of "
            f"{start.largest():.3g}; at most {limit:g} is accepted, since isolation was tested up "
            "to it"
        )


def _check_noise(admitted: Admitted, request: RoundRequest) -> None:
    """Refuses a round of a study whose earlier noise is lost; an answered round passes."""
    site, plan = admitted.site, admitted.plan
    if site.banding is not None and not site.ledger.has_charged(site.study, request.round):
        site.ledger.refresh()
        site.banding.recent(plan, site.ledger.released_rounds(site.study, plan))


def _banded(admitted: Admitted) -> BandedStep | None:
    """Returns the step that was just charged, with correlated noise."""
    site, plan = admitted.site, admitted.plan
    if site.banding is None:
        return None
    return site.banding.step(plan, site.ledger.released_rounds(site.study, plan))


def _trained(
    admitted: Admitted,
    begin: _Begin,
    entropy: Entropy,
    banded: BandedStep | None,
    on_step: OnStep,
) -> Adapter:
    """Trains one round, saves what the site keeps, and returns the delta that may leave."""
    site, workspace, center = admitted.site, admitted.workspace, begin.center
    workspace.train_names(workspace.trained_in_round(site.training, begin.number))
    delta = local_update(
        workspace.network,
        workspace.task,
        site.units,
        filled(cut(begin.start, site.rank), begin.start.shapes),
        admitted.plan,
        site.training,
        round_number=begin.number,
        entropy=entropy,
        shapes=admitted.shapes,
        most_value=site.policy.accept.max_adapter_value if admitted.plan.is_private else None,
        summing=workspace.summing,
        rank=site.rank,
        center=filled(cut(center, site.rank), center.shapes),
        memory=begin.memory,
        banded=banded,
        on_step=on_step,
    )
    if site.banding is not None and banded is not None:
        # First: whatever follows from this step's sum, kept here or sent, shows its noise. After a
        # crash later steps must go on from that noise, and not from other noise for this step.
        site.banding.save(admitted.plan, banded.recent)
    if site.optimizer is not None and begin.memory is not None:
        site.optimizer.save(begin.number, begin.memory.state)
    if site.training.personal and site.personal is not None:
        site.personal.save(begin.number, begin.start.replace(center.select(delta) + delta))
    kept = delta.select(delta.keys() & workspace.kept)
    if site.personal is not None and kept:
        site.personal.save(begin.number, center.select(kept) + kept)
    return cut(delta.select(delta.keys() - workspace.kept), site.rank)


def _answer_secure(admitted: Admitted, request: RoundRequest, on_step: OnStep) -> RoundReply:
    """Answers one message of secure aggregation; only MASK charges and trains."""
    site, workspace, plan = admitted.site, admitted.workspace, admitted.plan
    if site.keys is None or request.step is Step.TRAIN:
        raise RefusedError("the plan's noise is shared, so an update leaves only under a mask")
    question = Query.from_bytes(request.body)
    if question.evaluates:
        check_listed(admitted, request)
    if plan.votes is not None:
        check_voting(admitted, request)
    terms = agreed_terms(
        site.study, question, plan, site.policy.accept, site.name, site.ledger.public_key
    )
    asking = SecureExchange(
        site.name,
        site.ledger,
        site.keys,
        terms,
        question,
        request.round,
        digest(request.adapter),
        # The study's list: this site may leave before it, and all mask a sum under one number.
        site.plan.evaluations is not None,
    )
    entropy = site.entropy(plan, request.round)
    if question.evaluates:
        return _released(site, request, evaluated_securely(admitted, request, asking, entropy))
    if plan.votes is not None:
        return _released(site, request, voted_securely(admitted, request, asking, entropy))
    start = Adapter({})
    if request.step is Step.MASK:
        _check_start(site, request)
        start = admitted.question.decode(request.adapter, request.round)
        _check_values(site, start)
        if workspace.team is not None:
            _gather(admitted, request)

    def gradient() -> NDArray[np.int64]:
        workspace.train_names(workspace.trained_in_round(site.training, request.round))
        return shared_gradient(
            workspace.network,
            workspace.task,
            site.units,
            start,
            plan,
            site.training,
            entropy=entropy,
            shapes=admitted.shapes,
            summing=workspace.summing,
            on_step=on_step,
        )

    charge = asked_charge(
        admitted, request, entropy, request.adapter + request.body, ReleaseKind.TRAINING
    )
    return _released(site, request, asking.answer(request.step, charge, gradient))


def _encoded(delta: Adapter, training: TrainingConfig, plan: Plan) -> bytes:
    """Encodes a delta; rounding may lengthen it, so it is scaled to keep the bound."""
    write = encode if training.adapter_dtype is None else encode_compact
    if training.update_dtype == "bfloat16":
        return write(delta.scale(1 - BFLOAT16_ROUNDING), "bfloat16")
    return write(delta, training.update_dtype, plan.max_update_norm)


def _ready(site: Site, request: RoundRequest) -> RoundReply:
    return _signed(site, RoundReply(site.name, request.round, Status.READY, b"", 0.0, ""))


def _delivered(admitted: Admitted, request: RoundRequest) -> RoundReply:
    """Keeps the study's final adapter; the answer is one word, and nothing is charged."""
    site = admitted.site
    if site.deliveries is None:
        raise RefusedError(
            "site.keep_adapters: false at this site, so it takes no adapter of a finished study"
        )
    rounds = range(1, admitted.plan.num_rounds + 1)
    if not any(site.ledger.has_charged(site.study, number) for number in rounds):
        raise RefusedError("this site took no part in the study, so it takes no adapter of it")
    _check_length(site, request)
    claim = Claim.from_bytes(request.body)
    site.deliveries.keep(request.adapter, claim, admitted.workspace)
    return _ready(site, request)


def _certified(admitted: Admitted, request: RoundRequest) -> RoundReply:
    """Answers with the site's certificate, a function of its ledger, which holds no record."""
    site = admitted.site
    # It is asked when a study ends: no further step needs the noise.
    if site.banding is not None and site.banding.end():
        log.warning(
            "study %s: its certificate was asked for before its last round, so it ends at this "
            "site: the secret noise of its last steps was removed",
            site.study[:12],
        )
    try:
        certificate = site.ledger.certificate(
            site.study, site=site.name, base=admitted.workspace.base_sha256
        )
    except UsageError as error:
        raise RefusedError(f"no certificate: {error}") from error
    return _released(site, request, Released(to_bytes(certificate), ""))


def _released(site: Site, request: RoundRequest, released: Released) -> RoundReply:
    promised = site.stated_epsilon() if released.head else 0.0
    return _signed(
        site,
        RoundReply(
            site.name, request.round, Status.TRAINED, released.payload, promised, released.head
        ),
    )


def _signed(site: Site, reply: RoundReply) -> RoundReply:
    return replace(reply, signature=site.ledger.sign(reply.statement(site.study)))
