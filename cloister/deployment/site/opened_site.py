"""Opens a site in a study, from `site.toml` and recipe: accepts, checks approval, loads and
proves."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from cloister.adapter.compact import encode_compact
from cloister.adapter.factor_pairs import cut_shapes
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode, encoded_length
from cloister.client.acceptance import proposed_plan
from cloister.client.admission import Admitted, admit
from cloister.client.banding import NO_MARKS, PURPOSE, Banding
from cloister.client.delivered import Deliveries
from cloister.client.held_out_terms import fix_terms
from cloister.client.moments import AT_ONCE, Moments, period_of
from cloister.client.personal import PersonalAdapter
from cloister.client.policy import ProposedPlan, check
from cloister.client.proving import KeptProofs
from cloister.client.secure import EpochKeys
from cloister.client.site import Site
from cloister.client.site_file import SiteFile
from cloister.client.terms import StudyTerms, accepted_terms, own_rank
from cloister.data.held_out import declared_held_out
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.approvals import check_approved
from cloister.deployment.site.open_ledger import open_ledger
from cloister.deployment.site.records import SiteRecords, declarations
from cloister.errors import RefusedError, UsageError
from cloister.export.adapter_folder import ReleaseFacts
from cloister.ledger.charge import Charge
from cloister.ledger.ledger import Ledger
from cloister.ledger.unit_key import unit_key
from cloister.models.base import base_at_hand, find_base
from cloister.privacy.plan import Plan
from cloister.privacy.votes import votes_shapes
from cloister.recipe import Recipe
from cloister.training.machine import on_machine
from cloister.training.memory import kept_moments
from cloister.training.unit_marks import unit_marks
from cloister.training.units import encode_units, rows_tried
from cloister.training.workspace import Workspace, open_workspace


def _covered(terms: StudyTerms, ledger: Ledger) -> None:
    """Raises `BudgetError` if the ledger does not cover one round of the plan."""
    plan = terms.plan
    ledger.check(Charge.first(terms.study, plan))


def own_base(file: SiteFile, recipe: Recipe) -> Path:
    """Returns the place of an accepted study's base.

    `site.toml` names it; otherwise the study's name is looked up on this machine. Nothing is
    downloaded because a coordinator names it.

    Raises:
        ModelFileError: The base is not here.
    """
    if file.site.model is None:
        return base_at_hand(recipe.model.base)
    place = file.place(file.site.model)
    return find_base(str(place) if place.exists() else file.site.model)


def site_workspace(file: SiteFile, recipe: Recipe) -> Workspace:
    """Loads the base for the operator's commands, from the place that site or recipe names.

    Raises:
        ModelFileError: It is missing, damaged or not the one that the study names.
    """
    if file.site.model is None:
        return _loaded(file, recipe, recipe.model.base)
    return _loaded(file, recipe, str(own_base(file, recipe)))


def exact_bytes(terms: StudyTerms) -> tuple[int, int]:
    """Bytes of the updates in the longest round and in all rounds, for a person who approves.

    The base is loaded from this machine, as for an approved study; nothing is downloaded.

    Raises:
        UsageError: Sites share the noise: then a message's length depends on the participants.
        CloisterError: The base cannot be loaded, or is not the study's.
    """
    file, recipe, plan = terms.file, terms.recipe, terms.plan
    if plan.sharing is not None:
        raise UsageError(
            "--exact: sites share the noise in this study, so a message's length "
            "depends on who takes part; leave it out to see the largest"
        )
    if plan.votes is not None:
        return terms.most_bytes
    workspace = _loaded(file, recipe, str(own_base(file, recipe)))
    sizes: dict[frozenset[str], int] = {}
    each = []
    for number in range(1, plan.num_rounds + 1):
        names = workspace.trained_in_round(recipe.training, number) - workspace.kept
        if names not in sizes:
            cut = cut_shapes(workspace.start.select(names).shapes, own_rank(file, recipe))
            empty = Adapter({name: np.zeros(shape, np.float32) for name, shape in cut.items()})
            write = encode if recipe.training.adapter_dtype is None else encode_compact
            sizes[names] = len(write(empty, recipe.training.update_dtype))
        each.append(sizes[names])
    return max(each), sum(each)


def _loaded(file: SiteFile, recipe: Recipe, base: str) -> Workspace:
    task = recipe.task
    if task.items is not None:  # use the site's own copy, which must have the study's hash
        task = replace(task, items=file.items)
    return open_workspace(
        replace(recipe.model, base=base),
        recipe.lora,
        task,
        recipe.task.labels,
        recipe.study.seed,
        frozen_cache_gib=file.machine.frozen_cache_gib,
        device=file.machine.device,
        attention=file.machine.attention,
        processes=file.machine.processes,
        gradient_checkpointing=bool(file.machine.gradient_checkpointing),
        adversarial_radius=recipe.training.adversarial_radius,
    )


def asked_plan(file: SiteFile, recipe: Recipe, workspace: Workspace) -> Plan:
    """The study's plan at a site of the declared size.

    Raises:
        RefusedError: No noise meets the study's target there.
    """
    plan = proposed_plan(recipe, file)
    shapes = cut_shapes(workspace.sent.shapes, own_rank(file, recipe))
    if plan.votes is not None:
        shapes = votes_shapes(plan.votes)
    return replace(plan, message=tuple(sorted(shapes.items())))


def accepted_plan(file: SiteFile, recipe: Recipe, workspace: Workspace) -> Plan:
    """Returns the plan that the site would run for a study.

    Raises:
        RefusedError: Its policy does not accept the study; every reason, one per line.
    """
    plan = asked_plan(file, recipe, workspace)
    sent = workspace.whole.shapes if plan.votes is None else dict(plan.message)
    asked = ProposedPlan(
        plan=plan,
        task=recipe.task.kind,
        base_sha256=workspace.base_sha256,
        target_modules=workspace.network.adapted_modules,
        method=workspace.method,
        message_bytes=encoded_length(sent, "float32"),
    )
    return check(asked, file.policy)


def open_for_study(
    file: SiteFile,
    recipe: Recipe,
    records: SiteRecords,
    moments: Moments = AT_ONCE,
    keys: EpochKeys | None = None,
) -> Admitted:
    """Admits a site to a study: accepts, checks approval, loads, proves, and encodes its records.

    Args:
        file: The site's.
        recipe: The study's.
        records: The records that the agent serves.
        moments: The moments at which the end of encoding may show.
        keys: Keys of an epoch of secure aggregation.

    Raises:
        UnapprovedError: The study waits for an approval at the site.
        CloisterError: Policy, ledger, base or proof refuse it, or the records were read with other
            declarations than the file has now. None of these checks looks at a record.

    Guarantees:
        No ledger is opened for a study that the policy refuses or that nobody approved; no base is
        looked for or loaded for one that the ledger does not cover. Nothing is charged. Records are
        touched last, by a function that cannot fail, and this returns at a moment of a period that
        follows from declared and synthetic numbers.
    """
    terms = accepted_terms(file, recipe)
    check_approved(terms)
    if records.declared != declarations(file):
        raise RefusedError(
            f"{file.path}: now has other settings for reading the records than those with which "
            "they were read; cloister site reload reads them again"
        )
    ledger = open_ledger(file)
    _covered(terms, ledger)
    held_out = fix_terms(file, ledger.head.seq)
    plan, study = terms.plan, terms.study
    workspace = _loaded(file, recipe, str(own_base(file, recipe)))
    site = Site(
        name=file.site.name,
        study=study,
        plan=asked_plan(file, recipe, workspace),
        policy=file.policy,
        training=on_machine(recipe.training, file.machine),
        units=(),
        unit=plan.unit,
        ledger=ledger,
        seed=recipe.study.seed,
        personal=PersonalAdapter.beside(file.ledger, study)
        if workspace.kept or recipe.training.personal
        else None,
        optimizer=PersonalAdapter.of_optimizer(file.ledger, study)
        if kept_moments(recipe.training)
        else None,
        rank=own_rank(file, recipe),
        keys=keys,
        deliveries=_deliveries(file, recipe, workspace)
        if file.site.keep_adapters and plan.votes is None
        else None,
        banding=Banding.beside(file.ledger, study, unit_key(file.ledger), NO_MARKS)
        if plan.bands
        else None,
        couples_units=file.site.couples_units,
        held_out=None if held_out is None else (),
        start=recipe.study.start,
        from_seed=recipe.begins_from_seed,
    )
    proofs = KeptProofs(AgentFolder.of(file).proofs)
    admitted = admit(site, workspace, proofs.isolation)
    periods = _periods(file, recipe, admitted, proofs) if plan.is_private else (0.0, 0.0, 0.0)
    begun = moments.clock()
    trained_on = records.trained_on(held_out).records
    encoded = encode_units(
        trained_on, workspace.task, plan.unit, plan.max_records, workspace.limits
    )
    if site.banding is not None:
        marks = unit_marks(trained_on, plan.unit, unit_key(file.ledger), PURPOSE)
        site = replace(site, banding=replace(site.banding, marks=marks))
    if plan.evaluations is not None and held_out is not None:
        apart = records.kept_apart(held_out).records
        scored = encode_units(apart, workspace.task, plan.unit, plan.max_records, workspace.limits)
        site = replace(site, held_out=scored.units)
    moments.hold(begun, periods[0])
    return replace(
        admitted,
        site=replace(site, units=encoded.units),
        period=periods[1],
        evaluation_period=periods[2],
        silent=encoded.nothing_to_learn,
    )


def _deliveries(file: SiteFile, recipe: Recipe, workspace: Workspace) -> Deliveries:
    """Where the study's final adapter is stored, with this site's base and columns."""
    base = recipe.model.base if file.site.model is None else str(own_base(file, recipe))
    about = ReleaseFacts(
        model=replace(recipe.model, base=base, sha256=workspace.base_sha256),
        lora=recipe.lora,
        task=recipe.task,
        data=replace(file.columns, person=None),
        seed=recipe.study.seed,
    )
    study = recipe.digest()
    return Deliveries(AgentFolder.of(file).adapters / study, study, recipe.study.name, about)


def _periods(
    file: SiteFile, recipe: Recipe, admitted: Admitted, proofs: KeptProofs
) -> tuple[float, float, float]:
    """The periods of encoding, of a round and of an evaluation, in seconds, from synthetic and
    declared numbers.

    Raises:
        PreflightError: A step on synthetic records fails.
        RefusedError: A round or an evaluation would take longer than `site.max_round_seconds`.
    """
    times = proofs.times(admitted, recipe)
    plan, most = admitted.plan, file.site.max_round_seconds
    team = admitted.workspace.team
    per_round = period_of(
        times.of_round(plan, 1 if team is None else team.processes)
        if plan.votes is None
        else times.of_votes(plan, plan.votes)
    )
    evaluation = 0.0
    if plan.evaluations is not None and file.site.held_out_share is not None:
        units = declared_held_out(plan.public_records, file.site.held_out_share)
        evaluation = period_of(times.of_evaluation(plan, units))
    longest = max(per_round, evaluation)
    if longest > most:
        raise RefusedError(
            f"site.max_round_seconds: {most:g}; a round of this study may take {longest:g} s "
            f"here: set it to {math.ceil(longest)} or more, or ask for less"
        )
    tried = rows_tried(plan.unit, plan.max_records)
    return period_of(times.encoding * plan.public_records * tried), per_round, evaluation
