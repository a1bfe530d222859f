"""An alert: what begins or ends, with its figures; it quotes no text of a record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from cloister.canonical import canonical
from cloister.watching.debounce import Event


@dataclass(frozen=True)
class Alert:
    """One alert.

    Attributes:
        id: By which a receiver tells that it has this one already: it is the same after a restart.
        watch: The name of the watch.
        kind: What was looked at.
        key: The feature that drifts, or the topic that surges.
        event: Whether it begins or ends.
        at: The time of the look, of the rows, as ISO 8601 in UTC.
        message: The alert in a sentence.
        figures: Its numbers by name.
    """

    id: str
    watch: str
    kind: Literal["drift", "surge"]
    key: str
    event: Event
    at: str
    message: str
    figures: Mapping[str, float | int | str | None]

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON object."""
        return asdict(self) | {"figures": dict(self.figures)}


def make_alert(
    watch: str,
    kind: Literal["drift", "surge"],
    key: str,
    event: Event,
    at: float,
    message: str,
    figures: Mapping[str, float | int | str | None],
) -> Alert:
    """Makes an alert, whose id is a hash of what it is about: the same look gives the same id."""
    told = iso(at)
    digest = hashlib.sha256(canonical([watch, kind, key, event, told, dict(figures)]))
    return Alert(digest.hexdigest()[:32], watch, kind, key, event, told, message, figures)


def iso(seconds: float) -> str:
    """A time in seconds since 1970 as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
