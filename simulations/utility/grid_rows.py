"""The rows of the grid: which methods each is chosen from, at each ε."""

from __future__ import annotations

from collections.abc import Callable

from methods import Head, Logistic, Majority, Method, Names, Words

# The order in which they run: if time ends, the goals' ε is there.
EPSILONS = (8.0, 1.0, 3.0, 0.5)
# At these the rule's rate is held against the best of a search.
CHECKED = (8.0, 1.0)
CLIPS, PRODUCTS = (1.0, 4.0, 8.0), (1.0, 3.0, 10.0, 30.0, 100.0)
PENALTIES = (0.001, 0.01, 0.1, 1.0)
WORD_PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)
# Twice the rounds of twice the records: four times the computation at the same ε.
LONG = (60, 0.5)
# Every record in every round: what is left to gain by computation, at the goals' ε.
WHOLE, WHOLE_AT = (120, 1.0), (8.0,)
# Parts of the rule's rate, where the clip bound is searched too: in long studies of many classes
# the best of `PARTS` was its largest.
LARGER = (1.0, 2.0, 4.0)
# Around the rule's rate, for the combinations of levers.
PARTS = (0.5, 1.0, 2.0)
PUBLIC = 500

Choices = Callable[[float | None], list[Method]]
Centers = tuple[str | None, ...]


def _searched(noise: str, epsilon: float | None) -> list[Method]:
    grid: list[Method] = [
        Head(epsilon=epsilon, noise=noise, clip=clip, product=product)
        for clip in CLIPS
        for product in PRODUCTS
    ]
    return grid if epsilon is None else [Head(epsilon=epsilon, noise=noise, of_rule=1.0), *grid]


def _levers(epsilon: float | None, public: int, centers: Centers) -> list[Method]:
    short: list[Method] = [
        Head(epsilon=epsilon, of_rule=1.0, center=center, public=public) for center in centers
    ]
    return short + _shaped(epsilon, public, centers, LONG)


def _shaped(
    epsilon: float | None, public: int, centers: Centers, shape: tuple[int, float]
) -> list[Method]:
    rounds, rate = shape
    return [
        Head(
            epsilon=epsilon,
            of_rule=part,
            center=center,
            public=public,
            rounds=rounds,
            sample_rate=rate,
        )
        for center in centers
        for part in PARTS
    ]


def _long_searched(epsilon: float | None) -> list[Method]:
    rounds, rate = LONG
    return [
        Head(epsilon=epsilon, clip=clip, of_rule=part, rounds=rounds, sample_rate=rate)
        for clip in CLIPS
        for part in LARGER
    ]


def _without_privacy(_: float | None) -> list[Method]:
    heads = _searched("central", None)
    return [*heads, *(Logistic(inverse_penalty=penalty) for penalty in PENALTIES)]


# Of one method only: nothing is chosen. The rows of `TEXT_ROWS` need no base.
ROWS: dict[str, Choices] = {
    "majority": lambda _: [Majority()],
    "TF-IDF": lambda _: [Words(inverse_penalty=penalty) for penalty in WORD_PENALTIES],
    "zero-shot": lambda _: [Names()],
    "without privacy": _without_privacy,
    "own, by rule": lambda epsilon: [Head(epsilon=epsilon, noise="own", of_rule=1.0)],
    "shared, by rule": lambda epsilon: [Head(epsilon=epsilon, of_rule=1.0)],
    "central, tuned": lambda epsilon: _searched("central", epsilon),
    "shared, tuned": lambda epsilon: _searched("shared", epsilon),
    "levers": lambda epsilon: _levers(epsilon, 0, (None, "built-in")),
    "whole batches": lambda epsilon: _shaped(epsilon, 0, (None, "built-in"), WHOLE),
    "long, tuned": _long_searched,
    "levers, public": lambda epsilon: _levers(epsilon, PUBLIC, (None, "public")),
    "own, tuned": lambda epsilon: _searched("own", epsilon),
}
TEXT_ROWS = ("majority", "TF-IDF")
NOT_PRIVATE = (*TEXT_ROWS, "zero-shot", "without privacy")


def epsilons(row: str) -> tuple[float | None, ...]:
    """At which ε a row is run; None: without privacy."""
    if row in NOT_PRIVATE:
        return (None,)
    few = {"own, tuned": CHECKED, "whole batches": WHOLE_AT, "long, tuned": WHOLE_AT}
    return few.get(row, EPSILONS)
