"""A site from its own `site.toml` and a study's recipe: accepted, then loaded, then proven."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cloister.adapter.pairs import cut_shapes
from cloister.client.admission import Admitted, admit
from cloister.client.agent_folder import AgentFolder
from cloister.client.encoding import encoded_units
from cloister.client.moments import AT_ONCE, Moments, period_of
from cloister.client.own_ledger import open_ledger
from cloister.client.personal import PersonalAdapter
from cloister.client.policy import Asked, check
from cloister.client.proving import prove
from cloister.client.secure import EpochKeys
from cloister.client.site import Site
from cloister.client.site_file import SiteFile
from cloister.data.load import load
from cloister.data.records import Record, RecordKind
from cloister.errors import DataError, RefusedError, UsageError
from cloister.models.base import base_at_hand, find_base
from cloister.privacy.ledger import Charge, Ledger
from cloister.privacy.plan import Plan, make_plan
from cloister.recipe import Recipe
from cloister.tasks.build import labels_of, record_kind
from cloister.training.workspace import Workspace, open_workspace

Records = Mapping[RecordKind, Sequence[Record]]


def read_records(file: SiteFile) -> Records:
    """Reads the site's records, by each kind that the tasks it accepts could read them as.

    Under the site's own command alone: when its agent starts, before any study is heard of.

    Raises:
        DataError: They are missing or damaged, or fit no task that the site accepts.
    """
    found: dict[RecordKind, Sequence[Record]] = {}
    problems: list[DataError] = []
    for kind in dict.fromkeys(record_kind(task) for task in file.policy.accept.tasks):
        try:
            found[kind] = load(str(file.place(file.site.data)), "train", kind, file.columns)
        except DataError as error:
            problems.append(error)
    if not found:
        raise problems[0]
    return found


def own_records(file: SiteFile, recipe: Recipe) -> list[Record]:
    """Reads the site's records by a study's schema, for its operator.

    Raises:
        DataError: They are missing, damaged, or not what the task needs; or have a label that is
            not the study's.
    """
    kind = record_kind(recipe.task.kind)
    records = load(str(file.place(file.site.data)), "train", kind, file.columns)
    unknown = sorted(set(labels_of(records, kind)) - set(recipe.task.labels))
    if unknown and recipe.task.labels:  # none: `own_workspace` refuses the study
        raise DataError(
            f"{file.site.data}: has labels that are not the study's: {', '.join(unknown[:5])}; "
            "correct the records, or ask the coordinator to add them to task.labels"
        )
    return records


def accept(file: SiteFile, recipe: Recipe, ledger: Ledger) -> Plan:
    """Accepts a study from its recipe, `site.toml` and ledger alone; nothing is loaded or fetched.

    Returns:
        What the site would run, without the shapes of its messages.

    Raises:
        RefusedError: The site does not take part; every reason, one line each.
        BudgetError: The ledger does not cover one round.
        UsageError: The study names no labels.
    """
    _check_labels(recipe)
    named = recipe.lora.target_modules or file.policy.accept.target_modules
    asked = Asked(
        plan=_plan(file, recipe),
        task=recipe.task.kind,
        base_sha256=recipe.model.sha256,
        # What an architecture's default stands for is known, and checked, once it is loaded.
        target_modules=named,
        message_bytes=0,
    )
    plan = check(asked, file.policy)
    own_rank(file, recipe)
    ledger.check(
        Charge(study=recipe.digest(), round=1, plan=plan, request="", is_private=plan.is_private)
    )
    return plan


def own_base(file: SiteFile, recipe: Recipe) -> Path:
    """Where the base of an accepted study lies.

    `site.toml` says where; without it the study's name is looked up among what is here already,
    and nothing is fetched because a coordinator names it.

    Raises:
        ModelFileError: It is not to be had.
    """
    if file.site.model is None:
        return base_at_hand(recipe.model.base)
    folder = file.place(file.site.model)
    return folder if folder.is_dir() else find_base(file.site.model)


def own_workspace(file: SiteFile, recipe: Recipe) -> Workspace:
    """Loads the base as its operator's commands do: from where the site or the recipe names it.

    Raises:
        ModelFileError: It is missing, damaged or not the one that the study names.
        UsageError: The study names no labels.
    """
    _check_labels(recipe)
    if file.site.model is None:
        return _loaded(recipe, recipe.model.base)
    return _loaded(recipe, str(file.place(file.site.model)))


def _loaded(recipe: Recipe, base: str) -> Workspace:
    return open_workspace(
        replace(recipe.model, base=base), recipe.lora, recipe.task, recipe.task.labels,
        recipe.study.seed, frozen_cache_gib=recipe.training.frozen_cache_gib,
    )  # fmt: skip


def _check_labels(recipe: Recipe) -> None:
    if not recipe.task.labels and recipe.task.kind != "causal-lm":
        raise UsageError(
            "task.labels: the study names none; a site takes no part in a study whose labels it "
            "would have to tell: ask the coordinator to name them"
        )


def asked_plan(file: SiteFile, recipe: Recipe, workspace: Workspace) -> Plan:
    """The study's plan at a site of the declared size.

    Raises:
        RefusedError: No noise meets the study's target there.
    """
    shapes = cut_shapes(workspace.sent.shapes, own_rank(file, recipe))
    return replace(_plan(file, recipe), message=tuple(sorted(shapes.items())))


def _plan(file: SiteFile, recipe: Recipe) -> Plan:
    return make_plan(
        recipe.privacy,
        public_records=file.site.public_records,
        expected_batch_size=recipe.training.expected_batch_size,
        local_steps=recipe.training.local_steps,
        num_rounds=recipe.federation.num_rounds,
        sites=recipe.data.sites,
    )


def own_rank(file: SiteFile, recipe: Recipe) -> int | None:
    """The rank of the site's adapters; None in a study of one rank.

    Raises:
        RefusedError: The study has no such rank.
    """
    if not recipe.lora.ranks:
        return None
    rank = file.site.rank or recipe.lora.r
    if rank not in recipe.lora.ranks:
        known = ", ".join(str(other) for other in sorted(set(recipe.lora.ranks)))
        raise RefusedError(
            f"site.rank: {rank} at this site; lora.ranks of the study has {known}: set one of these"
        )
    return rank


def accepted_plan(file: SiteFile, recipe: Recipe, workspace: Workspace) -> Plan:
    """What the site would run of a study.

    Raises:
        RefusedError: Its policy does not accept the study; every reason, one line each.
    """
    asked = Asked(
        plan=asked_plan(file, recipe, workspace),
        task=recipe.task.kind,
        base_sha256=workspace.base_sha256,
        target_modules=workspace.network.adapted_modules,
        message_bytes=4 * workspace.whole.size,
    )
    return check(asked, file.policy)


def open_own(
    file: SiteFile,
    recipe: Recipe,
    records: Records,
    moments: Moments = AT_ONCE,
    keys: EpochKeys | None = None,
) -> Admitted:
    """Takes a site into a study: accepted, loaded, proven, and its records encoded, in this order.

    Args:
        file: The site's.
        recipe: The study's.
        records: As read when the site's agent started.
        moments: When it may be seen that encoding is done.
        keys: Of an epoch of secure aggregation.

    Raises:
        CloisterError: Policy, ledger, base or proof do not allow it. None of these looks at a
            record.

    Guarantees:
        Nothing is looked for, fetched or loaded for a study that policy and ledger do not accept.
        Nothing is charged. Records are touched last, by a function that cannot fail, and this
        returns at a moment of a period that follows from declared and synthetic numbers.
    """
    ledger = open_ledger(file)
    plan = accept(file, recipe, ledger)
    kind = record_kind(recipe.task.kind)
    if kind not in records:
        raise RefusedError(
            f"accept.tasks: {recipe.task.kind} asked, and what lies at site.data cannot be read "
            "for it; take it out of accept.tasks"
        )
    workspace = _loaded(recipe, str(own_base(file, recipe)))
    study = recipe.digest()
    site = Site(
        name=file.site.name,
        study=study,
        plan=asked_plan(file, recipe, workspace),
        policy=file.policy,
        training=recipe.training,
        units=(),
        unit=plan.unit,
        ledger=ledger,
        seed=recipe.study.seed,
        personal=PersonalAdapter.beside(file.ledger, study)
        if workspace.kept or recipe.training.personal
        else None,
        rank=own_rank(file, recipe),
        keys=keys,
    )
    admitted = admit(site, workspace)
    periods = _periods(file, recipe, admitted) if plan.is_private else (0.0, 0.0)
    begun = moments.clock()
    units = encoded_units(records[kind], workspace, admitted.plan)
    moments.hold(begun, periods[0])
    return replace(admitted, site=replace(site, units=units), period=periods[1])


def _periods(file: SiteFile, recipe: Recipe, admitted: Admitted) -> tuple[float, float]:
    """Of encoding the records and of a round, in seconds: of the proof and declared numbers.

    Raises:
        PreflightError: The study's per-record gradients are not exact here.
        RefusedError: A round would be ended before it is done.
    """
    proof = prove(admitted, recipe, AgentFolder.of(file).proofs)
    plan, most = admitted.plan, file.site.max_round_seconds
    per_round = period_of(proof.round_seconds(plan))
    if per_round > most:
        raise RefusedError(
            f"site.max_round_seconds: {most:g}; a round of this study may take {per_round:g} s "
            f"here: set it to {math.ceil(per_round)} or more, or ask for less"
        )
    return period_of(proof.encode_seconds * plan.public_records * plan.max_records), per_round
