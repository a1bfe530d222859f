"""The `[approvals]` section of `site.toml`: who must approve a study, and which need no approval.

Without the section every study waits for one person. A study that matches one
`[[approvals.standing]]` in every condition is admitted without a person. No condition has a default
that would admit more studies.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from cloister.bounds import MOST_NAME, MOST_ROUNDS, Between, Items, Text, shortened
from cloister.client.policy_file import MOST_NAMED, Named
from cloister.errors import UsageError
from cloister.fields import ELSEWHERE, check_bounds, read_section
from cloister.privacy.accounting import LARGEST_EPSILON
from cloister.privacy.units import Unit
from cloister.tasks.config import LONGEST_LABEL, MOST_LABELS, TaskName
from cloister.tasks.plugins import check_names

# Most operators of one site; a longer list is a mistake.
MOST_OPERATORS = 100
# Ten years in days; for approvals that do not end, leave the key out.
LONGEST_DAYS = 3650.0
# Most standing approvals; nobody reviews a longer policy.
MOST_STANDING = 100

EXAMPLE = """\
# [approvals]               # absent: each study waits for one person, `cloister site studies list`
# needed = 1                # people who must approve; 2: two different accounts of this machine
# operators = ["alice"]     # whose approvals count; absent: whoever may write NAME.approvals/
# days = 90                 # an approval ends after so many days; absent: it does not end
#
# [[approvals.standing]]    # studies that meet every condition need no person
# base_sha256 = ["FILL IN"] # hashes of the base models
# tasks = ["FILL IN"]       # such as "sequence-classification"
# unit = "FILL IN"          # "record" or "person": whose presence the site's plan hides
# max_epsilon = "FILL IN"   # such as 2.0: of the whole study, at its δ (at most privacy.max_delta)
# max_rounds = "FILL IN"    # such as 30
# until = "FILL IN"         # such as 2027-06-30, without quotes: the last day, by UTC
# shared_noise = false      # true: also studies in which sites share the noise
# votes = false             # true: also studies of votes, which train nothing (accept.votes)
# labels = ["FILL IN"]      # all that a study may name; absent: those of [records], and no other
"""


@dataclass(frozen=True, kw_only=True)
class StandingApproval:
    """One `[[approvals.standing]]`: studies that are approved in advance, while the budget lasts.

    Attributes:
        base_sha256: SHA-256 of the accepted base models' weights.
        tasks: Kinds of task.
        unit: The unit whose presence is hidden by the plan as this site runs it.
        max_epsilon: ε of the whole plan as this site runs it, at the plan's own δ; `inf`, which
            must be stated, for trials that protect nothing.
        max_rounds: Most rounds of the study, as the site runs it.
        until: Last day, in UTC.
        shared_noise: Whether studies with shared noise match; their ε relies on
            `accept.noise_partners`.
        votes: Whether studies of votes match; they train nothing, and publish texts that win.
        labels: A study may name these and no others; absent: exactly what `[records]` declares.
    """

    base_sha256: Named
    tasks: Annotated[tuple[TaskName, ...], Items(MOST_NAMED)]
    unit: Unit
    max_epsilon: Annotated[float, Between(0.0, LARGEST_EPSILON, or_infinite=True)]
    max_rounds: Annotated[int, Between(1, MOST_ROUNDS)]
    until: datetime.date
    shared_noise: bool = False
    votes: bool = False
    labels: (
        Annotated[
            tuple[Annotated[str, Text(LONGEST_LABEL, lines=True, least=1)], ...], Items(MOST_LABELS)
        ]
        | None
    ) = None

    def __post_init__(self) -> None:
        check_bounds(self)
        for name in ("base_sha256", "tasks"):
            if not getattr(self, name):
                raise UsageError(f"{name}: empty; no study would ever match: name at least one")
        check_names("tasks", self.tasks)
        for digest in self.base_sha256:
            if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
                raise UsageError(
                    f"base_sha256: {shortened(digest)} given; 64 lower-case hexadecimal digits are "
                    "needed"
                )


@dataclass(frozen=True, kw_only=True)
class ApprovalsConfig:
    """The `[approvals]` section.

    Attributes:
        needed: How many different people must approve a study. A person is an account of the
            operating system: two approvals by one account count once.
        operators: Accounts of this machine whose approvals count; empty: whoever may write the
            folder of approvals. What any account rejects is rejected.
        days: After so many days an approval ends; absent: it does not.
        standing: Studies that are approved in advance.
    """

    needed: Annotated[int, Between(1, MOST_OPERATORS)] = 1
    operators: Annotated[
        tuple[Annotated[str, Text(MOST_NAME, least=1)], ...], Items(MOST_OPERATORS)
    ] = ()
    days: Annotated[float, Between(1.0, LONGEST_DAYS)] | None = None
    standing: tuple[StandingApproval, ...] = field(default=(), metadata=ELSEWHERE)

    def __post_init__(self) -> None:
        if len(set(self.operators)) != len(self.operators):
            raise UsageError("operators: a name is given twice; give each once")
        if self.operators and len(self.operators) < self.needed:
            raise UsageError(
                f"needed: {self.needed} given, and operators names {len(self.operators)}; no study "
                "could ever be approved: name more, or ask for fewer"
            )


def approvals_of(table: object, problems: list[str]) -> ApprovalsConfig | None:
    """Builds the section from its TOML table; None if the table is not valid.

    Args:
        table: The value that TOML gives for `approvals`.
        problems: Receives one line for each problem.
    """
    if not isinstance(table, Mapping):
        problems.append(f"approvals: {shortened(table)} given; a section [approvals] is needed")
        return None
    found = len(problems)
    rows = table.get("standing", [])
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        problems.append(
            f"approvals.standing: {shortened(rows)} given; tables [[approvals.standing]] are needed"
        )
        rows = []
    if len(rows) > MOST_STANDING:
        problems.append(f"approvals.standing: {len(rows)} given; at most {MOST_STANDING} are read")
        rows = []
    standing = tuple(_standing(row, number, problems) for number, row in enumerate(rows, 1))
    rest = {key: value for key, value in table.items() if key != "standing"}
    section = read_section(ApprovalsConfig, rest, "approvals", problems)
    if len(problems) > found or section is None:
        return None
    return replace(section, standing=tuple(one for one in standing if one is not None))


def _standing(
    row: Mapping[str, object], number: int, problems: list[str]
) -> StandingApproval | None:
    path = f"approvals.standing {number}"
    needed = ("base_sha256", "tasks", "unit", "max_epsilon", "max_rounds", "until")
    missing = [f"{path}.{key}: missing, and it has no default" for key in needed if key not in row]
    problems += missing
    return None if missing else read_section(StandingApproval, row, path, problems)
