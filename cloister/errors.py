"""The errors that Cloister raises on purpose, and the exit code of a command for each.

    CloisterError                  1  failed
    ├── UsageError                 2  an invalid command or recipe
    │   └── RecipeError            2  one or several fields of a recipe, all reported at once
    ├── PluginError                1  a plug-in that raised, or returned what it must not
    ├── BadFileError               3  a file that is missing, malformed or not the one expected
    │   ├── DataError              3  a data file, named with its row
    │   │   └── MisfitError        3  one record that cannot be used; a site leaves it out
    │   ├── AdapterFormatError     3  bytes that are not an adapter message or checkpoint
    │   │   └── DivergedError      3  values that are not finite: training diverged
    │   └── ModelFileError         3  a base model that cannot be found, read or trusted
    ├── RefusedError               4  refused by policy or because its privacy cannot be shown
    │   ├── PreflightError         4  a model whose per-record gradients are not exact
    │   ├── RoundSpentError        4  a round that was charged and cut off before its release
    │   ├── StrangerError          4  a question that the coordinator did not sign for this site
    │   └── UnapprovedError        4  a study that waits for a person at the site to approve it
    ├── BudgetError                5  the privacy budget does not cover what was asked
    ├── LedgerError                6  a ledger or signature that is broken
    ├── NetworkError               7  network or authentication
    ├── QuorumError                8  a deadline passed or too few sites answered
    └── UnhealthyError             9  `cloister site doctor` found what keeps a site out

A message says what was given, what is needed, and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence

# Most problems of one recipe that a message lists; the rest is shown once these are corrected.
MOST_PROBLEMS = 20


class CloisterError(Exception):
    """The base of every deliberate error; its text is for the person at the terminal."""

    exit_code = 1


class UsageError(CloisterError):
    """A command line that cannot be carried out as given."""

    exit_code = 2


class RecipeError(UsageError):
    """One or several fields of a recipe are invalid.

    Args:
        problems: One line each, which begins with the field's path (`privacy.epsilon: …`).
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        more = len(self.problems) - MOST_PROBLEMS
        rest = [f"… and {more} more problems"] if more > 0 else []
        super().__init__("\n".join([*self.problems[:MOST_PROBLEMS], *rest]))


class PluginError(CloisterError):
    """A plug-in that raised, or returned what it must not; the message names it."""


class BadFileError(CloisterError):
    """A file that is missing, malformed or not the one expected."""

    exit_code = 3


class DataError(BadFileError):
    """A data file that does not hold what the task needs."""


class MisfitError(DataError):
    """A record that cannot be used: a site leaves it out of its unit, and counts it locally.

    Args:
        reason: One of a few fixed phrases, by which such records are counted; it quotes no record.
        message: What is wrong with this record; for its owner only.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class AdapterFormatError(BadFileError):
    """Bytes that are not an adapter in the expected form."""


class DivergedError(AdapterFormatError):
    """An adapter with NaN or infinite values, because training diverged."""


class ModelFileError(BadFileError):
    """A base model that cannot be found, read or trusted."""


class RefusedError(CloisterError):
    """Refused by policy, or because its privacy cannot be shown."""

    exit_code = 4


class PreflightError(RefusedError):
    """A model whose per-record gradients are not exact, named with the parameter."""


class RoundSpentError(RefusedError):
    """A round that was charged and cut off before its release; it is not run again."""


class StrangerError(RefusedError):
    """A question that the coordinator's key did not sign, or not for this site."""


class UnapprovedError(RefusedError):
    """A study that waits for a person at the site to approve it."""


class BudgetError(CloisterError):
    """The privacy budget does not cover what was asked."""

    exit_code = 5


class LedgerError(CloisterError):
    """A ledger or signature that is broken."""

    exit_code = 6


class NetworkError(CloisterError):
    """A peer that cannot be reached or authenticated."""

    exit_code = 7


class QuorumError(CloisterError):
    """A deadline passed or too few sites answered."""

    exit_code = 8


class UnhealthyError(CloisterError):
    """A site lacks what it needs to take part."""

    exit_code = 9
