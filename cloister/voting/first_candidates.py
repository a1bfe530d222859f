"""Reads the public texts of a study of votes, the candidates of round 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cloister.bounds import listed
from cloister.data.json_rows import json_rows
from cloister.errors import DataError, ModelFileError
from cloister.files import bad_file
from cloister.models.config import base_problem
from cloister.protocol.candidates import MOST_TEXT, CandidateText
from cloister.recipe.vote_study import VoteStudy

# Most texts of a public file; a study has at most 20,000 candidates.
MOST_PUBLIC = 1_000_000


def public_texts(study: VoteStudy) -> list[CandidateText]:
    """Reads and checks a study's public texts, before a model is loaded.

    Raises:
        ModelFileError: The base or the generator is named as no model can be.
        DataError: The file cannot be read, or has too few texts for a label.
    """
    votes, labels = study.votes, study.recipe.task.labels
    named = {"model.base": study.recipe.model.base, "votes.generator": votes.generator}
    for name, base in named.items():
        problem = None if base is None else base_problem(base)
        if problem is not None:
            raise ModelFileError(problem.replace("model.base", name))
    public = read_public(Path(votes.public or "").expanduser(), labels)
    check_public(public, labels, votes.candidates, generates=votes.generator is not None)
    return public


def read_public(path: Path, labels: Sequence[str]) -> list[CandidateText]:
    """Reads the public texts of round 1.

    Raises:
        DataError: A row has no usable text, or a label that the study does not name.
    """
    found = list[CandidateText]()
    try:
        for row, value in json_rows(path):
            where = f"votes.public: {path}, row {row}"
            if len(found) == MOST_PUBLIC:
                raise DataError(
                    f"votes.public: {path}: more than {MOST_PUBLIC:,} texts; give fewer"
                )
            text, label = value.get("text"), value.get("label")
            if not isinstance(text, str) or not text.strip() or len(text) > MOST_TEXT:
                raise DataError(
                    f"{where}: column text: a text of 1 to {MOST_TEXT:,} characters is needed"
                )
            if not text.isprintable() and any("\ud800" <= one <= "\udfff" for one in text):
                raise DataError(f"{where}: column text has half of a character; correct it")
            if label not in labels:
                raise DataError(
                    f"{where}: column label: one of the study's labels is needed: "
                    f"{listed(list(labels))}"
                )
            found.append(CandidateText(text, str(label)))
    except OSError as error:
        raise bad_file(error, "read") from error
    if not found:
        raise DataError(f"votes.public: {path}: no text in it; give at least one for each label")
    return found


def check_public(
    public: Sequence[CandidateText], labels: Sequence[str], count: int, *, generates: bool
) -> None:
    """Refuses public texts that are too few, before a model is loaded.

    Raises:
        DataError: A label has none; or, without a generator, fewer than its candidates.
    """
    for place, label in enumerate(labels):
        wanted = 1 if generates else count // len(labels) + (place < count % len(labels))
        found = sum(one.label == label for one in public)
        if found < wanted:
            remedy = "" if generates else ", set fewer votes.candidates, or name a votes.generator"
            raise DataError(
                f"votes.public: {found} texts with label {label!r}; at least {wanted} are needed: "
                f"give more{remedy}"
            )
