"""Computes something of one record, alone: one that fails counts for nothing, and changes no other.

If a record's failure ended the round, the site's answer would reveal that the record is there. If a
lack of memory that other records caused were taken for the record's own failure, a unit's
contribution would depend on other units.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch

from cloister.errors import CloisterError, PluginError
from cloister.tasks.task import IGNORE, Example

T = TypeVar("T")


def alone(
    compute: Callable[[Example], T],
    example: Example,
    check: Callable[[Example], object],
    longest: int,
) -> T | None:
    """Returns what is computed of a record; None: it cannot be, although others can.

    Args:
        compute: Computes it.
        example: The record.
        check: Has the network compute a record; called with a dummy after a failure.
        longest: Tokens of the dummy: the most of any record, so that it takes the most memory.

    Raises:
        CloisterError, Exception: As of `tried_twice`.

    Guarantees:
        Those of `tried_twice`.
    """
    return tried_twice(lambda: compute(example), lambda: check(dummy_of(example, longest)))


def tried_twice(compute: Callable[[], T], check: Callable[[], object]) -> T | None:
    """Returns what is computed of one unit's records; None: it cannot be, although others can.

    Args:
        compute: Computes it. If it fails it leaves nothing behind that takes memory.
        check: Computes the same of a dummy that takes at least as much memory; called after a
            failure.

    Raises:
        CloisterError: As raised by `compute`, except for a plug-in's error: no record can have
            caused it.
        Exception: The dummy's error: then no record caused the failure, and every record's result
            would be missing from here on.

    Guarantees:
        None is returned only if `compute` failed twice, the second time after the dummy was
        computed: so a lack of memory that had passed by then costs no unit its contribution.
    """
    for check_first in (False, True):
        if check_first:
            _free()
            check()
        try:
            return compute()
        except Exception as error:
            check_data(error)
    return None


def dummy_of(example: Example, length: int) -> Example:
    """Returns a record of a task's form and of this many tokens, which says nothing."""
    per_token = isinstance(example.target, tuple)
    return Example((0,) * length, (IGNORE,) * length if per_token else 0)


def check_data(error: Exception) -> None:
    """Raises an error again if no record can have caused it.

    A plug-in's task may raise on a certain record. If that ended the round, the site's answer would
    reveal that the record is there.
    """
    if isinstance(error, CloisterError) and not isinstance(error, PluginError):
        raise error


def _free() -> None:
    """Gives back device memory that a failed pass left reserved."""
    if torch.cuda.is_available():
        with suppress(RuntimeError):
            torch.cuda.empty_cache()
