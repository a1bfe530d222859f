"""The `[strategy]` section of a recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from cloister.errors import UsageError

Name = Literal[
    "fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi", "median", "trimmed-mean",
    "geometric-median", "krum", "multi-krum", "norm-gate", "fedsvd", "fedex", "flora",
    "flexlora",
]  # fmt: skip

# Weights further apart than this leave nothing of the lighter site in float32's 24 bits.
MOST_WEIGHT = 1e6

# Which of the fields beside `name` each method has.
_SERVER = frozenset({"weights", "learning_rate", "momentum"})
_ADAPTIVE = _SERVER | {"second_momentum", "adaptivity"}
FIELDS: dict[Name, frozenset[str]] = {
    "fedavg": frozenset({"weights"}),
    "fedavgm": _SERVER,
    "fedadagrad": _ADAPTIVE - {"second_momentum"},
    "fedadam": _ADAPTIVE,
    "fedyogi": _ADAPTIVE,
    "median": frozenset(),
    "trimmed-mean": frozenset({"byzantine"}),
    "geometric-median": frozenset(),
    "krum": frozenset({"byzantine"}),
    "multi-krum": frozenset({"byzantine", "selected"}),
    "norm-gate": frozenset({"multiple"}),
    "fedsvd": frozenset({"weights"}),
    "fedex": frozenset({"weights"}),
    "flora": frozenset({"weights"}),
    "flexlora": frozenset({"weights"}),
}


@dataclass(frozen=True, kw_only=True)
class StrategyConfig:
    """How updates become the next global adapter.

    Attributes:
        name: The method.
        weights: One declared, public constant for each site, in order of the sites' names; empty:
            all alike. Never the private number of records.
        learning_rate: Of the server's optimizer; absent: 1 for `fedavgm`, 0.1 for the adaptive
            ones (Reddi et al. 2021 find 10^-1.5 to 10^0 best over their tasks).
        momentum: Of the server's optimizer; absent: 0.9.
        second_momentum: β₂ of `fedadam` and `fedyogi`; absent: 0.99, the paper's.
        adaptivity: τ of the adaptive ones; absent: 1e-3, the paper's default.
        byzantine: Sites that may send anything, for `trimmed-mean`, `krum` and `multi-krum`;
            absent: 1.
        selected: Updates that `multi-krum` averages; absent: 2.
        multiple: Of the median norm, beyond which `norm-gate` refuses an update; absent: 3, a
            guess that leaves room for sites of unlike data.
    """

    name: Name = "fedavg"
    weights: tuple[float, ...] = ()
    learning_rate: float | None = None
    momentum: float | None = None
    second_momentum: float | None = None
    adaptivity: float | None = None
    byzantine: int | None = None
    selected: int | None = None
    multiple: float | None = None

    def __post_init__(self) -> None:
        own = FIELDS[self.name]
        given = [f.name for f in fields(self) if f.name != "name" and getattr(self, f.name)]
        given += [f.name for f in fields(self) if f.default is None and getattr(self, f.name) == 0]
        foreign = [name for name in given if name not in own]
        if foreign:
            known = ", ".join(sorted(own)) or "none"
            raise UsageError(f"{foreign[0]}: not a field of {self.name}, whose fields are: {known}")
        if any(not 1 / MOST_WEIGHT <= weight <= MOST_WEIGHT for weight in self.weights):
            raise UsageError(
                f"weights: numbers from {1 / MOST_WEIGHT:g} to {MOST_WEIGHT:g} are needed; their "
                "ratios are all that counts"
            )
        for name in ("learning_rate", "adaptivity"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name}: {value} given; a positive number is needed")
        for name in ("momentum", "second_momentum"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UsageError(f"{name}: {value} given; from 0 to below 1 is needed")
        for name in ("byzantine", "selected"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}: {value} given; at least 1 is needed")
        if self.multiple is not None and not 1 <= self.multiple < math.inf:
            raise UsageError(f"multiple: {self.multiple} given; 1 or more is needed")
