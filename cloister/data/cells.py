"""What is wrong with one value of a row, and the values that no row may hold."""

from __future__ import annotations

from cloister.errors import MisfitError


def misfit(where: str, reason: str) -> MisfitError:
    """A row that cannot be used, for a reason that quotes nothing of it."""
    return MisfitError(reason, f"{where}: {reason}")


def whole(text: str, column: str, where: str) -> str:
    """A text of whole characters, which tokenizers and files can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise misfit(
            where,
            f"{column} has half of a surrogate pair (\\ud800 to \\udfff), which is no character; "
            "correct the row",
        ) from error
    return text
