"""Finds the tensors that `lora.freeze` keeps at their initial values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from cloister.errors import UsageError

# Prefixes that the network and peft put before a tensor's name in the base.
_BEFORE = ("backbone.", "base_model.", "model.")


def frozen_names(names: Iterable[str], patterns: Sequence[str]) -> frozenset[str]:
    """Returns the names of the tensors that are frozen, of all that would train.

    Args:
        names: Names of the tensors, as in messages.
        patterns: Shell patterns of whole names, as they are in the base.

    Raises:
        UsageError: A pattern matches none of them, or nothing is left to train.
    """
    shown = {name: _in_base(name) for name in sorted(names)}
    found: set[str] = set()
    for pattern in patterns:
        fitting = {name for name, own in shown.items() if fnmatchcase(own, pattern)}
        if not fitting:
            known = next(iter(shown.values()), "none")
            raise UsageError(
                f"lora.freeze: {pattern!r} matches no tensor that would train; names look like "
                f"{known}"
            )
        found |= fitting
    if patterns and found == shown.keys():
        raise UsageError("lora.freeze: leaves nothing to train; remove a pattern")
    return frozenset(found)


def _in_base(name: str) -> str:
    """Returns a tensor's name as in the base, followed by the adapter's part."""
    for before in _BEFORE:
        name = name.removeprefix(before)
    return name
