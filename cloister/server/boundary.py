"""Parses what a site sent; an error in it cannot end the run.

Only parsing and checking a site's message belongs inside `reading`. Work on the parsed value, such
as aggregation, stays outside: an error there is a bug of ours and must be seen.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cloister.errors import CloisterError
from cloister.printable import one_line

log = logging.getLogger(__name__)

T = TypeVar("T")

# Most characters of a reason: the run's journal and page keep one for every site and round.
MOST_WHY = 300


@dataclass(frozen=True)
class Unreadable:
    """Why a site's message could not be read.

    Attributes:
        why: One line of text; for an unexpected error its type alone.
    """

    why: str


def reading(what: str, read: Callable[[], T]) -> T | Unreadable:
    """Reads something that another party wrote.

    Args:
        what: Whose message it is, for the log.
        read: Parses and checks it, and does nothing else.

    Returns:
        What `read` returns, or the reason why it failed.

    Guarantees:
        No `Exception` passes, not even one from a bug in `read`; its traceback is logged at the
        coordinator only.
    """
    try:
        return read()
    except CloisterError as error:
        return Unreadable(one_line(str(error), MOST_WHY))
    except Exception as error:
        log.warning("a message of %s cannot be read", what or "a site", exc_info=True)
        return Unreadable(f"the message cannot be read ({type(error).__name__})")
