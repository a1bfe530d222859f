"""What two versions differ in: recipe, promised ε, scores, and the norms of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Parts of a lineage that are compared, field by field.
_PARTS = ("recipe", "promises", "metrics", "norms")
_ALONE = ("task", "labels", "base", "base_sha256", "recipe_sha256")


def difference(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> dict[str, dict[str, list[Any]]]:
    """The fields in which two lineages differ.

    Args:
        first: Of the earlier version.
        second: Of the later one.

    Returns:
        By part (`model`, `recipe`, `promises`, `metrics`, `norms`), by field: the value in the
        first and in the second; None where it has none. Parts that agree are left out.
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
    """Fields of tables in tables by their path."""
    if not isinstance(table, Mapping):
        return {}
    found: dict[str, Any] = {}
    for name, value in table.items():
        path = f"{prefix}{name}"
        found |= _flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return found
