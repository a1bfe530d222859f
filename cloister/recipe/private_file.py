"""Refuses a study's private records where public ones were asked for.

What is chosen or scored on private records tells of them, and no ledger charges it. A file is
private if it is the study's training file under any name, or if many of its records are among the
training data's.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from cloister.data.load import load
from cloister.data.public_set import text_of
from cloister.data.records import ChatRecord, ItemsRecord, PairRecord, Record, TokenRecord
from cloister.errors import RefusedError
from cloister.files import stamp_of, why_no_file
from cloister.recipe.schema import Recipe

# Part of the records that may be among the training data's too: public collections repeat short
# texts. A file with more of them is private records with others beside them.
MOST_SHARED = 0.1


def refuse_private_file(recipe: Recipe, place: Path, option: str) -> None:
    """Refuses the training file under any name: its path, a link to it, or a copy.

    Args:
        recipe: The study's.
        place: A file that is there.
        option: What names it, for messages.

    Raises:
        RefusedError: It is the study's training file.
    """
    if is_private_file(recipe, place):
        raise _refusal(option, str(place), recipe.data.train)


def is_private_file(recipe: Recipe, place: Path) -> bool:
    """Whether a file that is there is the study's training file, by any path, link or copy."""
    return any(is_copy(place, private) for private in _private_files(recipe))


def is_copy(place: Path, private: Path) -> bool:
    """Whether a file is another one by a link, or has the same bytes."""
    return place.samefile(private) or stamp_of(place).sha256 == stamp_of(private).sha256


def training_records(recipe: Recipe) -> list[Record]:
    """The study's private records; none where they are no file of this machine.

    Raises:
        DataError: The file cannot be read.
    """
    private = private_file(recipe)
    if private is None:
        return []
    data = recipe.data
    kind = recipe.task.records
    return load(str(private), "train", kind, data, sites=data.partition == "column")


def refuse_private_texts(recipe: Recipe, records: Sequence[Record], option: str) -> None:
    """Refuses records of which more than `MOST_SHARED` are among the training data's, whatever
    labels or replies they have: one site's own would be, with or without others beside them.

    Args:
        recipe: The study's.
        records: What was read of the file, with any labels.
        option: What names the file, for messages.

    Raises:
        RefusedError: They are the study's private records.
    """
    private_texts = {_text(record) for record in training_records(recipe)}
    if not private_texts:
        return
    shared = sum(_text(record) in private_texts for record in records)
    if shared > MOST_SHARED * len(records):
        raise _refusal(option, "these records", recipe.data.train)


def refuse_private_training(recipe: Recipe, records: Sequence[Record], option: str) -> None:
    """Refuses records to train on without noise if even one has the whole text of a private one.

    Args:
        recipe: The study's.
        records: What was read of the file.
        option: What names the file, for messages.

    Raises:
        RefusedError: There is one; the message says how many and which is the first.
    """
    refuse_private_texts(recipe, records, option)
    private = {plain_text(text_of(record)) for record in training_records(recipe)}
    shared = [n for n, record in enumerate(records, 1) if plain_text(text_of(record)) in private]
    if shared:
        raise RefusedError(
            f"{option}: {len(shared)} of {len(records)} records have the text of a private record "
            f"in {recipe.data.train}; the first is record {shared[0]}. They would be learnt "
            "without noise, which no ε covers: take them out of the public file"
        )


def _text(record: Record) -> object:
    """What a record's person wrote, without labels, the last reply or the kind of white space.

    A sentence's words are one text; so is a conversation of one turn of the user.
    """
    if isinstance(record, PairRecord):
        return plain_text(record.text), plain_text(record.text_b)
    if isinstance(record, TokenRecord):
        return plain_text(" ".join(record.tokens))
    if isinstance(record, ItemsRecord):
        return record.items
    if not isinstance(record, ChatRecord):
        return plain_text(record.text)
    if record.text is not None:
        return plain_text(record.text)
    asked = [(one.role, plain_text(one.content)) for one in record.messages]
    while asked and asked[-1][0] == "assistant":
        asked.pop()
    return asked[0][1] if len(asked) == 1 else tuple(asked)


def plain_text(text: str) -> str:
    """A text with one form of each character, and one space wherever white space is."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def private_file(recipe: Recipe) -> Path | None:
    """The study's training data, where they are a file of this machine."""
    return next(iter(_private_files(recipe)), None)


def _private_files(recipe: Recipe) -> list[Path]:
    """Files that may be the study's training data.

    The folder in which a run was started is not recorded. So a relative path is looked for from the
    present folder, and from each folder above the run's, of which that one usually is one.
    """
    try:
        train = Path(recipe.data.train).expanduser()  # as `data.load` finds it
    except RuntimeError:  # ~name, where no user has that name
        train = Path(recipe.data.train)
    found = [train] if train.is_file() else []
    if train.is_absolute() or recipe.run_folder is None:
        return found
    places = (folder / train for folder in recipe.run_folder.parents)
    return found + [place for place in places if why_no_file(place) is None]


def _refusal(option: str, what: str, train: str) -> RefusedError:
    return RefusedError(
        f"{option}: {what} are the study's private records (data.train, {train}); what is chosen "
        "or scored on them tells of them, and no ledger charges it: give a public file"
    )
