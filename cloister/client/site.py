"""A site: its records, its plan and its ledger, and how it answers one round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cloister.adapter.exchange import RoundReply, RoundRequest, Status, Step
from cloister.adapter.formats import BFLOAT16_ROUNDING
from cloister.adapter.pairs import cut, filled
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, digest, encode
from cloister.client.personal import PersonalAdapter
from cloister.client.policy import Asked, check
from cloister.client.policy_file import SitePolicy
from cloister.client.secure import Asking, EpochKeys, agreed_terms
from cloister.errors import RefusedError, UsageError
from cloister.privacy.accounting import cross_check
from cloister.privacy.certificate_alone import to_bytes
from cloister.privacy.entropy import Entropy, OsEntropy, SeededEntropy
from cloister.privacy.ledger import Charge, Ledger, Released
from cloister.privacy.plan import Plan
from cloister.privacy.secagg.question import Question
from cloister.privacy.units import Unit
from cloister.seeds import child_generator
from cloister.training.config import TrainingConfig
from cloister.training.local import local_update
from cloister.training.shared import shared_gradient
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace


@dataclass(frozen=True)
class Site:
    """One institution, as its own process sees it.

    Attributes:
        name: Public.
        study: Digest of the recipe that it accepted.
        plan: The constants that the coordinator proposes.
        policy: The institution's: what it accepts, and the least it demands.
        training: How it trains.
        units: Its encoded records, by unit; private.
        unit: What they were put together by.
        ledger: Where it charges and notes what leaves.
        seed: The study's seed; of sampling only where nothing is private.
        personal: Where it keeps what never leaves; None where a study has nothing of the kind.
        rank: Of its adapters, in a study of mixed ranks; None: the study's.
        keys: Of its epoch of secure aggregation, where noise is shared; kept over rounds.
    """

    name: str
    study: str
    plan: Plan
    policy: SitePolicy
    training: TrainingConfig
    units: Sequence[UnitExamples]
    unit: Unit
    ledger: Ledger
    seed: int
    personal: PersonalAdapter | None = None
    rank: int | None = None
    keys: EpochKeys | None = None


def answer(
    site: Site, workspace: Workspace, request: RoundRequest, on_step: Callable[[], None]
) -> RoundReply:
    """Trains one round and makes the reply.

    Args:
        site: The site.
        workspace: Base and network; its parameters are overwritten.
        request: The coordinator's message.
        on_step: Called after each local step.

    Raises:
        RefusedError: The request is for another study, a round outside the plan, or something
            that the site's policy does not accept; the accountants disagree on its plan; the
            records are grouped by another unit than is promised, or the ledger allows more than
            the policy.
        BudgetError: The site's budget does not cover the round.
        RoundSpentError: The round was charged before and cut off.
        AdapterFormatError: The global adapter is not of the study's shapes, or what the site keeps
            is damaged.
        LedgerError: The charge could not be written; nothing was drawn.

    Guarantees:
        The round is charged, and the charge synced, before the first batch is drawn. The message
        holds the clipped, noised delta as the ledger released it, plan constants and nothing else.
        Asked again for a released round, the site sends the same bytes and draws nothing. Where
        the plan's noise is shared, an update leaves under a mask only.
    """
    if request.study != site.study:
        raise RefusedError(f"study {request.study[:12]} asked, {site.study[:12]} accepted")
    if request.step is Step.CERTIFY:
        return _certified(site, workspace, request)
    plan = check(_asked(site, workspace, request), site.policy)
    agreed_epsilon(plan)
    if not 1 <= request.round <= plan.num_rounds:
        raise RefusedError(f"round {request.round} is outside the plan's {plan.num_rounds}")
    if plan.sharing is not None:
        return _answer_secure(site, workspace, request, plan, on_step)
    if request.step is not Step.TRAIN:
        raise RefusedError(f"{request.step} was asked; this plan's noise is the site's own")
    received = decode(request.adapter, workspace.whole.shapes)
    center = Adapter({**received, **_kept(site, workspace, request.round)})
    start = _own(site, center, request.round)
    _accept(site, plan, start)
    entropy = _entropy(site, plan, request.round)
    granted = site.ledger.reserve(
        Charge(
            study=site.study,
            round=request.round,
            plan=plan,
            request=digest(request.adapter),
            is_private=entropy.is_private,
        )
    )
    if isinstance(granted, Released):
        return _reply(site, request, granted)
    workspace.train_names(workspace.trained_in_round(site.training, request.round))
    delta = local_update(
        workspace.network,
        workspace.task,
        site.units,
        filled(cut(start, site.rank), start.shapes),
        plan,
        _training(site),
        round_number=request.round,
        entropy=entropy,
        rank=site.rank,
        center=filled(cut(center, site.rank), center.shapes),
        on_step=on_step,
    )
    if site.training.personal and site.personal is not None:
        site.personal.save(request.round, start.replace(center.select(delta) + delta))
    kept = delta.select(delta.keys() & workspace.kept)
    if site.personal is not None and kept:
        site.personal.save(request.round, center.select(kept) + kept)
    delta = cut(delta.select(delta.keys() - workspace.kept), site.rank)
    planned = dict(plan.message)
    if any(planned.get(name) != shape for name, shape in delta.shapes.items()):
        raise RefusedError("the delta is not of the names and shapes that the plan lets out")
    return _reply(site, request, granted.release(_encoded(delta, site.training, plan)))


def _answer_secure(
    site: Site, workspace: Workspace, request: RoundRequest, plan: Plan,
    on_step: Callable[[], None],
) -> RoundReply:  # fmt: skip
    """One exchange of secure aggregation."""
    if site.keys is None or request.step is Step.TRAIN:
        raise RefusedError("the plan's noise is shared: an update leaves under a mask only")
    question = Question.from_bytes(request.body)
    terms = agreed_terms(
        site.study, question, plan, site.policy.accept, site.name, site.ledger.public_key
    )
    asking = Asking(site.name, site.ledger, site.keys, terms, question, request.round)
    entropy = _entropy(site, plan, request.round)

    def gradient() -> NDArray[np.int64]:
        workspace.train_names(workspace.trained_in_round(site.training, request.round))
        start = decode(request.adapter, workspace.whole.shapes)
        return shared_gradient(
            workspace.network, workspace.task, site.units, start, plan, _training(site),
            entropy=entropy, on_step=on_step,
        )  # fmt: skip

    if request.step is Step.MASK:
        _accept(site, plan, decode(request.adapter, workspace.whole.shapes))
    charge = Charge(
        study=site.study,
        round=request.round,
        plan=plan,
        request=digest(request.adapter + request.body),
        is_private=entropy.is_private,
    )
    return _reply(site, request, asking.answer(request.step, charge, gradient))


def _accept(site: Site, plan: Plan, start: Adapter) -> None:
    """Refuses what would make the plan's promise untrue at this site."""
    limit = site.policy.accept.max_adapter_value
    if start.largest() > limit:
        raise RefusedError(
            f"accept.max_adapter_value: the adapter to start from has a value of "
            f"{start.largest():.3g}; "
            f"at most {limit:g} is taken: beyond, rounding couples records"
        )
    if site.unit is not plan.unit:
        raise RefusedError(
            f"the plan promises for one {plan.unit}, the records are grouped by {site.unit}; load "
            "them by the plan's unit"
        )
    allowed, kept = site.policy.lifetime, site.ledger.budget
    if kept.epsilon > allowed.epsilon or kept.delta > allowed.delta:
        raise RefusedError(
            f"budget: the policy allows epsilon {allowed.epsilon:g} (delta {allowed.delta:g}) for "
            f"the data set's life, its ledger was begun with {kept.epsilon:g} ({kept.delta:g}); a "
            "ledger's budget never changes: raise the policy's again, or stop here"
        )


