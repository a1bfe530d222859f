"""The site that an audit looks at: a recipe's own path, with records that are nobody's."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cloister.data.nobody import nobody_s_records
from cloister.errors import UsageError
from cloister.privacy.plan import Plan
from cloister.privacy.units import Unit
from cloister.recipe import Recipe
from cloister.simulation.planning import plans_by_size
from cloister.tasks.build import record_kind
from cloister.training.units import UnitExamples, unit_examples
from cloister.training.workspace import Workspace, open_workspace


@dataclass(frozen=True)
class AuditedSite:
    """What conformance runs on.

    Attributes:
        workspace: The recipe's base, adapters and task.
        plan: The recipe's.
        units: Made up, by the plan's unit.
    """

    workspace: Workspace
    plan: Plan
    units: tuple[UnitExamples, ...]


def audited_site(recipe: Recipe, persons: int, each: int) -> AuditedSite:
    """Opens a recipe's path without its data.

    Args:
        recipe: The study.
        persons: Persons in the site.
        each: Most records of one.

    Raises:
        CloisterError: The base or the plan cannot be had.
    """
    if not recipe.privacy.enabled:
        raise UsageError("privacy.enabled: a plan with noise is needed; there is nothing to audit")
    labels = recipe.task.labels or ("first", "second", "third")
    kind = record_kind(recipe.task.kind)
    workspace = open_workspace(
        recipe.model, recipe.lora, recipe.task, labels, recipe.study.seed,
        frozen_cache_gib=recipe.machine.frozen_cache_gib,
    )  # fmt: skip
    plan, _ = next(plans_by_size(recipe))
    shapes = tuple(sorted(workspace.sent.shapes.items()))
    records = nobody_s_records(kind, workspace.task.labels, persons, each)
    most = plan.max_records if plan.unit is Unit.PERSON else 1
    units = unit_examples(records, workspace.task.encode, plan.unit, most)
    return AuditedSite(workspace, replace(plan, message=shapes), units)
