"""A site from its own `site.toml` and a study's recipe: data, base and ledger as they lie there."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cloister.adapter.pairs import cut_shapes
from cloister.client.own_ledger import open_ledger
from cloister.client.personal import PersonalAdapter
from cloister.client.policy import Asked, check
from cloister.client.site import Site
from cloister.client.site_file import SiteFile
from cloister.data.load import load
from cloister.data.records import Record
from cloister.errors import DataError, RefusedError, UsageError
from cloister.privacy.plan import Plan, make_plan
from cloister.privacy.units import Unit
from cloister.recipe import Recipe
from cloister.tasks.build import labels_of, record_kind
from cloister.training.machine import on_machine
from cloister.training.units import unit_examples
from cloister.training.workspace import Workspace, open_workspace


@dataclass(frozen=True)
class OwnSite:
    """A site that is ready for a study.

    Attributes:
        site: For `answer`.
        workspace: Base, network and task.
        plan: What it would run: the stricter of study and policy.
    """

    site: Site
    workspace: Workspace
    plan: Plan


def own_records(file: SiteFile, recipe: Recipe) -> list[Record]:
    """Reads the site's records by the study's schema.

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


def own_workspace(file: SiteFile, recipe: Recipe) -> Workspace:
    """Loads the base from where the site keeps it.

    Raises:
        ModelFileError: It is missing, damaged or not the one that the study names.
        UsageError: The study names no labels.
    """
    if not recipe.task.labels and recipe.task.kind != "causal-lm":
        raise UsageError(
            "task.labels: the study names none; a site takes no part in a study whose labels it "
            "would have to tell: ask the coordinator to name them"
        )
    model = recipe.model
    if file.site.model is not None:
        model = replace(model, base=str(file.place(file.site.model)))
    return open_workspace(
        model, recipe.lora, recipe.task, recipe.task.labels, recipe.study.seed,
        frozen_cache_gib=file.machine.frozen_cache_gib,
    )  # fmt: skip


def asked_plan(file: SiteFile, recipe: Recipe, workspace: Workspace) -> Plan:
    """The study's plan at a site of the declared size.

    Raises:
        RefusedError: No noise meets the study's target there.
    """
    plan = make_plan(
        recipe.privacy,
        public_records=file.site.public_records,
        expected_batch_size=recipe.training.expected_batch_size,
        local_steps=recipe.training.local_steps,
        num_rounds=recipe.federation.num_rounds,
        sites=recipe.data.sites,
    )
    shapes = cut_shapes(workspace.sent.shapes, own_rank(file, recipe))
    return replace(plan, message=tuple(sorted(shapes.items())))


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


def open_own(file: SiteFile, recipe: Recipe) -> OwnSite:
    """Makes a site ready for a study.

    Raises:
        CloisterError: Data, base, policy or ledger do not allow it.
    """
    workspace = own_workspace(file, recipe)
    plan = accepted_plan(file, recipe, workspace)
    most = plan.max_records if plan.unit is Unit.PERSON else 1
    site = Site(
        name=file.site.name,
        study=recipe.digest(),
        plan=asked_plan(file, recipe, workspace),
        policy=file.policy,
        training=on_machine(recipe.training, file.machine),
        units=unit_examples(own_records(file, recipe), workspace.task.encode, plan.unit, most),
        unit=plan.unit,
        ledger=open_ledger(file),
        seed=recipe.study.seed,
        personal=PersonalAdapter.beside(file.ledger, recipe.digest())
        if workspace.kept or recipe.training.personal
        else None,
        rank=own_rank(file, recipe),
    )
    return OwnSite(site, workspace, plan)
