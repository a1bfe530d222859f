"""The column `cloister_unit`: rows of one value in it were made of one record, and are one unit.

`cloister data augment` writes it, and whoever makes copies by other means may. Each reader of
training rows takes it into `Record.unit`; `cloister.training.units` has what follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloister.data.step_log import steps_beside

UNIT = "cloister_unit"
# The command in whose output every row has it.
AUGMENT = "augment"


def is_augmented(path: Path) -> bool:
    """Whether a log beside a file says that copies of records were put into it.

    The logs of all steps on the way are looked at, and of a file that was written anew since, too:
    whoever cut the column out of a file with copies has not cut out the copies. Nothing is known of
    a file that was moved without its log.
    """
    return any(_has_copies(steps) for steps in steps_beside(path))


def _has_copies(steps: Any) -> bool:
    if not isinstance(steps, list):
        return False
    return any(isinstance(step, Mapping) and step.get("command") == AUGMENT for step in steps)
