"""Makes alerts, which say what begins or ends, with figures and without any text of a record."""

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
    """One alert: a drift or a surge that begins or ends.

    Attributes:
        id: Its identifier, which is the same after a restart, so a receiver can drop a repetition.
        watch: The name of the watch.
        kind: Whether it is about drift or a surge.
        key: The feature that drifts, or the topic that surges.
        event: Whether it begins or ends.
        at: The time of the check, from the rows' times, in ISO 8601 and UTC.
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
    """Makes an alert whose id is a hash of its subject: the same check gives the same id."""
    told = iso(at)
    digest = hashlib.sha256(canonical([watch, kind, key, event, told, dict(figures)]))
    return Alert(digest.hexdigest()[:32], watch, kind, key, event, told, message, figures)


def iso(seconds: float) -> str:
    """Returns a time in seconds since 1970 in ISO 8601 and UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
