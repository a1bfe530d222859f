"""A search over settings of a recipe, as it is planned and checked before anything runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.data.config import DataConfig
from cloister.data.load import is_same_file
from cloister.errors import RecipeError, UsageError
from cloister.ledger.stated import Stated
from cloister.recipe import Recipe, read_recipe
from cloister.simulation.measured import settings_of
from cloister.simulation.tuning.search_space import Searched, read_search, settings_in_all
from cloister.simulation.tuning.suggestions import check_optuna
from cloister.simulation.tuning.tuning_cost import check_composed, check_declared, together
from cloister.strategies.config import StrategyConfig

# Most trials of one search: suggestions are made from all scores so far, which takes a tenth of a
# second at this number; a person waits longer for the studies.
MOST_TRIALS = 500
# Most studies of one search, as of a sweep.
MOST_STUDIES = 1000
# Fields that a recipe with a head alone fills in only if it states none of them
# (`cloister.recipe.head_defaults`).
TOGETHER = ("training.learning_rate", "privacy.max_grad_norm")
# What comes with them for other bases than the default.
VECTORS = ("model.normalize", "model.center")


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search, before anything is run.

    Attributes:
        recipe: The recipe's file; None: the defaults.
        assignments: `section.key=value` each, for all trials.
        base: The recipe before any setting is changed.
        searched: The fields of the search.
        trials: Number of settings to try.
        seeds: Number of studies of each setting, with the recipe's seed and the following ones.
        seed: Seed of the suggestions.
        budget: ε that all trials together may cost each site; None: the records are public.
        together: What all trials together promise; None: the records are public.
    """

    recipe: Path | None
    assignments: tuple[str, ...]
    base: Recipe
    searched: tuple[Searched, ...]
    trials: int
    seeds: int
    seed: int
    budget: float | None
    together: Stated | None

    @property
    def declared(self) -> dict[str, Any]:
        """Returns what makes it this search, for the search's file."""
        return {
            "recipe": self.base.digest(),
            "search": {one.field: str(one) for one in self.searched},
            "seeds": self.seeds,
            "seed": self.seed,
            "budget": self.budget,
        }

    def setting_of_recipe(self) -> dict[str, str] | None:
        """Returns the recipe's own values of all searched fields; None: one is not searched."""
        own = settings_of(self.base)
        found = {one.field: one.holds(own.get(one.field)) for one in self.searched}
        return (
            {field: text for field, text in found.items() if text is not None}
            if all(text is not None for text in found.values())
            else None
        )

    def study(self, setting: dict[str, str], number: int, seed: int) -> Recipe:
        """Returns the recipe of one study of a trial.

        Args:
            setting: Values by field.
            number: The trial's number, which is a part of the study's name: equal settings are
                different studies for a ledger.
            seed: The study's seed.

        Raises:
            RecipeError: The setting contradicts the recipe.
        """
        budgets = [self.budget] * self.base.data.sites
        ours = [
            f"study.name={self.base.study.name[:48]}-trial-{number}",
            f"study.seed={seed}",
            *([] if self.budget is None else [f"privacy.site_budgets={budgets}"]),
        ]
        return self.with_setting(setting, ours)

    def with_setting(self, setting: dict[str, str], more: Sequence[str] = ()) -> Recipe:
        """Returns the recipe with a setting, and further changes.

        Raises:
            RecipeError: The setting contradicts the recipe.
        """
        cell = [f"{field}={text}" for field, text in setting.items()]
        return read_recipe(self.recipe, [*self.assignments, *self._pinned(), *cell, *more])

    def _pinned(self) -> list[str]:
        """Returns the values that the recipe would fill in otherwise once a field is stated."""
        strategy = self.base.strategy
        fields = [one.field for one in self.searched]
        if not any(field in TOGETHER or field.startswith("strategy.") for field in fields):
            return []
        own = settings_of(self.base)
        pinned = [f"{field}={own[field]!r}" for field in TOGETHER]
        stated = [(field, own[field]) for field in VECTORS if own.get(field) is not None]
        pinned += [f"{field}={json.dumps(value)}" for field, value in stated]
        if isinstance(strategy, StrategyConfig) and strategy.name == "fedavgm":
            pinned.append("strategy.name=fedavgm")
            if strategy.momentum is not None:
                pinned.append(f"strategy.momentum={strategy.momentum!r}")
        return pinned