def _own(site: Site, center: Adapter, number: int) -> Adapter:
    """Where a round starts: from the shared adapter, or from the site's own beside it."""
    if not site.training.personal or site.personal is None:
        return center
    return site.personal.before(number, center.shapes) or center


def _kept(site: Site, workspace: Workspace, number: int) -> Adapter:
    """What the site keeps, as a round starts from it: its own, or the study's start."""
    if not workspace.kept:
        return Adapter({})
    start = workspace.start.select(workspace.kept)
    own = site.personal.before(number, start.shapes) if site.personal is not None else None
    return own or start


def _training(site: Site) -> TrainingConfig:
    """How the site trains; with isolation, in physical batches of one unit."""
    if site.policy.privacy.isolate_units:
        return replace(site.training, physical_batch_tokens=1)
    return site.training


def _encoded(delta: Adapter, training: TrainingConfig, plan: Plan) -> bytes:
    """The bytes that leave; what rounding lengthens is made room for under the agreed bound."""
    if training.update_dtype == "bfloat16":
        return encode(delta.scale(1 - BFLOAT16_ROUNDING), "bfloat16")
    return encode(delta, training.update_dtype, plan.max_update_norm)


def _certified(site: Site, workspace: Workspace, request: RoundRequest) -> RoundReply:
    """The site's certificate of the study: a function of its ledger, which holds no record."""
    try:
        certificate = site.ledger.certificate(
            site.study, site=site.name, base=workspace.base_sha256
        )
    except UsageError as error:
        raise RefusedError(f"no certificate: {error}") from error
    return _reply(site, request, Released(to_bytes(certificate), ""))


def _reply(site: Site, request: RoundRequest, released: Released) -> RoundReply:
    promised = site.ledger.promise.epsilon if released.head else 0.0
    reply = RoundReply(
        site.name, request.round, Status.TRAINED, released.payload, promised, released.head
    )
    return replace(reply, signature=site.ledger.sign(reply.statement(site.study)))


@lru_cache(maxsize=64)
def agreed_epsilon(plan: Plan) -> float:
    """ε of a whole plan by PLD, where RDP and PRV agree; ∞ without privacy.

    Raises:
        RefusedError: They do not; nothing is released on such a figure.
    """
    return cross_check([plan.event(plan.num_rounds * plan.local_steps)], plan.delta)


def _asked(site: Site, workspace: Workspace, request: RoundRequest) -> Asked:
    return Asked(
        plan=site.plan,
        task=workspace.task.kind,
        base_sha256=workspace.base_sha256,
        target_modules=workspace.network.adapted_modules,
        message_bytes=len(request.adapter),
    )


def _entropy(site: Site, plan: Plan, round_number: int) -> Entropy:
    """Unpredictable where something is private; else reproducible from the study's seed."""
    if plan.is_private:
        return OsEntropy()
    return SeededEntropy(child_generator(site.seed, "site", site.name, "round", round_number))
