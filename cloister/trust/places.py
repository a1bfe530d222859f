"""Finds private records among the inputs of a report, and the folders where it may be written.

An explanation quotes its text word by word. So the command checks whether its inputs are private
records that this machine knows: those of the run's training file, or of a site's file. If they are,
it writes only below the folder of these records. Otherwise private text could be copied out of the
institution with a report. The check is that of `cloister.recipe.private_file`, but without labels,
which an input does not have.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.client.site_file import SiteFile, read_site
from cloister.data.records import (
    ChatRecord,
    ItemsRecord,
    Message,
    PairRecord,
    Record,
    TokenRecord,
)
from cloister.deployment.site.records import read_records
from cloister.errors import RefusedError, UsageError
from cloister.protocol.delivery import NOTE
from cloister.recipe import Recipe
from cloister.recipe.private_file import (
    MOST_SHARED,
    is_copy,
    plain_text,
    private_file,
    training_records,
)
from cloister.serving.inputs import Input, as_chat


@dataclass(frozen=True)
class KnownRecords:
    """Private records that this machine knows, and the folders where they may be quoted.

    Attributes:
        words: Their owner, for messages.
        file: The file that holds them.
        places: Folders below which a report about them may be written.
        inputs: The inputs that a model would get for them.
    """

    words: str
    file: Path
    places: tuple[Path, ...]
    inputs: frozenset[object]


def stores_of(folder: Path, recipe: Recipe | None, site: Path | None) -> list[KnownRecords]:
    """Returns the private records of a model's study that this machine knows.

    Args:
        folder: The adapter's folder.
        recipe: The recipe of its run; None: the adapter is alone.
        site: The site's file; None: not given.

    Raises:
        UsageError: The adapter was delivered to a site, and the site's file is not named.
        DataError: The records cannot be read.
    """
    found = []
    private = None if recipe is None else private_file(recipe)
    if recipe is not None and private is not None:
        inputs = _inputs(training_records(recipe))
        words = f"the study's private records ({recipe.data.train})"
        found.append(KnownRecords(words, private, (private.parent,), inputs))
    if site is not None:
        found.append(_site_store(read_site(site)))
    elif (folder / NOTE).is_file():
        raise UsageError(
            f"{folder}: this adapter was delivered to a site; name the site's file with --site, so "
            "that explanations of its records stay with them"
        )
    return found


def _site_store(file: SiteFile) -> KnownRecords:
    inputs = _inputs(read_records(file).records)
    words = f"the private records of {file.site.name} ({file.data})"
    return KnownRecords(words, file.data, (file.path.parent, file.data.parent), inputs)


def _inputs(records: Iterable[Record]) -> frozenset[object]:
    return frozenset(one for record in records for one in inputs_of(record))


def inputs_of(record: Record) -> set[object]:
    """Returns the inputs that a model may get for a record, each in `plain_input`'s form."""
    if isinstance(record, ItemsRecord):
        return {plain_input(record.items)}
    if isinstance(record, TokenRecord):
        return {plain_input(record.tokens)}
    if isinstance(record, PairRecord):
        return {plain_input((record.text, record.text_b))}
    if not isinstance(record, ChatRecord):
        return {plain_input(record.text)}
    if record.text is not None:
        return {plain_input(record.text)}
    turns = question_of(record.messages)
    return {plain_input(turns), *(plain_input(one.content) for one in turns if one.role == "user")}


def plain_input(given: Input) -> object:
    """Returns an input in a form that does not depend on white space or on how it was given.

    Words and pairs become one text, a user's turn becomes its text.
    """
    if isinstance(given, str):
        return plain_text(given)
    if not isinstance(given, Sequence):
        return None  # not a valid input: the model reports it
    parts: list[Any] = list(given)
    if all(isinstance(one, str | int) for one in parts):
        return plain_text(" ".join(map(str, parts)))
    turns = question_of(as_chat(given, 1).messages[:-1])
    if [one.role for one in turns] == ["user"]:
        return plain_text(turns[0].content)
    return tuple((one.role, plain_text(one.content)) for one in turns)


def question_of(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Returns a conversation up to its last turn that is not the assistant's."""
    last = max((i for i, one in enumerate(messages) if one.role != "assistant"), default=-1)
    return tuple(messages[: last + 1])


def whose(
    stores: Iterable[KnownRecords],
    inputs: Sequence[Input],
    file: Path | None,
    quoted: Sequence[Input],
) -> KnownRecords | None:
    """Returns the private records that the inputs belong to; None: no known ones.

    Args:
        stores: The known private records.
        inputs: The inputs that the user gave.
        file: The file that holds the inputs; None: they were typed.
        quoted: The inputs that the report quotes; not one of them may be private.
    """
    for store in stores:
        shared = sum(plain_input(one) in store.inputs for one in inputs)
        same = file is not None and store.file.is_file() and is_copy(file, store.file)
        quotes = any(plain_input(one) in store.inputs for one in quoted)
        if same or quotes or shared > MOST_SHARED * len(inputs):
            return store
    return None


def check_stays(store: KnownRecords, out: Path) -> None:
    """Refuses a folder outside of the place of private records; links are followed.

    Raises:
        RefusedError: It is outside.
    """
    real = Path(os.path.realpath(out))
    places = [Path(os.path.realpath(place)) for place in store.places]
    if not any(real.is_relative_to(place) for place in places):
        raise RefusedError(
            f"--out {out}: the inputs are {store.words}, and are quoted, so the report "
            f"must stay with the records; choose a folder below {places[0]}, or give public texts"
        )
