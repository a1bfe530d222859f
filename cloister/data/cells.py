"""Makes the error for a row that cannot be used, and refuses lone surrogates in a text."""

from __future__ import annotations

from cloister.errors import MisfitError


def misfit(where: str, reason: str) -> MisfitError:
    """Returns the error for a row that cannot be used; `reason` must not quote the row."""
    return MisfitError(reason, f"{where}: {reason}")


def whole(text: str, column: str, where: str) -> str:
    """Returns the text, or raises `MisfitError` for a lone surrogate, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise misfit(
            where,
            f"{column} has half of a surrogate pair (\\ud800 to \\udfff), which is not a "
            "character; correct the row",
        ) from error
    return text
