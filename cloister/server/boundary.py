"""The one place where a site's message is parsed: no error in it can end the run.

Only parsing and checking a foreign message belongs inside. What is done with the parsed value, such
as aggregation, does not: an error there is our own and must be seen.
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
        why: One line of words; of an unforeseen error, its type alone.
    """

    why: str


def reading(what: str, read: Callable[[], T]) -> T | Unreadable:
    """Reads something that another party wrote.

    Args:
        what: Whose message, for the log.
        read: Parses and checks it, and does nothing else.

    Returns:
        What `read` returns, or why there is nothing.

    Guarantees:
        No `Exception` leaves, not even one by a mistake in `read`; its traceback is logged at the
        coordinator alone.
    """
    try:
        return read()
    except CloisterError as error:
        return Unreadable(one_line(str(error), MOST_WHY))
    except Exception as error:
        log.warning("a message of %s cannot be read", what or "a site", exc_info=True)
        return Unreadable(f"a message that cannot be read ({type(error).__name__})")
