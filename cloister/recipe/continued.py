"""Fits a study to the finished run with whose adapter it begins (continual learning)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from cloister.bounds import shortened
from cloister.errors import RecipeError
from cloister.recipe.read import validated
from cloister.recipe.schema import Recipe

# Fields that decide the meaning of a vector or an output. With another value the adapter would
# belong to another function; the base's file name, its type and quantization, and sizes may differ.
_MODEL = ("pooling", "normalize", "layers", "center")
_TASK = (
    "kind",
    "labels",
    "prompt",
    "chat_template",
    "score_range",
    "score_step",
    "encoder",
    "compare",
    "plugin",
)
# A rank for each site: another number of sites may take part.
_OF_SITES = frozenset({"ranks"})


@dataclass(frozen=True, kw_only=True)
class Former:
    """The facts about a finished run that a study needs to begin with its adapter.

    Attributes:
        run: The name of its folder, for messages.
        recipe: Its recipe, with labels.
        base_sha256: SHA-256 of its base's weights.
        adapter: SHA-256 of its released adapter in wire format.
    """

    run: str
    recipe: Recipe
    base_sha256: str
    adapter: str


def continued(recipe: Recipe, former: Former) -> Recipe:
    """Returns a study that begins with a finished run's adapter.

    The fields `study.start` and `study.former` name adapter and study, so that the digest covers
    both. Labels and the base's SHA-256, if the study states none, are those of the run.

    Args:
        recipe: The study.
        former: The finished run.

    Raises:
        RecipeError: The run's adapter does not fit this study (another base, task, labels,
            adapters or seed); the message has every difference, one per line. Or its sites kept
            parts of their adapters.
    """
    before = former.recipe.resolved()
    if before.lora.train == "b-kept":
        raise RecipeError(
            [
                f"--from: in {former.run} each site kept a part of its adapter (lora.train = "
                "b-kept), so that what it released is no model, and no study can begin with it; "
                "name another run, or leave --from out"
            ]
        )
    if recipe.model.sha256 is None:
        model = dataclasses.replace(recipe.model, sha256=former.base_sha256)
        recipe = dataclasses.replace(recipe, model=model)
    if not recipe.task.labels and recipe.task.kind == before.task.kind:
        task = dataclasses.replace(recipe.task, labels=before.task.labels)
        recipe = dataclasses.replace(recipe, task=task)
    problems = [*_differences(recipe.resolved(), before, former), *_kept_apart(recipe)]
    if problems:
        raise RecipeError(problems)
    study = dataclasses.replace(recipe.study, start=former.adapter, former=former.recipe.digest())
    return validated(dataclasses.replace(recipe, study=study))


def _differences(recipe: Recipe, before: Recipe, former: Former) -> list[str]:
    """Returns a line for each difference that makes the run's adapter unusable in the study."""
    problems = []
    if recipe.model.sha256 != former.base_sha256:
        problems.append(
            f"model.base: {shortened(recipe.model.base)} has other weights than the base of "
            f"{former.run} (SHA-256 {former.base_sha256[:16]}…); --from needs the same base"
        )
    lora = [f.name for f in dataclasses.fields(before.lora) if f.name not in _OF_SITES]
    # The labels of retrieval are the ids of its passages, which may be others in another study.
    task = [name for name in _TASK if (name, before.task.kind) != ("labels", "retrieval")]
    if recipe.task.kind != before.task.kind:
        task = ["kind"]
    for section, names in (("model", _MODEL), ("task", task), ("lora", lora), ("study", ["seed"])):
        for name in names:
            now = getattr(getattr(recipe, section), name)
            then = getattr(getattr(before, section), name)
            if now != then:
                problems.append(
                    f"{section}.{name}: {_said(now)} given, {former.run} has {_said(then)}; "
                    f"--from needs the same{_why(section)}{_how(section, name, then)}"
                )
    return problems


def _why(section: str) -> str:
    if section != "study":
        return ""
    return ", because parts that are not trained, and the partition of people, follow from it"


def _how(section: str, name: str, then: object) -> str:
    """How to say it where the run has no value, since a default may have filled one in here."""
    is_filled_in = (section, name) in (("model", "normalize"), ("model", "center"))
    return f' (absent = ["{section}.{name}"])' if is_filled_in and then is None else ""


def _said(value: object) -> str:
    return "nothing" if value is None else shortened(value)


def _kept_apart(recipe: Recipe) -> list[str]:
    """Refuses studies whose models are at the sites, so that no run has them."""
    if recipe.lora.train == "b-kept" or recipe.training.personal:
        return [
            "--from: each site keeps a part of its adapter in this study, and a finished run does "
            'not have these parts; set lora.train = "b" and training.personal = false'
        ]
    return []
