"""Turns every error after a charge into `RoundSpentError`: the round stays spent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cloister.errors import RoundSpentError


@contextmanager
def charged(number: int) -> Iterator[None]:
    """Turns every error of the code that runs after a charge into a RoundSpentError.

    Args:
        number: The round.

    Raises:
        RoundSpentError: In place of any other error, which becomes its cause. So the site answers
            `spent` whatever the error was.
    """
    try:
        yield
    except RoundSpentError:
        raise
    except Exception as error:
        raise RoundSpentError(
            f"round {number} was charged and then interrupted ({type(error).__name__}: {error}); "
            "it stays spent: go on with the next one"
        ) from error
