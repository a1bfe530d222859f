"""From a recipe's `[strategy]` to a strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cloister.strategies.config import FIELDS, CarriedStrategy, StrategyConfig, own_strategy
from cloister.strategies.fedavg import FedAvg
from cloister.strategies.fedavgm import FedAvgM
from cloister.strategies.fedex import FedEx
from cloister.strategies.fedopt import FedOpt
from cloister.strategies.fedsvd import FedSvd
from cloister.strategies.flexlora import FlexLora
from cloister.strategies.flora import Flora
from cloister.strategies.geometric_median import GeometricMedian
from cloister.strategies.krum import Krum
from cloister.strategies.median import Median
from cloister.strategies.norm_gate import NormGate
from cloister.strategies.strategy import Strategy
from cloister.strategies.trimmed_mean import TrimmedMean

# What an option is where the recipe leaves it out. Reddi et al. 2021, arXiv:2003.00295: momentum
# 0.9, second momentum 0.99 and adaptivity 1e-3; their learning rates of 10^-1.5 to 10^0 have 0.1
# inside. 3 is a guess that leaves room for sites of unlike data; a guard against one site is the
# least.
DEFAULTS: dict[str, Any] = {
    "learning_rate": 0.1,
    "momentum": 0.9,
    "second_momentum": 0.99,
    "adaptivity": 1e-3,
    "byzantine": 1,
    "selected": 2,
    "multiple": 3.0,
}
# FedAvgM steps by the mean itself (Hsu et al. 2019, arXiv:1909.06335).
FEDAVGM_LEARNING_RATE = 1.0


def options_of(config: StrategyConfig) -> dict[str, Any]:
    """Every option of the section's method with the value in force."""
    defaults = dict(DEFAULTS)
    if config.name == "fedavgm":
        defaults["learning_rate"] = FEDAVGM_LEARNING_RATE
    given = {option: getattr(config, option) for option in sorted(FIELDS[config.name])}
    return {option: defaults[option] if value is None else value for option, value in given.items()}


def effective(config: StrategyConfig) -> StrategyConfig:
    """The section with every option of its method stated."""
    return replace(config, **options_of(config))


def make_strategy(config: StrategyConfig | CarriedStrategy, sites: Sequence[str]) -> Strategy:
    """Makes a strategy.

    Args:
        config: The section.
        sites: All sites' names, in order; weights are given along them.

    Raises:
        UsageError: The section was received from a coordinator, and is not read.
    """
    config = own_strategy(config)
    weights = dict(zip(sites, config.weights, strict=False))
    options = options_of(config)
    match config.name:
        case "fedavg":
            return FedAvg(weights)
        case "fedavgm":
            return FedAvgM(weights, options["learning_rate"], options["momentum"])
        case "fedadagrad" | "fedadam" | "fedyogi":
            second = options.get("second_momentum", DEFAULTS["second_momentum"])
            return FedOpt(
                config.name,
                weights,
                options["learning_rate"],
                options["momentum"],
                second,
                options["adaptivity"],
            )
        case "median":
            return Median()
        case "trimmed-mean":
            return TrimmedMean(options["byzantine"])
        case "geometric-median":
            return GeometricMedian()
        case "krum":
            return Krum(options["byzantine"])
        case "multi-krum":
            return Krum(options["byzantine"], options["selected"])
        case "norm-gate":
            return NormGate(options["multiple"])
        case "fedsvd":
            return FedSvd(weights)
        case "fedex":
            return FedEx(weights)
        case "flora":
            return Flora(weights)
        case "flexlora":
            return FlexLora(weights)