def plan_search(
    recipe: Path | None,
    assignments: Sequence[str],
    searches: Sequence[str],
    *,
    trials: int,
    seeds: int = 1,
    seed: int = 0,
    is_public: bool = False,
    budget: float | None = None,
) -> Search:
    """Plans a search, and checks everything that can be checked before a study runs.

    Args:
        recipe: The recipe's file; None: the defaults.
        assignments: `section.key=value` each, for all trials.
        searches: The fields and their values; see `read_search`.
        trials: Number of settings to try.
        seeds: Number of studies of each setting.
        seed: Seed of the suggestions.
        is_public: Whether the user declares that the training records are public.
        budget: ε that all trials together may cost each site; None: none is stated.

    Raises:
        UsageError: The search is invalid, or optuna is not installed.
        RecipeError: The recipe is invalid, or a value of the search.
        RefusedError: The records may be private, and no budget is stated.
        BudgetError: The budget does not cover all trials.
    """
    base, searched = read_recipe(recipe, assignments), read_search(searches)
    _check_sizes(searched, trials, seeds)
    _check_data(base.data)
    if base.study.start is not None:
        raise UsageError("study.start: a search begins each trial afresh; leave it out")
    check_declared(base, is_public=is_public, budget=budget)
    if budget is not None:
        check_composed(searched)
    total = None if budget is None else together(base, trials * seeds, budget)
    planned = Search(
        recipe=recipe,
        assignments=tuple(assignments),
        base=base,
        searched=searched,
        trials=trials,
        seeds=seeds,
        seed=seed,
        budget=budget,
        together=total,
    )
    _check_ends(planned)
    check_optuna()
    return planned


def _check_sizes(searched: Sequence[Searched], trials: int, seeds: int) -> None:
    if not 1 <= trials <= MOST_TRIALS or trials * seeds > MOST_STUDIES:
        raise UsageError(
            f"--trials, --seeds: {trials} of {seeds} given; from 1 to {MOST_TRIALS} trials and at "
            f"most {MOST_STUDIES} studies are allowed"
        )
    if trials > settings_in_all(searched):
        raise UsageError(
            f"--trials: {trials} given, but the search has only {settings_in_all(searched):g} "
            "different settings; give at most that number, or search more"
        )


def _check_data(data: DataConfig) -> None:
    """Refuses a recipe without a public file to choose by."""
    if data.validation is None:
        raise UsageError(
            "data.validation: missing; settings are chosen by the score on a public validation "
            "file, because a choice by the test file would flatter the test score: give one with "
            "--set data.validation=FILE"
        )
    if data.test is not None and is_same_file(data.validation, data.test):
        raise UsageError(
            "data.validation: the test file given; the test score would be that of what it chose: "
            "give another public file"
        )
    if data.fold is not None:
        raise UsageError(
            "data.fold: given; scores on held-out private records are covered by no ε, so nothing "
            "may be chosen by them: leave it out"
        )


def _check_ends(planned: Search) -> None:
    """Reads the recipe with every end of every range, so that an invalid one is found at once.

    A problem of another field, or of another searched field's section, is a contradiction that
    other trials may avoid; those that have it are kept with the reason.

    Raises:
        RecipeError: A value is invalid whatever the other fields have.
    """
    problems: list[str] = []
    for one in planned.searched:
        section = one.field.partition(".")[0]
        others = [other for other in planned.searched if other is not one]
        beside = any(other.field.startswith(f"{section}.") for other in others)
        for text in one.ends:
            try:
                planned.with_setting({one.field: text})
            except RecipeError as error:
                own = [p for p in error.problems if p.startswith(one.field) and not beside]
                problems += own if others else error.problems
    if problems:
        raise RecipeError([f"--search {problem}" for problem in dict.fromkeys(problems)])
