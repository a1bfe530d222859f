"""Chooses a row's setting on validation, and reports it on test; runs that are there are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from grid_store import SEEDS, Row, Store, chosen, finalists, seeds, settings, where

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Chosen = TypeVar("Chosen", bound="DataclassInstance")
# Runs a method on the validation split (`validation`) or the test set (`test`) at a seed, and
# appends what came of it to the store under the row that is given.
Run = Callable[[Row, Chosen, str, int], None]


def search(
    store: Store,
    about: Row,
    choices: Callable[[float | None], list[Chosen]],
    epsilons: Sequence[float | None],
    run: Run[Chosen],
) -> None:
    """Runs what is missing of a row, at each ε.

    All methods run at the first seed, and the best of them at every seed; the one with the highest
    mean on validation is run on test. Of one method alone nothing is chosen.

    Args:
        store: The rows that are there.
        about: The data set, base and row.
        choices: The methods that the row is chosen from, by ε.
        epsilons: At which the row is run; None: without privacy.
        run: Runs one of them.
    """

    def missing(method: Chosen, part: str, at: Sequence[int]) -> None:
        for seed in at:
            named = {**about, "split": part, **settings(method), "seed": seed}
            if not store.has(named):
                run(named, method, part, seed)

    def searched(epsilon: float | None) -> list[Row]:
        return where(store.rows, **about, split="validation", epsilon=epsilon)

    for epsilon in epsilons:
        methods = choices(epsilon)
        if len(methods) > 1:
            for method in methods:
                missing(method, "validation", SEEDS[:1])
            for method in finalists(methods, searched(epsilon)):
                missing(method, "validation", seeds(method))
        best = chosen(methods, searched(epsilon))
        missing(best, "test", seeds(best))
