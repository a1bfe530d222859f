"""k-fold cross-validation: each part of the records is once the test set, and in k - 1 trainings.

Math:
    A unit's part follows from the unit and the study's seed alone. So data sets that differ in one
    unit differ in it in k - 1 trainings and are equal in the other one: all adapters together are
    k - 1 plans composed, for every unit. Scores on held-out records have no noise, and no ε covers
    them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement

from cloister.data.config import fold_of
from cloister.data.records import Record
from cloister.errors import DataError, UsageError
from cloister.ledger.stated import Stated, of_plan
from cloister.privacy.accounting import epsilon
from cloister.privacy.events import GaussianEvent
from cloister.privacy.units import Unit
from cloister.recipe import Recipe
from cloister.simulation.plans import plans_of

# Mixes of sites' plans that are accounted one by one, at a third of a second each.
MOST_MIXES = 40


def held_out(
    records: Sequence[Record], fold: str, unit: Unit, seed: int
) -> tuple[list[Record], list[Record]]:
    """Splits records into those that are trained on and those that are held out.

    Args:
        records: All of them.
        fold: `2/5`: the second of five parts is held out.
        unit: All records of a unit are in one part, copies of a record too; equal records without
            copies are, too.
        seed: The study's; another one draws other parts.

    Raises:
        DataError: One of the two would be empty, or a person is needed and not named.
    """
    found = fold_of(fold)
    assert found is not None  # `DataConfig` refuses any other text
    part, parts = found
    train: list[Record] = []
    test: list[Record] = []
    for number, record in enumerate(records, 1):
        if unit is Unit.PERSON and record.person is None:
            raise DataError(
                f"record {number} names no person, and privacy.unit is person: name the column as "
                "data.person"
            )
        (test if _part(record, unit, parts, seed) == part else train).append(record)
    if not train or not test:
        raise DataError(f"data.fold: {fold} leaves no record on one side; take fewer folds")
    return train, test


def _part(record: Record, unit: Unit, parts: int, seed: int) -> int:
    """The part of a record's unit, from 1."""
    if unit is Unit.PERSON:
        own = record.person
    elif record.unit is not None:
        # Copies of a record are one unit with it: in several parts, it would be in k trainings.
        own = record.unit
    else:
        # A record without its site and person: who has the same text is in the same part, so that
        # no held-out text was trained on.
        own = repr(dataclasses.replace(record, site=None, person=None))
    digest = hashlib.sha256(f"fold {seed} {own}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % parts + 1


def fold_settings(recipe: Recipe, folds: int) -> list[list[str]]:
    """The settings of each fold, as the command line's `--set` has them.

    The declared number of records is that of what is left: the rates stay what they were.
    """
    declared = recipe.data.public_records
    every = declared if isinstance(declared, tuple) else (declared,)
    left = [max(number * (folds - 1) // folds, 1) for number in every]
    records = f"data.public_records={left if isinstance(declared, tuple) else left[0]}"
    return [[f"data.fold={part}/{folds}", records] for part in range(1, folds + 1)]


def composed(recipe: Recipe, folds: int) -> Stated | None:
    """What all folds' adapters together promise for one unit, at the largest of the sites.

    Args:
        recipe: Of one of the folds.
        folds: How many.

    Returns:
        The ε of k - 1 plans; None without privacy.

    Raises:
        RefusedError: The accountants disagree.

    Guarantees:
        An upper bound for every unit, whichever part it is in, and also where it is dealt to
        another site, with another plan, in each fold.
    """
    if not recipe.privacy.enabled:
        return None
    names = tuple(f"site {n}" for n in range(recipe.data.sites))
    plans = list(dict.fromkeys(plans_of(recipe, names).values()))
    events = [plan.event(plan.num_rounds * plan.local_steps) for plan in plans]
    largest = max((of_plan(plan) for plan in plans), key=lambda one: one.epsilon)
    together = max(epsilon(mix, plans[0].delta) for mix in _mixes(events, folds - 1))
    return dataclasses.replace(largest, epsilon=together)


def _mixes(events: Sequence[GaussianEvent], count: int) -> Iterator[Sequence[GaussianEvent]]:
    """What a unit's trainings may be: `count` of the sites' events, each of any site.

    Of many different sites, one event that is worse than all of them, so often: less noise, a
    larger rate and more steps each cost more.
    """
    if math.comb(len(events) + count - 1, count) <= MOST_MIXES:
        yield from combinations_with_replacement(events, count)
        return
    worst = GaussianEvent(
        noise_multiplier=min(event.noise_multiplier for event in events),
        sample_rate=max(event.sample_rate for event in events),
        steps=max(event.steps for event in events),
        is_private=all(event.is_private for event in events),
    )
    yield [worst] * count


def told(recipe: Recipe, folds: int) -> str:
    """What the folds promise together, in a line."""
    together = composed(recipe, folds)
    scores = "no ε covers the scores, which are of held-out records of the same file"
    if together is None:
        return f"{folds} folds without privacy; {scores}"
    return (
        f"all {folds} folds together: {together.short}, for one {together.unit} added or removed "
        f"(PLD), against {together.against}, as each is trained on in {folds - 1}; {scores}"
    )


def check_folds(folds: int, seeds: int | None, sweeps: Sequence[str]) -> None:
    """Refuses folds beside other repetitions, whose ε would add up too.

    Raises:
        UsageError: Seeds or swept fields are given.
    """
    if seeds is not None or sweeps:
        raise UsageError(
            f"--folds {folds}: given with --{'sweep' if sweeps else 'seeds'}; each repetition "
            "would be charged to the same records again: run the folds of one setting alone"
        )
