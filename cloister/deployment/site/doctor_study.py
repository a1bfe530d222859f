"""Checks whether a site can run a study: acceptance, base, units and gradients."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import torch

from cloister.client.acceptance import accept, proposed_plan
from cloister.client.changes import Change, changes
from cloister.client.held_out_terms import held_out_of
from cloister.client.proving import KeptProofs
from cloister.client.site_file import SiteFile
from cloister.client.terms import StudyTerms
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.approvals import ApprovalState, judge, unmet
from cloister.deployment.site.checks import CheckLevel, Outcome, run_check
from cloister.deployment.site.decisions import Decisions
from cloister.deployment.site.doctor_data import held_out_words
from cloister.deployment.site.open_ledger import check_covered
from cloister.deployment.site.opened_site import accepted_plan, site_workspace
from cloister.deployment.site.records import SiteRecords
from cloister.errors import RefusedError
from cloister.ledger.stated import of_plan
from cloister.models.device import device_words, free_bytes
from cloister.models.network import trained_parameters
from cloister.models.state import read_adapter, write_adapter
from cloister.names import counted
from cloister.privacy.plan import Plan
from cloister.privacy.units import Unit
from cloister.recipe import Recipe
from cloister.tasks.task import Example
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks, plain_gradient_sum
from cloister.training.joined_processes import join
from cloister.training.machine import on_machine
from cloister.training.numerics import pinned
from cloister.training.shapes import one_by_one
from cloister.training.units import EncodedUnits, encode_units, singles
from cloister.training.vote_sum import text_vector
from cloister.training.workspace import Workspace

# Memory for the base, activations and per-record gradients, as a multiple of the base's.
MEMORY_FACTOR = 3.0
# Tolerance for float32 rounding between two ways of computing the same sum.
PARITY = 1e-4
# Most rows that a message names.
NAMED = 5


def study_checks(file: SiteFile, recipe: Recipe, found: SiteRecords) -> Iterator[Outcome]:
    """Makes every check of a study, in the order of a site's own checks.

    Args:
        file: The site's.
        recipe: The study's.
        found: The site's records.
    """
    plans: list[Plan] = []
    workspaces: list[Workspace] = []
    encodings: list[EncodedUnits] = []

    def policy() -> Outcome:
        plan = accept(recipe, file)
        check_covered(file, recipe.digest(), plan)
        plans.append(plan)
        isolated = file.policy.privacy.isolate_units
        return _policy(plan, changes(proposed_plan(recipe, file), plan, isolate_units=isolated))

    def base() -> Outcome:
        workspace = site_workspace(file, recipe)
        accepted_plan(file, recipe, workspace)  # modules and sizes of messages, which it decides
        workspaces.append(workspace)
        detail = f"weights {workspace.base_sha256[:12]}…, accepted"
        if workspace.network.pooling is not None:
            detail += f"; pooling: {workspace.network.pooling}"
        return Outcome("base model", CheckLevel.PASS, detail)

    def units() -> Outcome:
        plan, workspace = plans[0], workspaces[0]
        task, most = workspace.task, plan.max_records
        used = found.trained_on(held_out_of(file))
        encodings.append(encode_units(used.records, task, plan.unit, most, workspace.limits))
        outcome = _units(used, encodings[0], plan, recipe.task.max_length)
        return replace(outcome, detail=outcome.detail + held_out_words(file, found))

    yield run_check("policy", policy)
    if plans:
        yield run_check("approval", lambda: _approval(StudyTerms(file, recipe, plans[0])))
        yield run_check("base model", base)
    if not workspaces:
        return
    workspace = workspaces[0]
    yield run_check("memory", lambda: _memory(workspace))
    yield run_check("units", units)
    examples = [example for unit in encodings[0].units for example in unit] if encodings else []
    if examples and plans[0].votes is not None:
        yield run_check("votes", lambda: _votes(workspace, examples[:8]))
    elif examples:
        yield run_check("gradients", lambda: _gradients(file, recipe, workspace, plans[0]))
        yield run_check("noiseless parity", lambda: _parity(workspace, examples[:8]))
        yield run_check("reload", lambda: _reload(workspace, examples[:4]))


def _policy(plan: Plan, tightened: tuple[Change, ...]) -> Outcome:
    detail = (
        f"the study is accepted: {of_plan(plan)}; {counted(plan.num_rounds, 'round')}, "
        f"noise multiplier {plan.noise_multiplier:g}"
    )
    if not tightened:
        return Outcome("policy", CheckLevel.PASS, detail)
    return Outcome(
        "policy",
        CheckLevel.WARN,
        " · ".join([detail, *map(str, tightened)]),
        "nothing, if this is intended; else ask the coordinator for a study with these values",
    )


def _approval(terms: StudyTerms) -> Outcome:
    """Checks whether the study would be approved; its digest is that of the coordinator's
    document."""
    now, near = datetime.now(UTC), ""
    verdict = judge(terms, Decisions.of(terms.file).read(), now)
    if verdict.state is ApprovalState.APPROVED:
        return Outcome("approval", CheckLevel.PASS, f"study {terms.study[:12]}: {verdict.why}")
    if verdict.state is ApprovalState.REJECTED:
        return Outcome(
            "approval",
            CheckLevel.FAIL,
            f"study {terms.study[:12]}: {verdict.why}",
            "leave it so, or approve it once it asks: cloister site studies approve",
        )
    for number, standing in enumerate(terms.file.approvals.standing, 1):
        near += f"; approvals.standing {number} lacks: {', '.join(unmet(standing, terms, now))}"
    return Outcome(
        "approval",
        CheckLevel.WARN,
        f"study {terms.study[:12]} would wait: {verdict.why}{near}",
        "once it asks, cloister site studies show and approve; or accept such studies with an "
        "[[approvals.standing]]",
    )


def _units(found: SiteRecords, encoded: EncodedUnits, plan: Plan, max_length: int) -> Outcome:
    """Checks which records the study learns from, with true numbers, for the operator only."""
    usable = sum(1 for unit in encoded.units if unit)
    batch = plan.sample_rate * usable / plan.groups
    records = counted(sum(map(len, encoded.units)), "record")
    detail = (
        f"{counted(usable, plan.unit)} with {records} to learn from; a batch has {batch:.1f} on "
        f"average and is divided by {plan.expected_batch_size}"
    )
    if plan.votes is not None:
        detail = f"{counted(usable, plan.unit)} with {records} may vote, each {plan.unit} once"
    notes, remedies = [], []
    if encoded.unused:
        notes.append(
            f"{encoded.unused} of {len(found.records)} records can never be used (max_records = "
            f"{plan.max_records} of a {plan.unit})"
        )
        remedies.append(
            'ask the coordinator for privacy.unit = "person", or more of a person'
            if plan.unit is Unit.PERSON
            else "ask the coordinator for a larger privacy.max_rows_per_record"
        )
    for reason, count in encoded.left_out.items():
        notes.append(f"{count} left out: {reason}")
    if encoded.problems:
        rows = [found.rows[place - 1] for place, _ in encoded.problems[:NAMED]]
        notes.append(f"rows {', '.join(map(str, rows))}{', …' * (len(encoded.problems) > NAMED)}")
        remedies.append("correct these rows, or leave them: they count as absent")
    if encoded.nothing_to_learn:
        notes.append(
            f"{encoded.nothing_to_learn} records have no effect: their first token to learn is "
            f"beyond task.max_length = {max_length}"
        )
        remedies.append("ask the coordinator for a larger task.max_length")
    if not usable:
        return Outcome("units", CheckLevel.FAIL, " · ".join([detail, *notes]), " · ".join(remedies))
    if notes:
        return Outcome("units", CheckLevel.WARN, " · ".join([detail, *notes]), " · ".join(remedies))
    return Outcome("units", CheckLevel.PASS, detail)


def _memory(workspace: Workspace) -> Outcome:
    base = sum(p.numel() * p.element_size() for p in workspace.network.parameters())
    device = workspace.network.device
    free, where = free_bytes(device), device_words(device)
    if free is None:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    detail = f"{free / 2**30:.1f} GiB free ({where}), the base takes {base / 2**30:.2f}"
    if free < MEMORY_FACTOR * base:
        return Outcome(
            "memory",
            CheckLevel.WARN,
            detail,
            "a round may not fit: free memory, or ask for a smaller machine.physical_batch_tokens",
        )
    return Outcome("memory", CheckLevel.PASS, detail)


def _gradients(file: SiteFile, recipe: Recipe, workspace: Workspace, plan: Plan) -> Outcome:
    """Makes the proof that the agent needs before `ready`, and stores it where the agent finds
    it."""
    training = on_machine(recipe.training, file.machine)
    kept = KeptProofs(AgentFolder.of(file).proofs)
    limit = file.policy.accept.max_adapter_value
    proof = kept.isolation(workspace, plan, training, limit)
    if workspace.team is not None:
        join(workspace, plan, training, proof.shapes, limit)
        workspace.team.close()
    exact = "per-record gradients are exact, and no record changes another's"
    if proof.one_by_one:
        return Outcome(
            "gradients",
            CheckLevel.WARN,
            f"{exact} where each goes through the network alone",
            "nothing: it is correct, but several times slower, since this base's kernels mix "
            "records",
        )
    return Outcome("gradients", CheckLevel.PASS, exact)


def _parity(workspace: Workspace, examples: list[Example]) -> Outcome:
    """Checks that private training without noise, with a bound that nothing reaches, equals plain
    training."""
    write_adapter(workspace.network, workspace.start)
    workspace.train_names(frozenset(workspace.start))
    units, bound = singles(examples), 1e6
    plain = plain_gradient_sum(workspace.network, workspace.task, units, 2048)
    shapes = one_by_one(workspace.task.max_length)
    with per_record_hooks(workspace.network):
        total = clipped_gradient_sum(workspace.network, workspace.task, units, bound, shapes)
    private = [tensor.double() * total.grid for tensor in total.tensors]
    length = sum(float(p.double().square().sum()) for p in plain) ** 0.5
    apart = sum(
        float((a.cpu() - b.double().cpu()).square().sum())
        for a, b in zip(private, plain, strict=True)
    )
    # The grid of so large a bound is coarse: 10⁶/2³⁰ a coordinate.
    rounding = total.grid * sum(p.numel() for p in plain) ** 0.5
    if apart**0.5 > PARITY * length + rounding:
        raise RefusedError(
            f"private and plain gradients differ by {apart**0.5 / max(length, 1e-30):.2g} of their "
            "length; train nothing with this installation, and report it"
        )
    return Outcome(
        "noiseless parity", CheckLevel.PASS, "private training without noise equals plain training"
    )


def _votes(workspace: Workspace, examples: list[Example]) -> Outcome:
    """Checks that records have vectors, with which they vote."""
    task, network = workspace.task, workspace.network
    write_adapter(network, workspace.start)
    with torch.no_grad(), network.apart(keeping=False), pinned():
        found = sum(text_vector(network, task, example) is not None for example in examples)
    detail = f"{found} of {len(examples)} records that were tried have a finite vector"
    if found:
        return Outcome("votes", CheckLevel.PASS, detail)
    return Outcome(
        "votes", CheckLevel.FAIL, detail, "none would vote: ask the coordinator for another base"
    )


def _reload(workspace: Workspace, examples: list[Example]) -> Outcome:
    network, task = workspace.network, workspace.task
    write_adapter(network, workspace.start)
    workspace.train_names(frozenset(workspace.start))
    with torch.no_grad():
        for _, parameter in trained_parameters(network):
            parameter.add_(0.01)
        batch = task.collate(examples)
        before = network.logits(batch).clone()
        kept = read_adapter(network)
        write_adapter(network, workspace.start)
        moved = not torch.equal(network.logits(batch), before)
        write_adapter(network, kept)
        same = torch.equal(network.logits(batch), before)
    write_adapter(network, workspace.start)
    if not (moved and same):
        raise RefusedError(
            "an adapter that is read and written back gives other logits; train nothing with this "
            "installation, and report it"
        )
    return Outcome(
        "reload", CheckLevel.PASS, "an adapter read and written back gives the same logits"
    )
