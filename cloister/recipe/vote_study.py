"""A study of votes: a TOML file with the sections of a recipe that describe data and privacy, and
`[votes]` in place of those that describe training.

It is read into a recipe whose training sections say that nothing is trained (`recipe.vote_rules`).
No command that trains reads such a file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cloister.bounds import shortened
from cloister.errors import BudgetError, RecipeError, UsageError
from cloister.fields import read_section
from cloister.privacy.plan import Plan
from cloister.privacy.votes import most_candidates
from cloister.recipe.plan_of import plan_of
from cloister.recipe.read import read_recipe, read_tables
from cloister.recipe.schema import Recipe
from cloister.recipe.vote_rules import NOT_TRAINED, UNUSED, VOTING
from cloister.recipe.votes_config import VotesConfig
from cloister.toml_text import read_toml

SECTIONS = ("study", "model", "task", "data", "privacy", "federation", "machine", "votes")
# The fields of `[federation]` that votes have, all for connected sites.
WAITING = ("min_sites", "round_timeout", "absent_timeout")


@dataclass(frozen=True)
class VoteStudy:
    """A study of votes.

    Attributes:
        recipe: It has `votes`; what it says of training is that there is none.
    """

    recipe: Recipe

    @property
    def votes(self) -> VotesConfig:
        """The `[votes]` section.

        Raises:
            UsageError: The recipe is of a study that trains.
        """
        if self.recipe.votes is None:
            raise UsageError("votes: missing; a study of votes has a section [votes]")
        return self.recipe.votes

    @property
    def digest(self) -> str:
        """SHA-256 of the study's document."""
        return self.recipe.digest()

    def plans(self, names: tuple[str, ...]) -> dict[str, Plan]:
        """Returns each site's plan, from declared constants alone.

        Raises:
            RefusedError: No noise meets the target.
            UsageError: The candidates are more than the votes and their noise can tell apart.
            BudgetError: A site's lifetime budget does not cover all rounds.
        """
        declared = self.recipe.data.public_records
        by_site = declared if isinstance(declared, tuple) else (declared,) * len(names)
        solved = {records: plan_of(self.recipe, records) for records in set(by_site)}
        plans = {name: solved[records] for name, records in zip(names, by_site, strict=True)}
        self._check_candidates(sum(by_site), plans)
        self._check_budgets(plans)
        return plans

    def _check_candidates(self, units: int, plans: Mapping[str, Plan]) -> None:
        noise = noise_of_a_count(plans)
        most = most_candidates(units, noise)
        if self.votes.candidates > most:
            at = f"{len(plans)} {'site' if len(plans) == 1 else 'sites'}"
            raise UsageError(
                f"votes.candidates: {self.votes.candidates:,} given; {at} with {units:,} declared "
                f"units cast {units:,} votes, and the budget needs noise of standard deviation "
                f"{noise:.3g} in every count: with more than {most:,} candidates the mean count is "
                "below its noise. Set fewer candidates or rounds, a larger privacy.epsilon, or "
                "more sites; data.public_records is what each site declares"
            )

    def _check_budgets(self, plans: Mapping[str, Plan]) -> None:
        budgets = self.recipe.privacy.site_budgets
        for (name, plan), budget in zip(plans.items(), budgets, strict=False):
            if plan.epsilon_after(plan.num_rounds) <= budget:
                continue
            fit = [n for n in range(plan.num_rounds) if n and plan.epsilon_after(n) <= budget]
            raise BudgetError(
                f"privacy.site_budgets: {budget:g} for {name}; {plan.num_rounds} rounds of votes "
                f"cost ε = {plan.epsilon_after(plan.num_rounds):.4g}, and "
                f"{max(fit, default=0)} of them fit: set votes.rounds, more noise, or a larger "
                "budget. Nothing was charged"
            )


