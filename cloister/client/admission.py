"""Admits a site to a study whose base is loaded, or refuses; nothing is charged here.

No record is looked at, so `ready` and `refused` depend on the recipe, the site's own file and its
ledger only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from cloister.adapter.factor_pairs import cut_shapes
from cloister.adapter.formats import Shapes
from cloister.adapter.wire import encode, encoded_length
from cloister.client.acceptance import NOTHING_HELD_OUT
from cloister.client.policy import ProposedPlan, check
from cloister.client.site import Site
from cloister.errors import RefusedError
from cloister.ledger.charge import Charge
from cloister.privacy.accounting import cross_check
from cloister.privacy.plan import Plan
from cloister.training.config import TrainingConfig
from cloister.training.held_out_sum import released_shapes
from cloister.training.joined_processes import join
from cloister.training.proof import Proof, proven
from cloister.training.question import Question, question_of
from cloister.training.shapes import BatchShapes, one_by_one
from cloister.training.workspace import Workspace

# Takes workspace, plan, training and the largest adapter value; returns their proof.
Prove = Callable[[Workspace, Plan, TrainingConfig, float], Proof]


@dataclass(frozen=True)
class Admitted:
    """A study in which a site takes part; made by `admit` alone.

    Attributes:
        site: The site.
        workspace: Base, network and task; its parameters are overwritten by every round.
        plan: What the site runs: the stricter of study and policy.
        shapes: The shapes of private passes through the network, proven on this machine; None
            without privacy, and for votes, whose texts go through it one by one.
        question: How the global adapter in a round's question is read.
        period: Seconds between the moments at which updates leave; 0: at once.
        evaluation_period: The same of private evaluations.
        silent: Number of records of which nothing is learnt, because `task.max_length` cuts what
            would be. It depends on records, so it is for the site's operator alone: no message has
            a field for it.
    """

    site: Site
    workspace: Workspace
    plan: Plan
    shapes: BatchShapes | None
    question: Question
    period: float = 0.0
    evaluation_period: float = 0.0
    silent: int = 0

    def gather(self) -> None:
        """Starts the processes of `machine.processes` and checks that they compute alike; see
        `join`.

        Raises:
            RefusedError: A process cannot be started, or computes differently.
        """
        if self.shapes is not None:
            limit = self.site.policy.accept.max_adapter_value
            join(self.workspace, self.plan, self.site.training, self.shapes, limit)

    @property
    def evaluated(self) -> Shapes:
        """Names and shapes of the tensors that leave in a private evaluation; empty: none do."""
        if self.plan.evaluations is None:
            return {}
        return released_shapes(self.workspace.task)

    def sent_in(self, number: int) -> Shapes:
        """Names and shapes of the tensors that leave in a round."""
        names = self.workspace.trained_in_round(self.site.training, number) - self.workspace.kept
        return cut_shapes(self.workspace.start.select(names).shapes, self.site.rank)


def _proven(workspace: Workspace, plan: Plan, training: TrainingConfig, limit: float) -> Proof:
    return proven(workspace, plan, training, max_adapter_value=limit)


def admit(site: Site, workspace: Workspace, prove: Prove = _proven) -> Admitted:
    """Takes a site into a study, or refuses.

    Args:
        site: The site, with the plan that the coordinator proposes.
        workspace: The study's loaded base, network and task.
        prove: Proves on synthetic records that no record changes another's gradient on this
            machine.

    Raises:
        RefusedError: The policy does not accept the study (every reason is given); the accountants
            disagree on its plan; messages have other shapes than the plan; records are grouped by
            another unit than the plan's; the ledger allows more than the policy, or has another
            unit; the plan lists evaluations that this site or task cannot give; a process of
            `machine.processes` cannot be started, or computes differently.
        BudgetError: The budget does not cover one round of it.
        PreflightError: The study's per-record gradients are not exact here.

    Guarantees:
        A function of plan, policy, base, ledger and machine. Nothing is charged, and the proof,
        which takes longest, comes last.
    """
    asked = ProposedPlan(
        plan=site.plan,
        task=workspace.task.kind,
        base_sha256=workspace.base_sha256,
        target_modules=workspace.network.adapted_modules,
        method=workspace.method,
        message_bytes=len(encode(workspace.whole))
        if site.plan.votes is None
        else encoded_length(dict(site.plan.message), "float32"),
    )
    plan = check(asked, site.policy)
    agreed_epsilon(plan)
    if plan.votes is None:
        _check_shapes(site, workspace, plan)
    _check_promise(site, plan)
    if plan.evaluations is not None:
        _check_evaluations(site, workspace, plan)
    is_private = site.entropy(plan, 1).is_private
    units = "" if site.banding is None else site.banding.key
    site.ledger.check(
        Charge(
            study=site.study,
            round=1,
            plan=plan,
            request="",
            is_private=is_private,
            units=units,
            kind=plan.listed[0][0],
        )
    )
    question = question_of(workspace, site.training, from_seed=site.from_seed)
    admitted = Admitted(site, workspace, plan, _shapes(site, workspace, plan, prove), question)
    if workspace.team is not None:
        admitted.gather()
    return admitted


def _shapes(site: Site, workspace: Workspace, plan: Plan, prove: Prove) -> BatchShapes | None:
    """The shapes of private passes: those of the machine's proof, or with isolation one record at a
    time."""
    if plan.max_grad_norm is None or plan.votes is not None:
        return None
    shapes = prove(workspace, plan, site.training, site.policy.accept.max_adapter_value).shapes
    if site.policy.privacy.isolate_units:
        return replace(one_by_one(workspace.task.max_length), threads=shapes.threads)
    return shapes


@lru_cache(maxsize=64)
def agreed_epsilon(plan: Plan) -> float:
    """ε of a whole plan by PLD, where RDP and PRV agree; ∞ without privacy.

    Raises:
        RefusedError: The accountants disagree; nothing is released on such a figure.
    """
    return cross_check(plan.releases, plan.delta)


def _check_shapes(site: Site, workspace: Workspace, plan: Plan) -> None:
    """Checks, before anything is charged, that the trained tensors are those that the plan
    releases."""
    planned = dict(plan.message)
    leaves = cut_shapes(workspace.sent.shapes, site.rank)
    if any(planned.get(name) != shape for name, shape in leaves.items()):
        raise RefusedError(
            "the trained tensors do not have the names and shapes that the plan releases"
        )


def _check_evaluations(site: Site, workspace: Workspace, plan: Plan) -> None:
    """Refuses evaluations where nothing is held out, where the task has no statistics, or where
    their shared noise does not fit its bits."""
    (shape,) = released_shapes(workspace.task).values()
    if plan.sharing is not None:
        plan.shared_evaluation_noise(*shape)
    if site.held_out is None:
        raise RefusedError(NOTHING_HELD_OUT)


def _check_promise(site: Site, plan: Plan) -> None:
    """Refuses a unit or ledger under which the plan's promise would be false at this site."""
    if site.unit is not plan.unit:
        raise RefusedError(
            f"the plan protects one {plan.unit}; the records are grouped by {site.unit}: group "
            "them by the plan's unit"
        )
    allowed, kept = site.policy.lifetime, site.ledger.budget
    if kept.epsilon > allowed.epsilon or kept.delta > allowed.delta:
        raise RefusedError(
            f"budget: the policy allows epsilon {allowed.epsilon:g} (delta {allowed.delta:g}) for "
            f"the data set's lifetime; its ledger was made with {kept.epsilon:g} ({kept.delta:g}); "
            "a ledger's budget never changes: set the policy's budget to it, or stop here"
        )
