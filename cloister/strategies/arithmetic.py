"""Arithmetic that several strategies use: means, stacks and steps of named tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from cloister.adapter.factor_pairs import find_pairs
from cloister.adapter.tensors import Adapter, Array
from cloister.strategies.exact_sum import RunningMean
from cloister.strategies.strategy import ServerState


def weighted_mean(updates: Mapping[str, Adapter], weights: Mapping[str, float]) -> Adapter:
    """Σ w_k Δ_k / Σ w_k; a site without a weight weighs 1.

    Raises:
        ValueError: There is no update, or their shapes differ.
    """
    running = RunningMean(weights)
    for site, update in updates.items():
        running.add(site, update)
    return running.take()


def mean_beside_pairs(
    before: Adapter, updates: Mapping[str, Adapter], weights: Mapping[str, float]
) -> Adapter:
    """Returns the tensors outside of pairs (the head), moved by the sites' mean update."""
    first = next(iter(updates.values()))
    factors = {name for pair in find_pairs(first) for name in pair}
    names = sorted(first.keys() - factors)
    mean = weighted_mean({site: u.select(names) for site, u in updates.items()}, weights)
    return before.select(names) + mean


def across_sites(updates: Mapping[str, Adapter], rule: Callable[[Array], Array]) -> Adapter:
    """Applies a rule to each tensor of all sites, stacked [K, …] in the order of the sites'
    names."""
    sites = sorted(updates)
    first = updates[sites[0]]
    for site in sites[1:]:
        updates[site].check_shapes(first.shapes)
    return Adapter({name: rule(np.stack([updates[s][name] for s in sites])) for name in first})


def coordinate_medians(updates: Mapping[str, Adapter]) -> Adapter:
    """The median of each coordinate over sites; of an even number, the mean of the middle two."""
    return across_sites(updates, lambda stack: np.median(stack, axis=0))


def each(rule: Callable[..., Array], *adapters: Adapter) -> Adapter:
    """Applies a rule to the tensors of equal names, element by element."""
    return Adapter({name: rule(*(adapter[name] for adapter in adapters)) for name in adapters[0]})


def stepped(
    state: ServerState, step: Adapter, memory: Mapping[str, Adapter] | None = None
) -> ServerState:
    """Returns the state after a round that moves the adapter by `step`; other tensors stay."""
    moved = state.adapter.select(step) + step
    kept = {**state.memory, **(memory or {})}
    return replace(state, adapter=state.adapter.replace(moved), round=state.round + 1, memory=kept)


def enough(updates: Mapping[str, Adapter], fewest: int) -> None:
    """Refuses fewer updates than a method is defined for.

    Raises:
        ValueError: There are fewer, or none.
    """
    if not updates:
        raise ValueError("no update to aggregate")
    if len(updates) < fewest:
        raise ValueError(f"{len(updates)} updates given; this strategy needs at least {fewest}")
