"""Suggests the next setting from the scores so far, by optuna's tree-structured Parzen estimator.

Bergstra et al. 2011 (Algorithms for hyper-parameter optimization, NeurIPS): the first settings are
drawn at random; later ones where good scores are denser than bad ones.

A suggestion is a function of the search, the seed, its number and the scores before it: optuna's
study is made anew, in memory, for each one. So a search that was killed goes on as it would have
gone on, and nothing has to be stored besides the scores.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from cloister.errors import UsageError
from cloister.seeds import child_generator
from cloister.simulation.tuning.search_space import (
    MOST_LISTED,
    Searched,
    Setting,
    settings_in_all,
)

# optuna's seeds are integers of 32 bits.
SEEDS = 2**32


def check_optuna() -> None:
    """Refuses a search if optuna is not installed.

    Raises:
        UsageError: It is not.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "cloister tune needs optuna, which is not installed; run pip install 'cloister[tune]'"
        ) from error


def suggest(
    searched: Sequence[Searched],
    scored: Sequence[tuple[Setting, float | None]],
    seed: int,
    *,
    smaller_is_better: bool,
) -> dict[str, str]:
    """Returns the next setting, in the form of `--set`, by field.

    Args:
        searched: The fields of the search.
        scored: The settings so far with their scores, oldest first; None: it could not be run.
        seed: Seed of the search.
        smaller_is_better: Whether the best score is the smallest.

    Guarantees:
        Equal arguments give equal settings. In a search with at most `MOST_LISTED` settings no
        setting is suggested twice, while there are others.
    """
    number = len(scored)
    rng = child_generator(seed, "tuning", number)
    found = _by_optuna(searched, scored, int(rng.integers(SEEDS)), smaller_is_better)
    tried = [dict(setting) for setting, _ in scored]
    if found not in tried or settings_in_all(searched) > MOST_LISTED:
        return found
    left = [setting for setting in _all_settings(searched) if setting not in tried]
    return left[int(rng.integers(len(left)))] if left else found


def _by_optuna(
    searched: Sequence[Searched],
    scored: Sequence[tuple[Setting, float | None]],
    seed: int,
    smaller_is_better: bool,
) -> dict[str, str]:
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="minimize" if smaller_is_better else "maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
    )
    distributions = {one.field: _distribution(one) for one in searched}
    for setting, score in scored:
        params = {one.field: _param(one, setting[one.field]) for one in searched}
        if score is None:
            told = create_trial(params=params, distributions=distributions, state=TrialState.FAIL)
        else:
            told = create_trial(params=params, distributions=distributions, value=score)
        study.add_trial(told)
    asked = study.ask(distributions).params
    return {one.field: one.text(asked[one.field]) for one in searched}


def _distribution(one: Searched) -> Any:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if one.choices:
        return CategoricalDistribution(one.choices)
    if one.is_integer:
        return IntDistribution(round(one.low), round(one.high), log=one.is_log)
    return FloatDistribution(one.low, one.high, log=one.is_log)


def _param(one: Searched, text: str) -> float | str:
    number = one.number(text)
    if number is None:
        return text
    return round(number) if one.is_integer else number


def _all_settings(searched: Sequence[Searched]) -> list[dict[str, str]]:
    values = [
        one.choices
        or tuple(one.text(float(value)) for value in range(round(one.low), round(one.high) + 1))
        for one in searched
    ]
    fields = [one.field for one in searched]
    return [dict(zip(fields, row, strict=True)) for row in itertools.product(*values)]
