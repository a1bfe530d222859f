"""A registry entry: a built-in strategy's name, its options and how to make it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cloister.strategies.strategy import Strategy

Weights = Mapping[str, float]
Options = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One entry of the registry; a strategy's module lists its own in `METHODS`.

    Attributes:
        name: `strategy.name` in a recipe.
        make: Makes the strategy from declared weights by site and the options' values. Where
            `fields` is None it is the strategy's class, a frozen dataclass.
        fields: Which of the fields of `StrategyConfig` it takes as options. None: its options are
            the fields of its own class, read as a plug-in's are.
        defaults: Options whose default is not the common one (`build.DEFAULTS`).
    """

    name: str
    make: Callable[..., Strategy]
    fields: frozenset[str] | None = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)


# Fields of `StrategyConfig` that several methods take.
WEIGHTS = frozenset({"weights"})
SERVER = WEIGHTS | {"learning_rate", "momentum"}
