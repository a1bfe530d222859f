"""The column `cloister_unit`: rows with the same value are copies of one record, and one unit.

`cloister data augment` writes it; a user who makes copies otherwise may write it too. Each reader
of training rows reads it into `Record.unit`; `cloister.training.units` uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloister.data.step_log import steps_beside

UNIT = "cloister_unit"
# The command whose output has it in every row.
AUGMENT = "augment"


def is_augmented(path: Path) -> bool:
    """Returns whether a log beside a file says that copies of records were added to it.

    All steps of the log count, even if the file was rewritten since: a user who removed the column
    from a file with copies has not removed the copies. A file that was moved without its log is
    unknown, and the answer is False.
    """
    return any(_has_copies(steps) for steps in steps_beside(path))


def _has_copies(steps: Any) -> bool:
    if not isinstance(steps, list):
        return False
    return any(isinstance(step, Mapping) and step.get("command") == AUGMENT for step in steps)
