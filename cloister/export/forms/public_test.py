"""Loads the public records that forms are scored on: the run's test set, or a given public file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from cloister.data.load import load
from cloister.data.records import Record
from cloister.data.source import RECIPE, released_as
from cloister.errors import UsageError
from cloister.export.adapter_folder import ReleaseFacts
from cloister.export.forms.finished import Finished, recipe_file
from cloister.recipe import Recipe, read_run_recipe
from cloister.recipe.private_file import refuse_private_file, refuse_private_texts
from cloister.tasks.task import Example


@dataclass(frozen=True)
class PublicTest:
    """Encoded public records to score a model on, and a description of their source.

    Attributes:
        words: Where the records come from, as a card states it.
        examples: The encoded records.
    """

    words: str
    examples: list[Example]


@dataclass(frozen=True)
class PublicRecords:
    """Public records to try a model on, before they are encoded.

    Attributes:
        words: Description of their source.
        place: Their file, or the name of a generator.
        records: All of them, in the file's order.
    """

    words: str
    place: Path
    records: list[Record]


def public_test(finished: Finished, given: Path | None) -> PublicTest | None:
    """Returns the records to score on.

    Args:
        finished: The study's result.
        given: A file that its owner declares public; None: the run's own public test set.

    Returns:
        The records; None if there is neither a file nor a test set.

    Raises:
        RefusedError: The file holds the study's private records.
        UsageError: The file does not exist.
        DataError: The file cannot be read, or does not fit the task.
    """
    file = recipe_file(finished)
    recipe = None if file is None else read_run_recipe(file)
    found = public_records(finished.about, recipe, given)
    if found is None:
        return None
    return PublicTest(found.words, finished.workspace.encode(found.records))


def public_records(
    about: ReleaseFacts, recipe: Recipe | None, given: Path | None
) -> PublicRecords | None:
    """Returns the public records that a finished model may be tried on; see `public_test`.

    Args:
        about: The facts in the adapter's folder.
        recipe: The recipe of its run; None: the adapter's folder is not in a run.
        given: A file that its owner declares public; None: the run's own public test set.
    """
    kind = about.task.records
    columns = dataclasses.replace(about.data, person=None)
    if given is not None:
        if not given.is_file():
            raise UsageError(f"--test: no such file: {given}; give a file of public records")
        if recipe is not None:
            refuse_private_file(recipe, given, "--test")
        records = load(str(given), "test", kind, columns, asker=released_as("--test"))
        if recipe is not None:
            refuse_private_texts(recipe, records, "--test")
        words, place = f"{given.name}, which its owner declared public", given
    else:
        test = None if recipe is None else _test_of(recipe)
        if recipe is None or test is None:
            return None
        place = Path(test)
        if place.is_file():
            refuse_private_file(recipe, place, "data.test")
        records = load(test, "test", kind, recipe.data, asker=RECIPE)
        words = "the study's public test set"
    return PublicRecords(f"{words} ({len(records):,} records)", place, records)


def _test_of(recipe: Recipe) -> str | None:
    """Returns the run's public test set; None if the test set was a fold of private records."""
    data = recipe.data
    if data.fold is not None:
        return None
    test = data.test or (data.train if data.train.startswith("synthetic:") else None)
    if test is None or not (test.startswith("synthetic:") or Path(test).is_file()):
        return None
    return test
