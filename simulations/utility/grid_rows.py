"""The rows of the grid: which methods each is chosen from, at each ε."""

from __future__ import annotations

from collections.abc import Callable

from methods import Head, Logistic, Majority, Method, Names, Words
from sets import BASES

from cloister.models.config import DEFAULT_BASE

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


def _by_rule(noise: str, epsilon: float | None, center: str | None = None) -> list[Method]:
    return [Head(epsilon=epsilon, noise=noise, of_rule=1.0, center=center)]


def _searched(noise: str, epsilon: float | None, center: str | None = None) -> list[Method]:
    grid: list[Method] = [
        Head(epsilon=epsilon, noise=noise, clip=clip, product=product, center=center)
        for clip in CLIPS
        for product in PRODUCTS
    ]
    return grid if epsilon is None else [*_by_rule(noise, epsilon, center), *grid]


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
    "own, by rule": lambda epsilon: _by_rule("own", epsilon),
    "shared, by rule": lambda epsilon: _by_rule("shared", epsilon),
    "own, by rule, centred": lambda epsilon: _by_rule("own", epsilon, "built-in"),
    "shared, by rule, centred": lambda epsilon: _by_rule("shared", epsilon, "built-in"),
    "central, tuned": lambda epsilon: _searched("central", epsilon),
    "shared, tuned": lambda epsilon: _searched("shared", epsilon),
    "levers": lambda epsilon: _levers(epsilon, 0, (None, "built-in")),
    "whole batches": lambda epsilon: _shaped(epsilon, 0, (None, "built-in"), WHOLE),
    "long, tuned": _long_searched,
    "levers, public": lambda epsilon: _levers(epsilon, PUBLIC, (None, "public")),
    "own, tuned": lambda epsilon: _searched("own", epsilon),
    "own, tuned, centred": lambda epsilon: _searched("own", epsilon, "built-in"),
    "shared, tuned, centred": lambda epsilon: _searched("shared", epsilon, "built-in"),
}
TEXT_ROWS = ("majority", "TF-IDF")
NOT_PRIVATE = (*TEXT_ROWS, "zero-shot", "without privacy")
# Of the bases whose vectors get a centre by default (`cloister.recipe.head_defaults`).
CENTRED_ROWS = tuple(row for row in ROWS if row.endswith(", centred"))


def runs_on(row: str, base: str) -> bool:
    """Whether a row is run on a base: the default base gets no centre by default."""
    return row not in CENTRED_ROWS or BASES[base].base != DEFAULT_BASE


def by_default(noise: str, base: str) -> str:
    """The row of a recipe that states neither rate, clip bound nor centre."""
    centred = f"{noise}, by rule, centred"
    return centred if runs_on(centred, base) else f"{noise}, by rule"


def epsilons(row: str) -> tuple[float | None, ...]:
    """At which ε a row is run; None: without privacy."""
    if row in NOT_PRIVATE:
        return (None,)
    few = {"whole batches": WHOLE_AT, "long, tuned": WHOLE_AT}
    few |= {f"{noise}, tuned, centred": CHECKED for noise in ("own", "shared")}
    few["own, tuned"] = CHECKED
    return few.get(row, EPSILONS)
