"""Describes a site's policy in plain words, for the person who is responsible for it."""

from __future__ import annotations

import math

from cloister.bounds import listed
from cloister.client.approvals_config import ApprovalsConfig
from cloister.client.policy_file import SitePolicy
from cloister.names import counted
from cloister.privacy.units import Unit
from cloister.protocol.exchange import WORDS, Status


def approvals_in_words(approvals: ApprovalsConfig) -> list[str]:
    """Sentences about who must approve a study, and which studies are approved in advance."""
    people = "1 person" if approvals.needed == 1 else f"{approvals.needed} people"
    whose = f" (of {', '.join(approvals.operators)})" if approvals.operators else ""
    accounts = "" if approvals.needed == 1 else ", each from an account of their own"
    ends = f", for {approvals.days:g} days" if approvals.days is not None else ""
    lines = [f"No study begins before {people} here{whose} approved it{accounts}{ends}."]
    for number, one in enumerate(approvals.standing, 1):
        labels = "those of [records]" if one.labels is None else listed(one.labels)
        bases = ", ".join(f"{digest[:12]}…" for digest in one.base_sha256)
        lines.append(
            f"Standing approval {number} admits without asking: {', '.join(one.tasks)} on base "
            f"{bases}, of at most {counted(one.max_rounds, 'round')} and ε of at most "
            f"{one.max_epsilon:g} for one {one.unit}, with no labels beside {labels}, until "
            f"{one.until}"
            + (", noise shared or not" if one.shared_noise else "")
            + (", votes included." if one.votes else ".")
        )
    return lines


def in_words(policy: SitePolicy) -> list[str]:
    """Returns a sentence for each limit of a policy."""
    budget, privacy, accept = policy.budget, policy.privacy, policy.accept
    unit = privacy.unit.value
    life = (
        "Nothing is protected: the budget is infinite, which is for simulations only."
        if math.isinf(budget.epsilon)
        else f"All studies together may cost ε = {budget.epsilon:g} at δ = {budget.delta:g} for "
        f"one {unit} added or removed, over the data set's lifetime. After that the site takes no "
        "further part."
    )
    lines = [life]
    if budget.study_epsilon is not None:
        lines.append(f"One study may cost ε = {budget.study_epsilon:g} of it.")
    lines += [
        f"At least the presence of one {unit} is hidden"
        + (f", identified by the column {privacy.person}." if privacy.person else "."),
        f"Noise is at least {privacy.min_noise_multiplier:g} times the clip bound, each {unit} is "
        f"in a batch with probability at most {privacy.max_sample_rate:g}, and the clip bound is "
        f"at most {privacy.max_grad_norm:g}: a study that asks for less is tightened.",
        f"A study states δ of at most {privacy.max_delta:g}.",
        *(
            [
                "A study for single records is tightened to persons: then only one record of each "
                "person is used."
            ]
            if privacy.unit is Unit.PERSON
            else []
        ),
        f"Tasks: {', '.join(accept.tasks)}. Base models: "
        + ", ".join(digest[:12] + "…" for digest in accept.base_sha256)
        + " (SHA-256 of their weights).",
        "Adapters on "
        + (", ".join(accept.target_modules) if accept.target_modules else "any modules")
        + f"; at most {counted(accept.max_rounds, 'round')} of "
        f"{counted(accept.max_local_steps, 'step')}, messages of "
        f"{accept.max_message_bytes:,} bytes, adapter values of {accept.max_adapter_value:g}, "
        f"records of {accept.max_length:,} tokens.",
        "Chat templates: the base's own"
        + "".join(f", {digest[:12]}…" for digest in accept.templates)
        + " (SHA-256 of those that recipes bring)." * bool(accept.templates)
        + "." * (not accept.templates),
    ]
    lines.append(
        "It joins studies with private evaluations: noised statistics of all its held-out units "
        "leave, which ε counts. No batch is drawn for them, so the probability above is of "
        "training alone."
        if accept.evaluations
        else "No statistics of held-out units leave: it joins no study with private evaluations."
    )
    lines.append(
        "It joins studies of votes: in each round every unit votes for the public text nearest to "
        "it, and noised counts leave, which ε counts. No batch is drawn for them, so the "
        "probability above is of training alone."
        if accept.votes
        else "No votes leave: it joins no study in which records vote for public texts."
    )
    lines.append(
        f"It shares noise with the {len(accept.noise_partners)} institutions that it names, if a "
        f"study's ε holds even when {accept.min_colluding} of them collude with the coordinator."
        if accept.noise_partners
        else "It joins no study in which sites share the noise: it adds all of its noise itself."
    )
    if privacy.isolate_units:
        lines.append(f"Every {unit} is computed in a separate pass.")
    words = ", ".join(sorted(frozenset().union(*WORDS.values()) - {Status.TRAINED}))
    lines.append(
        f"Besides updates, only these words may leave: {words}. None of them depends on a record."
    )
    if policy.status.allowed:
        lines.append(
            "The section [status] has no effect any more: remove it when you next edit the file."
        )
    return lines
