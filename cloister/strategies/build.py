"""From a recipe's `[strategy]` to a strategy."""

from __future__ import annotations

from collections.abc import Sequence

from cloister.strategies.config import StrategyConfig
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


def make_strategy(config: StrategyConfig, sites: Sequence[str]) -> Strategy:
    """Makes a strategy.

    Args:
        config: The section.
        sites: All sites' names, in order; weights are given along them.
    """
    weights = dict(zip(sites, config.weights, strict=False))
    momentum = 0.9 if config.momentum is None else config.momentum
    byzantine = config.byzantine or 1
    match config.name:
        case "fedavg":
            return FedAvg(weights)
        case "fedavgm":
            return FedAvgM(weights, config.learning_rate or 1.0, momentum)
        case "fedadagrad" | "fedadam" | "fedyogi":
            second = 0.99 if config.second_momentum is None else config.second_momentum
            rate = config.learning_rate or 0.1
            return FedOpt(config.name, weights, rate, momentum, second, config.adaptivity or 1e-3)
        case "median":
            return Median()
        case "trimmed-mean":
            return TrimmedMean(byzantine)
        case "geometric-median":
            return GeometricMedian()
        case "krum":
            return Krum(byzantine)
        case "multi-krum":
            return Krum(byzantine, config.selected or 2)
        case "norm-gate":
            return NormGate(config.multiple or 3.0)
        case "fedsvd":
            return FedSvd(weights)
        case "fedex":
            return FedEx(weights)
        case "flora":
            return Flora(weights)
        case "flexlora":
            return FlexLora(weights)
