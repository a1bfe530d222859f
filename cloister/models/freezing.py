"""Which tensors `lora.freeze` leaves at their start."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from cloister.errors import UsageError

# Of a network and of peft, before a name that is the base's own.
_BEFORE = ("backbone.", "base_model.", "model.")


def frozen_names(names: Iterable[str], patterns: Sequence[str]) -> frozenset[str]:
    """The names of what does not train, out of all that would.

    Args:
        names: As they travel.
        patterns: Shell patterns of whole names, as they are in the base.

    Raises:
        UsageError: One fits none of them, or nothing is left to train.
    """
    shown = {name: _in_base(name) for name in sorted(names)}
    found: set[str] = set()
    for pattern in patterns:
        fitting = {name for name, own in shown.items() if fnmatchcase(own, pattern)}
        if not fitting:
            known = next(iter(shown.values()), "none")
            raise UsageError(
                f"lora.freeze: {pattern!r} is the pattern of nothing that would train; names are "
                f"like {known}"
            )
        found |= fitting
    if patterns and found == shown.keys():
        raise UsageError("lora.freeze: leaves nothing to train; take a pattern out")
    return frozenset(found)


def _in_base(name: str) -> str:
    """A tensor's name as the base has it, with the adapter's own part at its end."""
    for before in _BEFORE:
        name = name.removeprefix(before)
    return name
