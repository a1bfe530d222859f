"""One check of `cloister site doctor`: a verdict and, if it fails, the remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from cloister.errors import CloisterError


class CheckLevel(StrEnum):
    """The possible verdicts of a check."""

    PASS = "PASS"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Outcome:
    """The outcome of one check.

    Attributes:
        name: The check's name.
        level: Its verdict.
        detail: What was found.
        remedy: What to do; empty if it passed.
    """

    name: str
    level: CheckLevel
    detail: str
    remedy: str = ""


def run_check(name: str, check: Callable[[], Outcome]) -> Outcome:
    """Runs a check; an error that it raises becomes its verdict."""
    try:
        return check()
    except CloisterError as error:
        found = [line.partition("; ") for line in str(error).splitlines()]
        details = " · ".join(what for what, _, _ in found)
        return Outcome(
            name, CheckLevel.FAIL, details, " · ".join(r or what for what, _, r in found)
        )
    except (OSError, RuntimeError, ValueError, MemoryError) as error:
        return Outcome(
            name, CheckLevel.FAIL, f"{type(error).__name__}: {error}", "correct this first"
        )
