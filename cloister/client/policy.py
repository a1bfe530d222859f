"""Tightens a coordinator's plan to the site's policy, or refuses it.

    asked plan ──▶ can each field be verified? ──▶ stricter of plan and policy ──▶ its whole cost
                        │ no                            │ cannot be made              │ too high
                        └───────────────────────────────┴── RefusedError, all reasons ┘

Nothing here looks at a record: the decision depends on public constants and `site.toml` only, so a
refusal reveals nothing about the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from cloister.bounds import listed
from cloister.client.policy_file import LARGEST_BOUND, SMALLEST_BOUND, AcceptPolicy, SitePolicy
from cloister.errors import RefusedError
from cloister.ledger.stated import shown
from cloister.models.config import Method
from cloister.privacy.accounting import SMALLEST_DELTA
from cloister.privacy.events import MOST_NOISE
from cloister.privacy.plan import Plan
from cloister.privacy.units import Neighbouring, Unit

# Whole numbers up to here are exact as float64, in which rates are computed.
LARGEST_COUNT = 2**53
EVALUATIONS_NOT_ACCEPTED = (
    "accept.evaluations: the study evaluates its adapter privately (privacy.evaluation_rounds): "
    "noised statistics of held-out units leave, and this site accepts no such release; set "
    "accept.evaluations = true in site.toml, or ask for a study without private evaluations"
)
VOTES_NOT_ACCEPTED = (
    "accept.votes: in this study every unit votes for public texts, and noised counts of the votes "
    "leave; this site accepts no such release: set accept.votes = true in site.toml, or ask for a "
    "study that trains"
)


@dataclass(frozen=True, kw_only=True)
class ProposedPlan:
    """The public facts of a study that a coordinator proposes.

    Attributes:
        plan: The constants that it proposes.
        task: Kind of task, as a recipe names it.
        base_sha256: SHA-256 of the base's weights that the study states; None: not stated. The
            code that loads the weights compares it.
        target_modules: Modules that get an adapter, as resolved for the base; empty: not named;
            None: they depend on a base that is not loaded yet, or there are none (prompts).
        message_bytes: Bytes of the longest message, in wire format; 0 where they are not known yet.
        method: Kind of adapter, as a recipe names it.
    """

    plan: Plan
    task: str
    base_sha256: str | None
    target_modules: tuple[str, ...] | None
    message_bytes: int
    method: Method


def reasons_but_cost(asked: ProposedPlan, policy: SitePolicy) -> list[str]:
    """Reasons against a study apart from its ε, one per line; no noise is calibrated.

    Args:
        asked: As for `check`.
        policy: The institution's.
    """
    return _but_cost(asked, policy)[1]


def check(asked: ProposedPlan, policy: SitePolicy) -> Plan:
    """Decides whether the site takes part, and on which plan.

    Args:
        asked: What the coordinator asks.
        policy: The institution's.

    Returns:
        The effective plan: see `effective_plan`.

    Raises:
        RefusedError: The site does not take part; every reason with its remedy, one per line.

    Guarantees:
        A plan comes back only if every field of the asked one could be verified, it is private
        wherever the budget is finite, and the whole effective plan costs at most
        `budget.study_epsilon` per unit added or removed, at its own δ. The ledger checks the data
        set's remaining budget, round by round.
    """
    effective, reasons = _but_cost(asked, policy)
    if effective is not None and not reasons:  # the cost takes longest to compute
        reasons = _too_costly(effective, policy)
    if reasons or effective is None:
        raise RefusedError("\n".join(reasons))
    return effective


def _but_cost(asked: ProposedPlan, policy: SitePolicy) -> tuple[Plan | None, list[str]]:
    """Returns the effective plan, and the reasons against the study apart from its ε."""
    reasons = _not_accepted(asked, policy.accept)
    if asked.plan.evaluations is not None and not policy.accept.evaluations:
        reasons.append(EVALUATIONS_NOT_ACCEPTED)
    if asked.plan.votes is not None and not policy.accept.votes:
        reasons.append(VOTES_NOT_ACCEPTED)
    effective, problems = _stricter(asked.plan, policy)
    reasons += problems
    if effective is not None:
        reasons += _without_privacy(asked.plan, effective, policy)
        reasons += _not_shared(asked.plan, effective, policy.accept)
        reasons += _under_noised(asked.plan, policy)
    return effective, reasons


def effective_plan(asked: ProposedPlan, policy: SitePolicy) -> Plan:
    """The stricter of coordinator and site in every field.

    A smaller expected batch lowers the sample rate; the site's declared size stays. If the policy
    turns a plan for records into one for persons, `max_records` stays, so one record of a person
    counts; ask the coordinator for a plan for persons to use more.

    Raises:
        RefusedError: A field cannot be verified, or no plan is strict enough; all reasons.

    Guarantees:
        Noise multiplier at least, clipping bound, sample rate, δ, rounds and local steps at most
        what either side says, and δ at most the budget's; a unit at least as strong as either's.
        The noise multiplier is a ratio, so a lower bound also lowers the noise and leaves ε as it
        is. An effective plan comes back unchanged if it is asked again.
    """
    effective, problems = _stricter(asked.plan, policy)
    if effective is None:
        raise RefusedError("\n".join(problems))
    return effective


def _stricter(plan: Plan, policy: SitePolicy) -> tuple[Plan | None, list[str]]:
    """The effective plan, or None with the reasons."""
    problems = _unverifiable(plan)
    if problems:
        return None, problems
    privacy, accept = policy.privacy, policy.accept
    # A vote is of every unit, and of length 1: the switch accept.votes says whether that may be.
    is_vote = plan.votes is not None
    batch = _largest_batch(plan, 1.0 if is_vote else privacy.max_sample_rate)
    if batch < 1:
        problems.append(
            f"privacy.max_sample_rate: {privacy.max_sample_rate} of the declared "
            f"{plan.public_records} {plan.unit}s is less than one per batch; raise it in "
            "site.toml, or correct site.public_records"
        )
    if plan.unit is Unit.PERSON and privacy.person is None:
        problems.append(
            "privacy.person: the plan hides persons, and this site cannot tell whose a record is; "
            "name the column of persons in site.toml, or ask for a study with privacy.unit = "
            '"record"'
        )
    if problems:
        return None, problems
    bound = math.inf if plan.max_grad_norm is None else plan.max_grad_norm
    bound = bound if is_vote else min(bound, privacy.max_grad_norm)
    rounds = min(plan.num_rounds, accept.max_rounds)
    return replace(
        plan,
        expected_batch_size=batch,
        local_steps=min(plan.local_steps, accept.max_local_steps),
        num_rounds=rounds,
        evaluations=None if plan.evaluations is None else plan.evaluations.until(rounds),
        noise_multiplier=max(plan.noise_multiplier, privacy.min_noise_multiplier),
        max_grad_norm=None if math.isinf(bound) else bound,
        delta=min(plan.delta, privacy.max_delta, policy.budget.delta),
        unit=Unit.PERSON if Unit.PERSON in (plan.unit, privacy.unit) else Unit.RECORD,
    ), []


def _largest_batch(plan: Plan, max_rate: float) -> int:
    """The largest expected batch whose rate, as computed in a plan, is at most what both allow."""
    groups, records = plan.groups, plan.public_records
    batch = min(plan.expected_batch_size, math.floor(max_rate * records / groups) + 1)
    while groups * batch / records > max_rate:
        batch -= 1
    return batch


def _unverifiable(plan: Plan) -> list[str]:
    """Fields of a plan from which no guarantee can be computed, one line each."""
    problems = [
        f"plan.{name}: {getattr(plan, name)!r} given; a whole number from 1 to {LARGEST_COUNT} is "
        "needed"
        for name in (
            "public_records",
            "expected_batch_size",
            "local_steps",
            "num_rounds",
            "max_records",
        )
        if not _is_count(getattr(plan, name))
    ]
    if not problems and plan.groups * plan.expected_batch_size > plan.public_records:
        problems.append(
            f"plan.expected_batch_size: {plan.expected_batch_size} is above the declared "
            f"{plan.public_records} {plan.unit}s: a sample rate above 1"
        )
    if not _is_number(plan.noise_multiplier) or not 0 <= plan.noise_multiplier <= MOST_NOISE:
        problems.append(
            f"plan.noise_multiplier: {plan.noise_multiplier!r} given; a number from 0 to "
            f"{MOST_NOISE:g} is needed"
        )
    elif plan.max_grad_norm is None and plan.noise_multiplier > 0:
        problems.append(
            f"plan.max_grad_norm: none given with noise_multiplier {plan.noise_multiplier}; noise "
            "hides only what is bounded"
        )
    for name in ("max_grad_norm", "max_update_norm"):
        bound = getattr(plan, name)
        in_range = _is_number(bound) and SMALLEST_BOUND <= bound <= LARGEST_BOUND
        if bound is not None and not in_range:
            problems.append(
                f"plan.{name}: {bound!r} given; a number from {SMALLEST_BOUND:g} to "
                f"{LARGEST_BOUND:g} is needed"
            )
    if not _is_number(plan.delta) or not SMALLEST_DELTA <= plan.delta < 1:
        problems.append(
            f"plan.delta: {plan.delta!r} given; a number from {SMALLEST_DELTA:g} to 1 is needed"
        )
    if not isinstance(plan.unit, Unit):
        problems.append(f"plan.unit: unknown unit {plan.unit!r}; record or person is needed")
    if not isinstance(plan.neighbouring, Neighbouring):
        problems.append(
            f"plan.neighbouring: unknown relation {plan.neighbouring!r}; add-remove is needed"
        )
    return [
        f"{problem}; a plan that cannot be verified is refused: ask the coordinator for "
        "one that can"
        for problem in problems
    ]


def _is_count(value: object) -> bool:
    return type(value) is int and 1 <= value <= LARGEST_COUNT


def _is_number(value: object) -> bool:
    """Whether it is a number; NaN is one, and fails every range check."""
    return type(value) in (int, float)


def _not_accepted(asked: ProposedPlan, accept: AcceptPolicy) -> list[str]:
    """Reasons against the study from the `[accept]` section, one per line."""
    reasons = []
    if asked.task not in accept.tasks:
        reasons.append(
            f"accept.tasks: {asked.task!r} asked; this site joins {', '.join(accept.tasks)}; to "
            "join, add it in site.toml"
        )
    if asked.base_sha256 is None:
        reasons.append(
            "accept.base_sha256: the study states no hash of its base model; ask the coordinator "
            "to set model.sha256"
        )
    elif asked.base_sha256 not in accept.base_sha256:
        reasons.append(
            f"accept.base_sha256: base model {asked.base_sha256} asked, which this site does not "
            "know; to trust it, add the hash in site.toml"
        )
    adapts = asked.plan.votes is None
    if adapts and accept.methods and asked.method not in accept.methods:
        reasons.append(
            f"accept.methods: {asked.method!r} asked; this site trains "
            f"{listed(accept.methods)}; to join, add it in site.toml"
        )
    modules = asked.target_modules if adapts else None
    others = [name for name in modules or () if not _is_named(name, accept.target_modules)]
    if accept.target_modules and modules == ():
        reasons.append(
            "accept.target_modules: the study names no modules; ask the coordinator to set "
            "lora.target_modules, or leave accept.target_modules out of site.toml for any"
        )
    elif accept.target_modules and others:
        reasons.append(
            f"accept.target_modules: {listed(others)} asked; this site adapts "
            f"{listed(accept.target_modules)}; to join, add them in site.toml"
        )
    size = asked.message_bytes
    if type(size) is not int or not 0 <= size <= accept.max_message_bytes:
        reasons.append(
            f"accept.max_message_bytes: a message of {size!r} bytes asked; at most "
            f"{accept.max_message_bytes} leave; ask for a smaller lora.r or fewer modules, or set "
            f"accept.max_message_bytes = {size} in site.toml"
        )
    return reasons


def _is_named(module: str, accepted: tuple[str, ...]) -> bool:
    """Whether a module is accepted by its whole path or its ending, as peft matches modules."""
    return any(module == name or module.endswith(f".{name}") for name in accepted)


def _without_privacy(plan: Plan, effective: Plan, policy: SitePolicy) -> list[str]:
    if policy.budget.epsilon == math.inf or (plan.is_private and effective.is_private):
        return []
    what = "privacy is off" if plan.max_grad_norm is None else "noise_multiplier is 0"
    return [
        f"budget.epsilon: the plan protects nothing ({what}: ε = ∞ per {plan.unit}), and the "
        f"budget is {policy.budget.epsilon}; ask the coordinator for privacy.enabled = true with "
        "noise (epsilon = inf in site.toml is for simulations alone)"
    ]


def _not_shared(plan: Plan, effective: Plan, accept: AcceptPolicy) -> list[str]:
    """Reasons against a study with shared noise, one per line."""
    sharing = plan.sharing
    if sharing is None:
        return []
    reasons = []
    if not accept.noise_partners:
        reasons.append(
            "accept.noise_partners: the study's noise is shared, so its ε holds only while others "
            "add theirs; name the public keys of the partners' ledgers in "
            'site.toml, or ask for a study with privacy.noise = "site"'
        )
    if sharing.colluding < accept.min_colluding:
        reasons.append(
            f"accept.min_colluding: the study's ε holds while at most {sharing.colluding} sites "
            f"collude with the coordinator; at least {accept.min_colluding} is needed here: ask "
            "for a larger privacy.colluding_sites"
        )
    if plan.local_steps != 1 or plan.max_grad_norm is None or plan.noise_multiplier <= 0:
        reasons.append("plan.sharing: shared noise needs one step per round, a bound and noise")
    tightened = [
        name
        for name in ("noise_multiplier", "max_grad_norm", "expected_batch_size")
        if getattr(effective, name) != getattr(plan, name)
    ]
    if tightened:
        reasons.append(
            f"plan.{', plan.'.join(tightened)}: this site's policy is stricter, and noise is "
            "shared among sites that all run one plan; ask the coordinator for the stricter value"
        )
    return reasons


def _under_noised(plan: Plan, policy: SitePolicy) -> list[str]:
    """Why evaluations or votes have too little noise; a site adds no more of it than the plan says,
    because the coordinator's intervals and thresholds count on that."""
    least, evaluations = policy.privacy.min_noise_multiplier, plan.evaluations
    if plan.votes is not None and policy.accept.votes and plan.noise_multiplier < least:
        return [
            f"privacy.min_noise_multiplier: votes with noise multiplier {plan.noise_multiplier:g} "
            f"asked; at least {least:g} is needed here: ask for a smaller privacy.epsilon"
        ]
    if evaluations is None or not policy.accept.evaluations:
        return []
    if evaluations.noise_multiplier >= least:
        return []
    return [
        f"privacy.min_noise_multiplier: an evaluation with noise multiplier "
        f"{evaluations.noise_multiplier:g} asked; at least {least:g} is needed here: ask for a "
        "larger privacy.evaluation_noise_multiplier"
    ]


def _too_costly(effective: Plan, policy: SitePolicy) -> list[str]:
    cap = policy.budget.study_epsilon
    if cap is None:
        return []
    try:
        cost = effective.epsilon_after(effective.num_rounds)
    except RefusedError as error:
        return [f"budget.study_epsilon: the study's ε cannot be shown: {error}"]
    if cost <= cap:
        return []
    return [
        f"budget.study_epsilon: the study costs ε = {shown(cost)} at δ = {effective.delta:g} per "
        f"{effective.unit} added or removed (PLD, against who sees every release), tightened to "
        f"this site's policy; {cap:g} is allowed for one study; ask for more noise, fewer rounds "
        "or a smaller batch, or raise it in site.toml"
    ]
