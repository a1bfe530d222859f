"""Formats ε, bytes, durations and times as text for pages."""

from __future__ import annotations

from datetime import UTC, datetime

from cloister.ledger.stated import shown

# Characters of a hash that a page shows; the whole hash is in its tooltip.
SHORT = 12


def epsilon_words(value: float | None, digits: int = 2) -> str:
    """Formats an ε as text; ∞ if it is None or not finite."""
    return shown(value, digits)


def size_words(count: float) -> str:
    """Formats a number of bytes in decimal units."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def seconds_words(count: float) -> str:
    """Formats a duration as text."""
    if count < 10:
        return f"{count:.1f} s"
    if count < 120:
        return f"{count:.0f} s"
    if count < 7200:
        return f"{count / 60:.0f} min"
    return f"{count / 3600:.1f} h" if count < 172_800 else f"{count / 86_400:.0f} d"


def moment(text: object) -> datetime | None:
    """Reads an ISO time as a value in UTC; None: the text is not one."""
    try:
        found = datetime.fromisoformat(str(text or ""))
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else None


def when(text: str | None) -> str:
    """Formats an ISO time to the minute; other texts are returned unchanged."""
    found = moment(text)
    return f"{found:%d %b %Y, %H:%M} UTC" if found else (text or "–")


def ago(text: str | None, now: datetime) -> str:
    """Says how long ago an ISO time was, or how far ahead it is."""
    found = moment(text)
    if found is None:
        return "never"
    seconds = (now - found).total_seconds()
    if abs(seconds) < 5:
        return "just now"
    return f"{seconds_words(seconds)} ago" if seconds > 0 else f"in {seconds_words(-seconds)}"


def short(digest: str) -> str:
    """Returns the first characters of a hash, for display."""
    return digest if len(digest) <= SHORT + 1 else f"{digest[:SHORT]}…"


def counted(count: int, one: str, many: str = "") -> str:
    """Formats a number with its noun in singular or plural."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
