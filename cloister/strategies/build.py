"""Builds a strategy from a recipe's `[strategy]` section."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cloister.strategies.averaging import Averaging
from cloister.strategies.chosen_adapter import Delivery
from cloister.strategies.config import (
    FIELDS,
    PluginStrategy,
    Strategies,
    StrategyConfig,
    own_strategy,
)
from cloister.strategies.plugins import make_plugin
from cloister.strategies.registry import BUILT_IN
from cloister.strategies.strategy import Strategy

# Defaults of options that neither the recipe nor the method states. Reddi et al. 2021,
# arXiv:2003.00295: momentum 0.9, second momentum 0.99 and adaptivity 1e-3; 0.1 lies within their
# best learning rates, 10^-1.5 to 10^0. 3 is a guess that leaves room for sites with different data;
# 1 is the fewest sites that a robust method can guard against.
DEFAULTS: dict[str, Any] = {
    "learning_rate": 0.1,
    "momentum": 0.9,
    "second_momentum": 0.99,
    "adaptivity": 1e-3,
    "byzantine": 1,
    "selected": 2,
    "multiple": 3.0,
}

# Of averaging: emulated heads (docs/utility.md) tell decays of 0.8 and 0.9, and shares of a quarter
# and a half, not apart.
DECAY, SHARE = 0.9, 0.5


def options_of(config: StrategyConfig) -> dict[str, Any]:
    """Every option of the section's method with the value in force."""
    defaults = {**DEFAULTS, **BUILT_IN[config.name].defaults}
    given = {option: getattr(config, option) for option in sorted(FIELDS[config.name])}
    return {option: defaults[option] if value is None else value for option, value in given.items()}


def effective(config: StrategyConfig) -> StrategyConfig:
    """The section with every option of its method, and of its averaging, stated."""
    whole = replace(config, **options_of(config))
    if config.averaging == "ema" and config.averaging_decay is None:
        whole = replace(whole, averaging_decay=DECAY)
    if config.averaging == "tail" and config.averaging_share is None:
        whole = replace(whole, averaging_share=SHARE)
    return whole


def make_delivery(config: Strategies, num_rounds: int) -> Delivery:
    """Makes what turns a study's adapters into the one that it delivers.

    Args:
        config: The section; a plug-in's has no such options, so its last adapter is delivered.
        num_rounds: Rounds of the study.
    """
    if not isinstance(config, StrategyConfig) or config.averaging is None:
        return Delivery()
    stated = effective(config)
    return Delivery(
        Averaging(
            kind=config.averaging,
            decay=DECAY if stated.averaging_decay is None else stated.averaging_decay,
            share=stated.averaging_share or SHARE,
            num_rounds=num_rounds,
        )
    )


def make_strategy(config: Strategies, sites: Sequence[str]) -> Strategy:
    """Makes the strategy that a recipe's section describes.

    Args:
        config: The section.
        sites: All sites' names, in order; weights are given along them.

    Raises:
        UsageError: The section was received from a coordinator, which a site does not read; or its
            plug-in is not installed here in the recipe's version.
    """
    config = own_strategy(config)
    weights = dict(zip(sites, config.weights, strict=False))
    if isinstance(config, PluginStrategy):
        return make_plugin(config, weights)
    return BUILT_IN[config.name].make(weights, options_of(config))
