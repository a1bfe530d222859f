"""Loads the public texts by which a model is compressed: built-in sentences, or a given file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.data.records import (
    ChatRecord,
    ItemsRecord,
    Message,
    PairRecord,
    Record,
    TextRecord,
    TokenRecord,
)
from cloister.data.unlabelled import Unlabelled, read_unlabelled
from cloister.errors import MisfitError, RefusedError, UsageError
from cloister.export.forms.finished import Finished, probe_batches, recipe_file
from cloister.export.synthetic_card import promise_words
from cloister.export.synthetic_facts import read_facts
from cloister.recipe import read_run_recipe
from cloister.recipe.private_file import refuse_private_file, refuse_private_texts
from cloister.tasks.bare_text import bare_record
from cloister.tasks.recommendation import Recommendation
from cloister.tasks.task import Example, Task

OPTION = "--public"


@dataclass(frozen=True)
class PublicTexts:
    """Public texts that a compression may read, and a description of their source.

    Attributes:
        words: Description of the source, for the card.
        given: The rows of a file; empty: the built-in sentences are used.
        promise: Of synthetic records: the promise to the sites whose model wrote them; empty: the
            texts are not synthetic.
    """

    words: str
    given: tuple[Unlabelled, ...]
    promise: str = ""

    def examples(self, finished: Finished) -> list[Example]:
        """Encodes the texts for a network.

        Raises:
            MisfitError: A row does not fit the task; the message gives its number.
        """
        if not self.given:
            return [one for batch in probe_batches(finished) for one in batch.examples]
        return [_encoded(finished.task, one, row) for row, one in enumerate(self.given, 1)]


def public_texts(finished: Finished, file: Path | None) -> PublicTexts:
    """Reads public texts from a file, and refuses the study's private records.

    Args:
        finished: The study's result.
        file: Rows as `cloister predict` reads them, without labels; None: the built-in sentences.

    Raises:
        RefusedError: The file holds the study's private records, with or without their labels; or
            it is of synthetic records whose ε is ∞, or that were changed.
        UsageError: The file does not exist.
        DataError: The file cannot be read, or does not fit the task.
    """
    if file is None:
        return PublicTexts("built-in sentences", ())
    if not file.is_file():
        raise UsageError(f"{OPTION}: no such file: {file}; give a file of public texts")
    known = recipe_file(finished)
    recipe = None if known is None else read_run_recipe(known)
    if recipe is not None:
        refuse_private_file(recipe, file, OPTION)
    facts = read_facts(file)
    if facts is not None and facts.largest is None:
        raise RefusedError(
            f"{OPTION}: {file} has synthetic records of a model whose ε is ∞ or not known, so they "
            "are not public: draw them from a model with a certificate (cloister synthesize)"
        )
    kind = finished.task.record_kind
    given = tuple(read_unlabelled(file, kind, finished.about.data))
    if recipe is not None and facts is None:  # prompts of synthetic records are public
        refuse_private_texts(recipe, [_record(finished.task, one) for one in given], OPTION)
    if facts is not None:
        words = f"{file.name}, synthetic records of the study {facts.study}"
        return PublicTexts(words, given, promise_words(facts))
    return PublicTexts(f"{file.name}, which its owner declared public", given)


def _encoded(task: Task, given: Unlabelled, row: int) -> Example:
    try:
        if isinstance(task, Recommendation):
            return task.history(tuple(map(str, given)))
        return task.encode(_record(task, given))
    except MisfitError as error:
        raise MisfitError(error.reason, f"{OPTION}: row {row}: {error}") from error


def _record(task: Task, given: Unlabelled) -> Record:
    """Returns a row as a record of the task with a meaningless label, which nothing reads.

    Of a chat, the student learns all tokens of the text.
    """
    kind = task.record_kind
    if kind == "messages":
        if isinstance(given, str):
            return ChatRecord((), text=given)
        return ChatRecord(tuple(one for one in given if isinstance(one, Message)))
    if kind == "items":
        return ItemsRecord(tuple(map(str, given)))
    if kind == "tokens":
        words: Sequence[str] = given.split() if isinstance(given, str) else tuple(map(str, given))
        return TokenRecord(tuple(words), ("O",) * len(words))
    if kind == "pairs":
        first, second = map(str, given)
        return PairRecord(first, task.labels[0], text_b=second)
    assert isinstance(given, str)
    return bare_record(task, given) if kind != "text" else TextRecord(given, task.labels[0])
