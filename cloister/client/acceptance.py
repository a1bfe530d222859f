"""Decides whether a site joins a study, from the study's recipe and `site.toml` alone.

    recipe ──▶ records declared? ──▶ sizes ──▶ template ──▶ policy ──▶ noise, cost ──▶ its plan here

This comes first: no base is looked for, no record is read, nothing is built. So a refusal is a
function of two files, one of which the coordinator wrote itself. What depends on the base (module
names that the recipe leaves out, sizes of messages) is checked once the base is loaded; its hash is
accepted here.
"""

from __future__ import annotations

from dataclasses import replace

from cloister.bounds import listed
from cloister.client.declared_records import RecordsConfig
from cloister.client.policy import ProposedPlan, check, reasons_but_cost
from cloister.client.policy_file import AcceptPolicy
from cloister.client.site_file import SiteFile
from cloister.errors import CloisterError, RefusedError
from cloister.models.config import ALL_LINEAR
from cloister.privacy.events import MOST_NOISE
from cloister.privacy.plan import Plan
from cloister.recipe import Recipe
from cloister.recipe.plan_of import plan_of
from cloister.tasks.config import TaskConfig
from cloister.tasks.plugins import installed_problem
from cloister.tasks.score_scale import ScoreScale
from cloister.tasks.template_rules import template_problems, template_sha256

NOTHING_HELD_OUT = (
    "site.held_out_share: the study evaluates its adapter privately on held-out units "
    "(privacy.evaluation_rounds), and this site declares none; set it in site.toml, such as 0.1, "
    "or ask for a study without private evaluations"
)


def accept(recipe: Recipe, file: SiteFile) -> Plan:
    """Decides whether a site joins a study.

    Args:
        recipe: The study's.
        file: The site's.

    Returns:
        The effective plan: the stricter of study and policy in every field, without the shapes of
        messages, which depend on the base.

    Raises:
        RefusedError: The site does not join. The message has every reason with its remedy, one per
            line; the study's cost is a reason only if there is no other, because it takes long to
            compute.

    Guarantees:
        A function of the two values: no record, no base, no network, no clock. A study that is
        accepted names every label that the site declares, so no record decides whether it fits.
    """
    reasons: list[str] = []
    if file.records is None:
        reasons.append(
            "records: this site's file declares none; add a section [records] with task and labels "
            "to site.toml"
        )
    else:
        reasons += _records(recipe.task, file.records)
    reasons += _sizes(recipe.task, file.policy.accept)
    reasons += _shares(recipe, file)
    reasons += _plugin(recipe.task, file.policy.accept)
    reasons += _template(recipe.task, file.policy.accept)
    evaluates = recipe.privacy.evaluations is not None and file.policy.accept.evaluations
    if evaluates and file.site.held_out_share is None:  # without the switch, the policy refuses
        reasons.append(NOTHING_HELD_OUT)
    try:
        reasons += reasons_but_cost(_asked(_unsolved(recipe), file), file.policy)
    except CloisterError as error:  # no plan can be made
        reasons += str(error).splitlines()
    if reasons:
        raise RefusedError("\n".join(reasons))
    try:
        return check(_asked(recipe, file), file.policy)
    except RefusedError:
        raise
    except CloisterError as error:
        raise RefusedError(str(error)) from error


def _asked(recipe: Recipe, file: SiteFile) -> ProposedPlan:
    return ProposedPlan(
        plan=proposed_plan(recipe, file),
        task=recipe.task.kind,
        base_sha256=recipe.model.sha256,
        target_modules=_named_modules(recipe),
        message_bytes=0,
        method=recipe.lora.method or "lora",
    )


def _named_modules(recipe: Recipe) -> tuple[str, ...] | None:
    """The modules that a study names; None where they depend on its base, which is not read
    here."""
    named = recipe.lora.target_modules
    return None if named in ((), (ALL_LINEAR,)) else named


def _unsolved(recipe: Recipe) -> Recipe:
    """The study with the largest possible noise, if its noise must still be calibrated."""
    if recipe.privacy.target_epsilon is None:
        return recipe
    most = replace(recipe.privacy, epsilon=None, noise_multiplier=MOST_NOISE)
    return replace(recipe, privacy=most)


def proposed_plan(recipe: Recipe, file: SiteFile) -> Plan:
    """The study's plan at a site of the declared size, before the site tightens it.

    Raises:
        RefusedError: No noise meets the study's target there.
        UsageError: The study's batch is larger than the site's declared size.
    """
    return replace(plan_of(recipe, file.site.public_records), message=())


