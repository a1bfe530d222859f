"""A study of votes: a TOML file with the sections of a recipe that describe data and privacy, and
`[votes]` in place of those that describe training.

It is no recipe: it trains nothing, so that no command that trains reads it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cloister.bounds import shortened
from cloister.canonical import canonical
from cloister.data.config import SYNTHETIC
from cloister.errors import BudgetError, RecipeError, UsageError
from cloister.fields import read_section, whole_table
from cloister.privacy.plan import Plan
from cloister.privacy.vote_plan import NOT_SHARED, vote_plan
from cloister.privacy.votes import most_candidates
from cloister.recipe.read import read_tables
from cloister.recipe.schema import Recipe
from cloister.recipe.votes_config import VotesConfig
from cloister.toml_text import read_toml

SECTIONS = ("study", "model", "task", "data", "privacy", "machine", "votes")
# Version of what the digest covers.
FORMAT = 1
# The task whose records may vote.
VOTING = "sequence-classification"
# Fields of other sections that have no meaning without training, by section.
_UNUSED = {
    "study": ("start", "former"),
    "privacy": ("max_grad_norm", "max_update_norm"),
    "data": ("test", "validation", "old_test", "fold", "public", "held_out_share"),
}


# The sections that a recipe has besides: no adapters on the base, and the smallest batch.
_NOT_TRAINED = {
    "lora": {"train": "none", "head": "linear"},
    "training": {"expected_batch_size": 1, "local_steps": 1},
}


@dataclass(frozen=True)
class VoteStudy:
    """A study of votes.

    Attributes:
        recipe: Its sections other than `[votes]`; what it says of training is not used.
        votes: The `[votes]` section.
    """

    recipe: Recipe
    votes: VotesConfig

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the study: of every section but `[machine]`, with every value."""
        sections = self.recipe.sections()
        names = [name for name in SECTIONS if name not in ("machine", "votes")]
        tables = {
            name: self.recipe.task.table() if name == "task" else whole_table(sections[name])
            for name in names
        }
        document = {"format": FORMAT, **tables, "votes": whole_table(self.votes)}
        return hashlib.sha256(canonical(document)).hexdigest()

    def plans(self, names: tuple[str, ...]) -> dict[str, Plan]:
        """Returns each site's plan, from declared constants alone.

        Raises:
            RefusedError: No noise meets the target.
            UsageError: The candidates are more than the votes and their noise can tell apart.
            BudgetError: A site's lifetime budget does not cover all rounds.
        """
        declared = self.recipe.data.public_records
        by_site = declared if isinstance(declared, tuple) else (declared,) * len(names)
        solved = {
            records: vote_plan(
                self.recipe.privacy,
                public_records=records,
                candidates=self.votes.candidates,
                rounds=self.votes.rounds,
            )
            for records in set(by_site)
        }
        plans = {name: solved[records] for name, records in zip(names, by_site, strict=True)}
        self._check_candidates(sum(by_site), plans)
        self._check_budgets(plans)
        return plans

    def noise_of_a_count(self, plans: Mapping[str, Plan]) -> float:
        """Returns the standard deviation of the noise in a candidate's count over all sites."""
        return math.sqrt(sum(plan.noise_multiplier**2 for plan in plans.values()))

    def _check_candidates(self, units: int, plans: Mapping[str, Plan]) -> None:
        noise = self.noise_of_a_count(plans)
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


def is_vote_study(path: Path) -> bool:
    """Whether a file has a section `[votes]`.

    Raises:
        BadFileError: It is missing or not valid TOML.
    """
    return "votes" in read_toml(path, "give the study's file")


def read_vote_study(path: Path) -> VoteStudy:
    """Reads a study of votes.

    Args:
        path: A TOML file.

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
    for section, names in _UNUSED.items():
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
    data = rest.get("data")
    if isinstance(data, dict) and "train" in data:  # a recipe needs a test set; nothing is scored
        rest["data"] = {**data, "test": SYNTHETIC}
    model = rest.get("model", {})
    if isinstance(model, dict):  # no head is trained, so none needs other vectors
        rest["model"] = {"normalize": None, "center": None, **model}
    recipe = read_tables({**rest, **_NOT_TRAINED})
    problems = _problems(recipe, votes)
    if problems:
        raise RecipeError(problems)
    study = VoteStudy(recipe, votes)
    # The plans of as many sites as declared, so that what cannot be is refused at once.
    study.plans(tuple(f"site {number}" for number in range(1, recipe.data.sites + 1)))
    return study


def _impossible(tables: Mapping[str, object]) -> list[str]:
    """Returns problems of values for which a recipe's own message would not speak of votes."""
    task, privacy = tables.get("task"), tables.get("privacy")
    kind = task.get("kind", VOTING) if isinstance(task, dict) else VOTING
    problems = []
    if kind != VOTING:
        problems.append(
            f"task.kind: {shortened(kind)[1:-1]} given; records that vote are texts with one label "
            f"each: leave it out ({VOTING})"
        )
    if isinstance(privacy, dict) and privacy.get("noise") == "shared":
        problems.append(f"privacy.noise: {NOT_SHARED}")
    return problems


def _problems(recipe: Recipe, votes: VotesConfig) -> list[str]:
    task, problems = recipe.task, []
    if not task.labels:
        problems.append(
            "task.labels: missing; name every label of the code book, as in "
            'labels = ["negative", "positive"]: labels never come from private records'
        )
    elif votes.candidates < len(task.labels):
        problems.append(
            f"votes.candidates: {votes.candidates} given for {len(task.labels)} labels; at least "
            "one for each label is needed"
        )
    return problems
