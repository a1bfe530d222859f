"""Explanations of private records stay at the institution: where a report may be written.

An explanation quotes its text word by word. So the command looks whether its inputs are private
records that this machine knows, the run's training file or those of a site's file, and then writes
only below the folder in which these records lie. What is private is detected as
`cloister.recipe.private_file` does it, but without labels, which an input does not have.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.client.site_file import SiteFile, read_site
from cloister.data.records import (
    ChatRecord,
    ItemsRecord,
    Message,
    PairRecord,
    Record,
    TokenRecord,
)
from cloister.data.unlabelled import Unlabelled
from cloister.deployment.site.records import read_records
from cloister.errors import RefusedError, UsageError
from cloister.protocol.delivery import NOTE
from cloister.recipe import Recipe
from cloister.recipe.private_file import MOST_SHARED, is_copy, private_file, training_records


@dataclass(frozen=True)
class KnownRecords:
    """Private records of this machine.

    Attributes:
        words: Whose they are.
        file: That holds them.
        places: Folders below which a report about them may be written.
        inputs: What the model would be asked about each.
    """

    words: str
    file: Path
    places: tuple[Path, ...]
    inputs: frozenset[Unlabelled]


def stores_of(folder: Path, recipe: Recipe | None, site: Path | None) -> list[KnownRecords]:
    """The private records that this machine knows of a model.

    Args:
        folder: Of the adapter.
        recipe: Of its run; None: the adapter is alone.
        site: The site's file; None: none was named.

    Raises:
        UsageError: The adapter was delivered to a site, and the site's file is not named.
        DataError: The records cannot be read.
    """
    found = []
    private = None if recipe is None else private_file(recipe)
    if recipe is not None and private is not None:
        inputs = frozenset(map(input_of, training_records(recipe)))
        words = f"the study's private records ({recipe.data.train})"
        found.append(KnownRecords(words, private, (private.parent,), inputs))
    if site is not None:
        found.append(_site_store(read_site(site)))
    elif (folder / NOTE).is_file():
        raise UsageError(
            f"{folder}: this adapter was delivered to a site; name the site's file by --site, so "
            "that explanations of its records stay with them"
        )
    return found


def _site_store(file: SiteFile) -> KnownRecords:
    inputs = frozenset(map(input_of, read_records(file).records))
    words = f"the private records of {file.site.name} ({file.data})"
    return KnownRecords(words, file.data, (file.path.parent, file.data.parent), inputs)


def input_of(record: Record) -> Unlabelled:
    """What a model is asked about a record."""
    if isinstance(record, ItemsRecord):
        return record.items
    if isinstance(record, TokenRecord):
        return record.tokens
    if isinstance(record, ChatRecord):
        return record.text if record.text is not None else question_of(record.messages)
    if isinstance(record, PairRecord):
        return (record.text, record.text_b)
    return record.text


def question_of(messages: Sequence[Message]) -> tuple[Message, ...]:
    """A conversation up to its last turn that is not the assistant's."""
    last = max((i for i, one in enumerate(messages) if one.role != "assistant"), default=-1)
    return tuple(messages[: last + 1])


def whose(
    stores: Iterable[KnownRecords], inputs: Sequence[Unlabelled], file: Path | None
) -> KnownRecords | None:
    """Of which private records the inputs are; None: of none that are known.

    Args:
        stores: What is known.
        inputs: What is to be explained.
        file: That holds them; None: they were typed.
    """
    for store in stores:
        known = store.inputs | {
            (Message("user", one),) for one in store.inputs if isinstance(one, str)
        }
        shared = sum(_asked(one) in known for one in inputs)
        same = file is not None and store.file.is_file() and is_copy(file, store.file)
        if same or shared > MOST_SHARED * len(inputs):
            return store
    return None


def _asked(given: Unlabelled) -> Unlabelled:
    if isinstance(given, tuple) and all(isinstance(one, Message) for one in given):
        return question_of([one for one in given if isinstance(one, Message)])
    return given


def check_stays(store: KnownRecords, out: Path) -> None:
    """Refuses a folder outside of the place of private records; links are followed.

    Raises:
        RefusedError: It is outside.
    """
    real = Path(os.path.realpath(out))
    places = [Path(os.path.realpath(place)) for place in store.places]
    if not any(real.is_relative_to(place) for place in places):
        raise RefusedError(
            f"--out {out}: these are {store.words}, and explanations quote them: they stay where "
            f"the records are. Choose a folder below {places[0]}, or explain public texts"
        )
