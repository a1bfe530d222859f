"""Canonical JSON: the one text of some fields, which is what is hashed and signed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any


def canonical(fields: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """The one JSON text of some fields: keys sorted, no spaces; numbers must be finite."""
    return json.dumps(
        fields, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    ).encode()


def json_number(value: float) -> float | None:
    """A number for JSON, which has no infinity: None in its place."""
    return value if math.isfinite(value) else None
