"""Writes canonical JSON: equal values always give the same bytes, which are hashed and signed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any


def canonical(fields: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """Returns the canonical JSON of some fields: keys sorted, no spaces; numbers must be finite."""
    return json.dumps(
        fields, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    ).encode()


def json_number(value: float) -> float | None:
    """Returns a number for JSON; None in place of infinity, which JSON does not have."""
    return value if math.isfinite(value) else None
