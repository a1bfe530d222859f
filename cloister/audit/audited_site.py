"""The site that an audit tests: a recipe's own training path with synthetic records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cloister.data.records import Record
from cloister.data.synthetic_records import made_up_records
from cloister.errors import DataError, UsageError
from cloister.privacy.plan import Plan
from cloister.recipe import Recipe
from cloister.server.public_center import with_public_center
from cloister.simulation.planning import plans_by_size
from cloister.tasks.bare_text import score_ends
from cloister.tasks.task import Task
from cloister.training.units import UnitExamples, encode_units
from cloister.training.workspace import Workspace, open_workspace


@dataclass(frozen=True)
class AuditedSite:
    """The simulated site that the conformance checks run on.

    Attributes:
        workspace: The recipe's base, adapters and task.
        plan: The recipe's plan.
        records: Synthetic; a person has several, of different labels and lengths.
        units: The same records, encoded by the plan's unit.
    """

    workspace: Workspace
    plan: Plan
    records: tuple[Record, ...]
    units: tuple[UnitExamples, ...]

    def with_training_alone(self) -> AuditedSite:
        """The site with the same plan, except that noise is independent and nothing evaluated."""
        return replace(self, plan=replace(self.plan, bands=(), evaluations=None))


def audited_site(recipe: Recipe, persons: int, each: int) -> AuditedSite:
    """Opens a recipe's path without its data.

    Args:
        recipe: The study.
        persons: Number of persons at the site.
        each: Most records of one person.

    Raises:
        CloisterError: The base cannot be loaded, or no plan can be made.
    """
    if not recipe.privacy.enabled:
        raise UsageError("privacy.enabled: a plan with noise is needed; there is nothing to audit")
    labels = recipe.task.labels or ("first", "second", "third")
    kind = recipe.task.records
    named = replace(recipe, task=replace(recipe.task, labels=labels))
    workspace = open_workspace(
        with_public_center(named).model,
        recipe.lora,
        recipe.task,
        labels,
        recipe.study.seed,
        frozen_cache_gib=recipe.machine.frozen_cache_gib,
        device=recipe.machine.device,
        attention=recipe.machine.attention,
        gradient_checkpointing=bool(recipe.machine.gradient_checkpointing),
        adversarial_radius=recipe.training.adversarial_radius,
    )
    plan, _ = next(plans_by_size(recipe))
    shapes = tuple(sorted(workspace.sent.shapes.items()))
    ends = score_ends(workspace.task)
    records = made_up_records(kind, workspace.task.labels, persons, each, ends)
    units = encoded(records, workspace.task, plan)
    if not all(units):
        raise DataError("a synthetic record cannot be encoded by this task; name it and report it")
    return AuditedSite(workspace, replace(plan, message=shapes), tuple(records), units)


def encoded(records: Sequence[Record], task: Task, plan: Plan) -> tuple[UnitExamples, ...]:
    """Encodes records into units with the function that a site uses."""
    return tuple(encode_units(records, task, plan.unit, plan.max_records).units)
