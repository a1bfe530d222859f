"""The one boundary in which a site's message is read: whatever goes wrong in it stays in it.

Only taking a foreign message apart and checking it belongs inside. What is done with the value that
was read, aggregation above all, does not: an error there is ours, and must be seen.
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

# Characters of a reason, which a run's journal and its page keep for every site and round.
MOST_WHY = 300


@dataclass(frozen=True)
class Unreadable:
    """Why a site's message could not be read.

    Attributes:
        why: In words, one line; of an error that nobody foresaw its type alone.
    """

    why: str


def reading(what: str, read: Callable[[], T]) -> T | Unreadable:
    """Reads something that another party wrote.

    Args:
        what: Whose message, for the log.
        read: Takes it apart and checks it, and does nothing else.

    Returns:
        What `read` returns, or why there is nothing.

    Guarantees:
        No `Exception` leaves, also none that is a mistake of ours in `read`; its traceback is
        logged here, at the coordinator, and nowhere else.
    """
    try:
        return read()
    except CloisterError as error:
        return Unreadable(one_line(str(error), MOST_WHY))
    except Exception as error:
        log.warning("a message of %s cannot be read", what or "a site", exc_info=True)
        return Unreadable(f"a message that cannot be read ({type(error).__name__})")
