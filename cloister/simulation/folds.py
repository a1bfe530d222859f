"""k-fold cross-validation: each part of the records is the test set once, and in k - 1 trainings.

Math:
    A unit's part is a function of the unit and the study's seed alone. So data sets that differ in
    one unit differ by it in k - 1 trainings and are equal in the other one: for every unit, all
    adapters together are the composition of k - 1 plans. Scores on held-out records have no noise,
    and no ε covers them.
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

# Most combinations of sites' plans that are accounted one by one, a third of a second each.
MOST_MIXES = 40


def held_out(
    records: Sequence[Record], fold: str, unit: Unit, seed: int
) -> tuple[list[Record], list[Record]]:
    """Splits records into training records and held-out records.

    Args:
        records: All records.
        fold: `2/5`: the second of five parts is held out.
        unit: The privacy unit: all records of one, and copies of a record, are in one part; equal
            records without copies are in one part too.
        seed: The study's seed; another one draws other parts.

    Raises:
        DataError: One of the two would be empty, or a record names no person although the unit is
            the person.
    """
    found = fold_of(fold)
    assert found is not None  # `DataConfig` refuses any other text
    part, parts = found
    train: list[Record] = []
    test: list[Record] = []
    for number, record in enumerate(records, 1):
        if unit is Unit.PERSON and record.person is None:
            raise DataError(
                f"record {number} names no person, but privacy.unit is person; set data.person to "
                "the column that does"
            )
        (test if _part(record, unit, parts, seed) == part else train).append(record)
    if not train or not test:
        raise DataError(f"data.fold: {fold} leaves no record on one side; take fewer folds")
    return train, test


def _part(record: Record, unit: Unit, parts: int, seed: int) -> int:
    """Returns the part of a record's unit, from 1."""
    if unit is Unit.PERSON:
        own = record.person
    elif record.unit is not None:
        # A record and its copies are one unit: in several parts, it would be in k trainings.
        own = record.unit
    else:
        # The record without its site and person: equal texts are in the same part, so that no
        # held-out text was trained on.
        own = repr(dataclasses.replace(record, site=None, person=None))
    digest = hashlib.sha256(f"fold {seed} {own}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % parts + 1


def fold_settings(recipe: Recipe, folds: int) -> list[list[str]]:
    """Returns the settings of each fold, in the form of the command line's `--set`.

    The declared number of records is that of the training part, so that batches keep their expected
    size.
    """
    declared = recipe.data.public_records
    every = declared if isinstance(declared, tuple) else (declared,)
    left = [max(number * (folds - 1) // folds, 1) for number in every]
    records = f"data.public_records={left if isinstance(declared, tuple) else left[0]}"
    return [[f"data.fold={part}/{folds}", records] for part in range(1, folds + 1)]


def composed(recipe: Recipe, folds: int) -> Stated | None:
    """Returns what all folds' adapters together promise for one unit: the largest ε of the sites.

    Args:
        recipe: The recipe of one of the folds.
        folds: Number of folds.

    Returns:
        The ε of k - 1 plans; None without privacy.

    Raises:
        RefusedError: The accountants disagree.

    Guarantees:
        An upper bound for every unit in any part, also if it is dealt to another site, with another
        plan, in each fold.
    """
    if not recipe.privacy.enabled:
        return None
    plans = list(dict.fromkeys(plans_of(recipe, recipe.data.site_names).values()))
    trainings = [plan.releases for plan in plans]
    largest = max((of_plan(plan) for plan in plans), key=lambda one: one.epsilon)
    together = max(epsilon(mix, plans[0].delta) for mix in _mixes(trainings, folds - 1))
    return dataclasses.replace(largest, epsilon=together)


def _mixes(
    trainings: Sequence[Sequence[GaussianEvent]], count: int
) -> Iterator[Sequence[GaussianEvent]]:
    """Yields the releases that may see a unit: those of `count` trainings, each at any site.

    For many different sites, it yields one event that is worse than all of theirs, `count` times as
    often as a training has events: less noise, a larger rate and more steps each cost more.
    """
    if math.comb(len(trainings) + count - 1, count) <= MOST_MIXES:
        for mix in combinations_with_replacement(trainings, count):
            yield [event for training in mix for event in training]
        return
    events = [event for training in trainings for event in training]
    worst = GaussianEvent(
        noise_multiplier=min(event.noise_multiplier for event in events),
        sample_rate=max(event.sample_rate for event in events),
        steps=max(event.steps for event in events),
        is_private=all(event.is_private for event in events),
    )
    yield [worst] * count * max(len(training) for training in trainings)


def folds_note(recipe: Recipe, folds: int) -> str:
    """Returns what the folds promise together, in one line."""
    together = composed(recipe, folds)
    scores = "no ε covers the scores, which are of held-out records of the same file"
    if together is None:
        return f"{folds} folds without privacy; {scores}"
    return (
        f"all {folds} folds together: {together.short}, for one {together.unit} added or removed "
        f"(PLD), against {together.against}, as each is trained on in {folds - 1}; {scores}"
    )


def check_folds(folds: int, seeds: int | None, sweeps: Sequence[str]) -> None:
    """Refuses folds together with other repetitions, whose ε would add up too.

    Raises:
        UsageError: Seeds or swept fields are given.
    """
    if seeds is not None or sweeps:
        raise UsageError(
            f"--folds {folds}: not possible with --{'sweep' if sweeps else 'seeds'}: each "
            "repetition would be charged to the same records again; leave one of them out"
        )