def _records(task: TaskConfig, declared: RecordsConfig) -> list[str]:
    """Reasons why the study does not fit the site's declared records, one per line."""
    if task.kind != declared.task:
        return [
            f"records.task: this site's records are for {declared.task}, the study is "
            f"{task.kind}; join another study, or declare other records"
        ]
    if task.records == "messages":
        return []
    if task.records == "score":
        return _scale(task, declared)
    if task.records == "items":
        return _items(task)
    if not task.labels:
        return [
            "task.labels: the study names none, and a site must not reveal which labels "
            "it has: ask the coordinator to name them"
        ]
    missing = [label for label in declared.labels if label not in task.labels]
    if not missing:
        return []
    return [
        f"task.labels: the study lacks {listed(missing)}, which this site declares; if it joined "
        "only where no record has that label, joining would reveal it: ask the coordinator to name "
        "every label of the code book"
    ]


def _items(task: TaskConfig) -> list[str]:
    """Refuses a recommendation study that does not state the hash of its items.

    Otherwise two sites could have different files of the same name: they would train different
    models, and different records would fit.
    """
    if task.items_sha256 is not None:
        return []
    return [
        "task.items_sha256: the study states none, so it is not known whether all sites have the "
        "same items; ask the coordinator to state it"
    ]


def _scale(task: TaskConfig, declared: RecordsConfig) -> list[str]:
    """Refuses a study whose scale of scores is not the one that the site declares.

    With a narrower scale, the site's answer would reveal whether a record's score lies outside it.
    """
    if (task.score_range, task.score_step) == (declared.score_range, declared.score_step):
        return []
    scales = [
        ScoreScale.of(one.score_range, one.score_step)
        for one in (task, declared)
        if one.score_range is not None
    ]
    return [
        f"task.score_range: the study's scores go from {scales[0]}, this site declares "
        f"{scales[-1]} in records.score_range and records.score_step; ask the coordinator to state "
        "the code book's scale, or correct site.toml"
    ]


def _sizes(task: TaskConfig, accept: AcceptPolicy) -> list[str]:
    if task.max_length <= accept.max_length:
        return []
    return [
        f"accept.max_length: records of {task.max_length} tokens asked; at most "
        f"{accept.max_length} are taken; ask for a smaller task.max_length, or raise it in "
        "site.toml"
    ]


def _shares(recipe: Recipe, file: SiteFile) -> list[str]:
    """Why the others' shares of the noise would be smaller than this site's ε needs; else empty.

    Noise, and the grid of evaluations, follow from the declared size. Every site compares its own
    with the one that the study states, so all of them add shares of one noise on one grid.
    """
    declared, own = recipe.data.public_records, file.site.public_records
    sizes = set(declared) if isinstance(declared, tuple) else {declared}
    if recipe.privacy.noise != "shared" or not recipe.privacy.enabled or sizes == {own}:
        return []
    return [
        f"data.public_records: the study's noise is shared among sites of "
        f"{listed([str(size) for size in sorted(sizes)])} declared units, and this site declares "
        f"{own} (site.public_records), for which others would add too little: ask the coordinator "
        'for one declared size at all sites, or for privacy.noise = "site"'
    ]


def _plugin(task: TaskConfig, accept: AcceptPolicy) -> list[str]:
    """Why a plug-in that this site's file names is not the code that the study states; else empty.

    A plug-in that the file does not name is refused by its name (`policy.check`) without a look-up,
    so that no refusal reveals what else is installed here. Nothing is imported.
    """
    if task.plugin is None or task.kind not in accept.tasks:
        return []
    problem = installed_problem(task)
    return [] if problem is None else [problem]


def _template(task: TaskConfig, accept: AcceptPolicy) -> list[str]:
    """Reasons why the recipe's template may not run over the site's records, one per line."""
    text = task.chat_template
    if text is None or task.records != "messages":
        return []
    digest = template_sha256(text)
    reasons = [
        f"task.chat_template: {problem}; ask the coordinator to leave it out, for the base's own"
        for problem in template_problems(text)
    ]
    if digest not in accept.templates and not reasons:
        reasons.append(
            f"accept.templates: the study brings a chat template, SHA-256 {digest}, which this "
            "site does not know; read it, and add the hash in site.toml to trust it, or ask the "
            "coordinator to leave it out, for the base's own"
        )
    return reasons
