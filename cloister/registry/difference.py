"""Compares two versions: recipe, promised ε, scores, and the norms of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Parts of a lineage that are compared, field by field.
_PARTS = ("recipe", "promises", "metrics", "norms")
_ALONE = ("task", "labels", "base", "base_sha256", "recipe_sha256")


def difference(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> dict[str, dict[str, list[Any]]]:
    """Returns the fields in which two lineages differ.

    Args:
        first: The lineage of the earlier version.
        second: The lineage of the later version.

    Returns:
        For each part (`model`, `recipe`, `promises`, `metrics`, `norms`) and each field that
        differs, the first and the second value; None for a missing value. Equal parts are left out.
    """
    found: dict[str, dict[str, list[Any]]] = {}
    alone = [{name: one.get(name) for name in _ALONE} for one in (first, second)]
    pairs = {"model": (alone[0], alone[1])}
    pairs |= {part: (_flat(first.get(part)), _flat(second.get(part))) for part in _PARTS}
    for part, (before, after) in pairs.items():
        changed = {
            field: [before.get(field), after.get(field)]
            for field in dict.fromkeys((*before, *after))
            if before.get(field) != after.get(field)
        }
        if changed:
            found[part] = changed
    return found


def _flat(table: object, prefix: str = "") -> dict[str, Any]:
    """Flattens nested tables: returns their fields by dotted path."""
    if not isinstance(table, Mapping):
        return {}
    found: dict[str, Any] = {}
    for name, value in table.items():
        path = f"{prefix}{name}"
        found |= _flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return found