def noise_of_a_count(plans: Mapping[str, Plan]) -> float:
    """Returns the standard deviation of the noise in a candidate's count over these sites.

    Args:
        plans: The plan of each site whose votes are in the count.
    """
    return math.sqrt(math.fsum(_own_noise(plan) ** 2 for plan in plans.values()))


def _own_noise(plan: Plan) -> float:
    """The standard deviation of the noise that one site adds to each count."""
    if plan.sharing is None:
        return plan.noise_multiplier
    noise = plan.shared_vote_noise()
    return noise.share * noise.grid


def is_vote_study(path: Path) -> bool:
    """Whether a file has a section `[votes]`.

    Raises:
        BadFileError: It is missing or not valid TOML.
    """
    return "votes" in read_toml(path, "give the study's file")


def read_study(path: Path) -> Recipe:
    """Reads the recipe of a study that trains, or of one of votes, to say what a site makes of it.

    Raises:
        CloisterError: As `read_recipe` and `read_vote_study`.
    """
    return read_vote_study(path).recipe if is_vote_study(path) else read_recipe(path)


def read_vote_study(path: Path, declared: tuple[int, ...] = ()) -> VoteStudy:
    """Reads a study of votes.

    Args:
        path: A TOML file.
        declared: The declared number of units of each connected site, in place of `data.sites` and
            `data.public_records`; empty: the file's, for a simulation.

    Raises:
        BadFileError: The file is missing or not valid TOML.
        RecipeError: Fields are invalid; all problems at once.
        UsageError: Privacy is asked for in a way that votes do not have.
    """
    tables = read_toml(path, "give the file of a study with a section [votes]")
    problems = [
        f"{name[:64]}: not a section of a study of votes, which trains nothing; known: "
        f"{', '.join(SECTIONS)}"
        for name in tables
        if name not in SECTIONS
    ]
    for section, names in UNUSED.items():
        table = tables.get(section, {})
        given = [name for name in names if isinstance(table, dict) and name in table]
        problems += [f"{section}.{name}: votes do not use it; leave it out" for name in given]
    problems += _impossible(tables)
    stated = tables.get("votes", {})
    if not isinstance(stated, dict):
        problems.append("votes: a section [votes] is needed")
        stated = {}
    votes = read_section(VotesConfig, stated, "votes", problems)
    if problems or votes is None:  # a recipe's own rules would speak of training
        raise RecipeError(problems)
    rest = {name: table for name, table in tables.items() if name in SECTIONS and name != "votes"}
    waiting = rest.get("federation", {})
    assert isinstance(waiting, dict)  # `_impossible`
    rest["federation"] = {**waiting, "num_rounds": votes.rounds}
    if declared:
        data = rest.get("data", {})
        sizes = {"sites": len(declared), "public_records": list(declared)}
        rest["data"] = {**(data if isinstance(data, dict) else {}), **sizes}
    own_data = rest.get("data", {})
    recipe = replace(
        read_tables({**rest, **NOT_TRAINED}, votes),
        has_stand_in=not declared and isinstance(own_data, dict) and "train" not in own_data,
    )
    study = VoteStudy(recipe)
    # The plans of as many sites as declared, so that what cannot be is refused at once.
    study.plans(study.recipe.data.site_names)
    return study


def _impossible(tables: Mapping[str, object]) -> list[str]:
    """Returns problems of values for which a recipe's own message would not speak of votes."""
    task, waiting = tables.get("task"), tables.get("federation", {})
    kind = task.get("kind", VOTING) if isinstance(task, dict) else VOTING
    problems = []
    if kind != VOTING:
        problems.append(
            f"task.kind: {shortened(kind)[1:-1]} given; records that vote are texts with one label "
            f"each: leave it out ({VOTING})"
        )
    if not isinstance(waiting, dict):
        return [*problems, "federation: a section [federation] is needed"]
    return problems + [
        f"federation.{name[:64]}: votes do not use it; known: {', '.join(WAITING)}"
        for name in waiting
        if name not in WAITING
    ]
